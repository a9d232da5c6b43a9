"""The stratified sample, against brute force over all documents at once."""

import random
import tracemalloc
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from caravela import schema
from caravela.data import sampling
from caravela.data.sampling import Sample, SampleOf, Stratum
from caravela.errors import UserError

FIELDS = ("source", "metadata.register")


def corpus(seed: int, documents: int = 600) -> list[dict[str, Any]]:
    """Documents of very different sizes in strata of very different sizes."""
    generator = random.Random(seed)
    kinds = [("jornal", "notícia"), ("jornal", "crónica"), ("livro", None), (None, "lei"), ("raro", "notícia")]
    rows = []
    for number in range(documents):
        source, register = generator.choices(kinds, weights=[50, 10, 25, 14, 1])[0]
        metadata = "{}" if register is None else f'{{"register": "{register}"}}'
        words = "maré alta à beira do cais ".split()
        text = " ".join(generator.choices(words, k=int(generator.paretovariate(1.1)) + 3)) + f" {number}"
        rows.append({"id": f"doc-{number}", "text": text, "source": source, "metadata": metadata})
    return rows


def parts(folder: Path, rows: Sequence[dict[str, Any]], count: int) -> list[str]:
    folder.mkdir(parents=True)
    uris = []
    for i in range(count):
        uris.append(str(folder / f"part-{i:05d}.parquet"))
        table = pa.Table.from_pylist([dict(row) for row in rows[i::count]], schema=schema.documents())
        pq.write_table(table, uris[-1], row_group_size=37 if len(rows) <= 20_000 else 5000)
    return uris


def everything(identifier: str) -> bool:
    return True


def sample_of(uris: Sequence[str], path: Path, **changes: Any) -> Sample:
    settings = {"fields": FIELDS, "setting": "sample_by", "size": 9000, "temper": 0.5, "seed": 1, "wanted": everything}
    return sampling.take(SampleOf(uris=uris, **{**settings, **changes}), str(path))


