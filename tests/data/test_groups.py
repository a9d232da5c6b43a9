"""Groups of documents, by hand."""

import math

import pyarrow as pa
import pytest

from caravela.data.groups import columns_of, groups_of, tenth
from caravela.errors import UserError

BATCH = pa.RecordBatch.from_pydict(
    {
        "source": pa.array(["a", None, "b", "a"]),
        "date": pa.array(["2020-05-01", "20", None, "mmxx-1"]),
        "metadata": pa.array(['{"register": "news", "n": 3}', None, "[]", '{"register": {"a": [1]}}']),
        "score": pa.array([0.0, None, 0.999, 1.0], pa.float32()),
    }
)


def test_groups_are_columns_fields_years_and_tenths() -> None:
    found = groups_of(BATCH, ["source", "year", "metadata.register", "metadata.n", "score"])
    assert {name: values.to_pylist() for name, values in found.items()} == {
        "source": ["a", "", "b", "a"],
        "year": ["2020", "", "", ""],
        "metadata.register": ["news", "", "", '{"a": [1]}'],
        "metadata.n": ["3", "", "", ""],
        "score": ["0.0 to 0.1", "", "0.9 to 1.0", "0.9 to 1.0"],
    }


def test_columns_of_groups_come_once_and_must_be_there() -> None:
    assert columns_of(["source", "metadata.a", "metadata.b", "year"], BATCH.schema.names, "t") == [
        "source",
        "metadata",
        "date",
    ]
    with pytest.raises(UserError, match=r"^t: no column 'fonte' for pack.group_by; it has source, date, met"):
        columns_of(["fonte"], BATCH.schema.names, "t")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((0.1, "0.1 to 0.2"), (0.3, "0.3 to 0.4"), (0.29, "0.2 to 0.3"), (1.0, "0.9 to 1.0"), (2.5, "2.5 to 2.6")),
        *((None, ""), (math.nan, ""), (-0.05, "-0.1 to 0.0")),
    ],
)
def test_tenth_holds_its_value(value: float | None, expected: str) -> None:
    assert tenth(value) == expected
