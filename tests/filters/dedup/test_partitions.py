"""Files of partitions: each is read back alone, and damage is noticed."""

from pathlib import Path

import pyarrow as pa
import pytest

from caravela import storage
from caravela.storage import StorageError
from filters.dedup import partitions

SCHEMA = pa.schema([("number", pa.uint64()), ("name", pa.string())])


def table(*numbers: int) -> pa.Table:
    return pa.table({"number": list(numbers), "name": [f"n{n}" for n in numbers]}, schema=SCHEMA)


def test_partitions_are_read_back_one_by_one(root: str, tmp_path: Path) -> None:
    tables = [table(1, 2), None, table(), table(3), table(*range(1000))]
    partitions.write(str(tmp_path / "local"), SCHEMA, tables)
    uri = storage.join(root, "part-00000.parts")
    storage.publish(str(tmp_path / "local"), uri)
    for i, expected in enumerate(tables):
        assert partitions.read(uri, i, 5, SCHEMA).equals(expected if expected is not None else table())


def test_partitions_same_tables_same_bytes(tmp_path: Path) -> None:
    whole = table(*range(50))
    partitions.write(str(tmp_path / "a"), SCHEMA, [whole.slice(10, 5), None])
    partitions.write(str(tmp_path / "b"), SCHEMA, [table(*range(10, 15)), table()])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("place", [-1, -40])
def test_partitions_damage_is_an_error_that_names_the_file(tmp_path: Path, place: int) -> None:
    path = tmp_path / "keys.parts"
    partitions.write(str(path), SCHEMA, [table(1, 2, 3)])
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StorageError, match=r"keys\.parts: partition 0 is damaged"):
        partitions.read(str(path), 0, 1, SCHEMA)


def test_partitions_wrong_file_or_number_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"PAR1" * 9)
    with pytest.raises(StorageError, match="not a file of partitions"):
        partitions.read(str(tmp_path / "other"), 0, 1, SCHEMA)
    partitions.write(str(tmp_path / "two"), SCHEMA, [None, None])
    with pytest.raises(StorageError, match="has 2 partitions, expected 4"):
        partitions.read(str(tmp_path / "two"), 0, 4, SCHEMA)