def strata_of(rows: Sequence[dict[str, Any]]) -> dict[Stratum, list[dict[str, Any]]]:
    strata: dict[Stratum, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        register = None if row["metadata"] == "{}" else row["metadata"].split('"')[3]
        strata[(row["source"], register)].append(row)
    return strata


def size(row: dict[str, Any]) -> int:
    return len(row["text"].encode())


def shares_by_bisection(sizes: dict[Stratum, int], budget: int, temper: float) -> dict[Stratum, float]:
    """The scale at which all strata together give the budget, found by halving an interval."""
    low, high = 0.0, float(budget + 1) * 1000
    for _ in range(200):
        scale = (low + high) / 2
        given = sum(min(b, scale * b**temper) for b in sizes.values())
        low, high = (scale, high) if given < budget else (low, scale)
    return {name: min(b, high * b**temper) for name, b in sizes.items()}


@pytest.mark.parametrize("temper", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("budget", [300, 9000, 30_000, 10**9])
@pytest.mark.parametrize("seed", [1, 2])
def test_each_stratum_gives_its_first_documents_by_hash(tmp_path: Path, temper: float, budget: int, seed: int) -> None:
    rows = [row for row in corpus(seed) if row["id"] != "doc-7"]
    uris = parts(tmp_path / "documents", corpus(seed), 3)
    found = sample_of(
        uris, tmp_path / "texts", size=budget, temper=temper, seed=seed, wanted=lambda name: name != "doc-7"
    )
    strata = strata_of(rows)
    shares = shares_by_bisection({name: sum(map(size, own)) for name, own in strata.items()}, budget, temper)
    expected = []
    for name, own in strata.items():
        taken: list[int] = []
        for row in sorted(own, key=lambda row: xxhash.xxh3_64_intdigest(row["id"].encode(), seed)):
            if sum(taken) >= round(shares[name]):
                break
            taken.append(size(row))
            expected.append((xxhash.xxh3_64_intdigest(row["id"].encode(), seed), (name, row["text"])))
        counts = found.strata[name]
        assert (counts.documents, counts.bytes) == (len(own), sum(map(size, own)))
        assert (counts.taken_documents, counts.taken_bytes) == (len(taken), sum(taken))
    assert list(found) == [text for _, text in sorted(expected, key=lambda pair: pair[0])]
    assert found.bytes == sum(len(text.encode()) for _, (_, text) in expected)


def test_the_sample_does_not_depend_on_parts_or_their_order(tmp_path: Path) -> None:
    rows = corpus(3)
    one = sample_of(parts(tmp_path / "one", rows, 1), tmp_path / "a")
    random.Random(5).shuffle(rows)
    other = sample_of(parts(tmp_path / "other", rows, 11)[::-1], tmp_path / "b")
    assert 50 < len(one) < 500
    assert list(one) == list(other)
    assert list(one.strata.items()) == list(other.strata.items())


def test_two_documents_of_one_id_come_in_one_order(tmp_path: Path) -> None:
    rows = [{"id": "o mesmo", "text": text, "metadata": "{}"} for text in ("mar", "terra", "céu")]
    one = sample_of(parts(tmp_path / "one", rows, 1), tmp_path / "a")
    other = sample_of(parts(tmp_path / "other", rows[::-1], 2), tmp_path / "b")
    assert list(one) == list(other)
    assert len(one) == 3


def test_another_seed_takes_other_documents(tmp_path: Path) -> None:
    uris = parts(tmp_path / "documents", corpus(4), 2)
    assert set(sample_of(uris, tmp_path / "a")) != set(sample_of(uris, tmp_path / "b", seed=2))


def test_without_fields_there_is_one_stratum(tmp_path: Path) -> None:
    found = sample_of(parts(tmp_path / "documents", corpus(4), 2), tmp_path / "a", fields=())
    assert list(found.strata) == [()]
    assert 9000 <= found.bytes < 9000 + max(len(text.encode()) for _, text in found)


def test_no_documents_give_an_empty_sample(tmp_path: Path) -> None:
    found = sample_of(parts(tmp_path / "documents", [], 1), tmp_path / "a")
    assert (list(found), found.bytes, found.strata) == ([], 0, {})


def test_a_field_that_is_no_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column 'register' for sample_by; it has id, text"):
        sample_of(parts(tmp_path / "documents", corpus(1, 5), 1), tmp_path / "a", fields=("register",))


def test_a_field_of_too_many_values_is_refused(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": "mar", "metadata": "{}"} for i in range(100_001)]
    with pytest.raises(UserError, match=r"sample_by = \['id'\]: more than 100,000 different values"):
        sample_of(parts(tmp_path / "documents", rows, 1), tmp_path / "a", fields=("id",))


def test_quotas_by_hand() -> None:
    sizes: dict[Stratum, int] = {("a",): 100, ("b",): 400, ("c",): 900, ("d",): 0}
    assert sampling.quotas(sizes, 600, 0.5) == {("a",): 100, ("b",): 200, ("c",): 300, ("d",): 0}
    assert sampling.quotas(sizes, 700, 0.0) == {("a",): 100, ("b",): 300, ("c",): 300, ("d",): 0}
    assert sampling.quotas(sizes, 140, 1.0) == {("a",): 10, ("b",): 40, ("c",): 90, ("d",): 0}
    assert sampling.quotas(sizes, 1400, 0.5) == sizes


def test_memory_is_that_of_the_sample_not_of_the_documents(tmp_path: Path) -> None:
    """Ten times the documents, the same sample: the peak of Python's and Arrow's memory stays within a fifth."""
    peaks = []
    for factor in (1, 10):
        text = "O barco saiu cedo e voltou ao fim da tarde com pouco peixe. " * 30
        rows = [{"id": f"{i}", "text": f"{i} {text}", "metadata": "{}"} for i in range(2000 * factor)]
        uris = parts(tmp_path / f"documents-{factor}", rows, factor)
        del rows
        pool = pa.proxy_memory_pool(pa.default_memory_pool())
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        tracemalloc.start()
        found = sample_of(uris, tmp_path / f"texts-{factor}", size=200_000)
        peaks.append(tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0))
        tracemalloc.stop()
        pa.set_memory_pool(before)
        assert 200_000 <= found.bytes < 202_000
    assert peaks[1] < 1.2 * peaks[0], peaks
