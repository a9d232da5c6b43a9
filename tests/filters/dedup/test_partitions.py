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
    for found, expected in zip(partitions.read_whole(uri, 5, SCHEMA), tables, strict=True):
        assert found.equals(expected if expected is not None else table())


def test_partitions_of_many_thousands_are_read_back(tmp_path: Path) -> None:
    path, filled = str(tmp_path / "many"), (0, 1, 1021, 1022, 1023, 1024, 4998, 4999)
    partitions.write(path, SCHEMA, [table(i) if i in filled else None for i in range(5000)])
    for i in (*filled, 2, 1020, 1025, 4997):
        assert partitions.read(path, i, 5000, SCHEMA).equals(table(i) if i in filled else table())


def test_partitions_files_are_described_by_two_values_and_must_be_numbered() -> None:
    uris = [f"s3://bucket/{{run}}/keys/part-{i:05d}.parts" for i in range(100_002)]
    found = partitions.files(uris)
    assert len(str(found)) < 100
    assert partitions.uris_of(found) == uris
    assert partitions.uris_of(partitions.files([])) == []
    with pytest.raises(AssertionError, match=r"part-00001\.parts"):
        partitions.files(uris[1:])


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
    with pytest.raises(StorageError, match=r"keys\.parts: partition 0 is damaged"):
        list(partitions.read_whole(str(path), 1, SCHEMA))
    path.write_bytes(bytes(data[:20]))
    with pytest.raises(StorageError, match=r"keys\.parts: is cut short"):
        list(partitions.read_whole(str(path), 1, SCHEMA))


def test_partitions_wrong_file_or_number_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"PAR1" * 9)
    with pytest.raises(StorageError, match="not a file of partitions"):
        partitions.read(str(tmp_path / "other"), 0, 1, SCHEMA)
    partitions.write(str(tmp_path / "two"), SCHEMA, [None, None])
    with pytest.raises(StorageError, match="has 2 partitions, expected 4"):
        partitions.read(str(tmp_path / "two"), 0, 4, SCHEMA)
    with pytest.raises(StorageError, match="has 2 partitions, expected 4"):
        list(partitions.read_whole(str(tmp_path / "two"), 4, SCHEMA))
