"""jobs/pack.py --preview, on a road that is made without Ray."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pack
from caravela import config
from road import RoadConfig, road
from tests.road_without_ray import finish
from tests.running import DEMO, REPOSITORY
from tests.toy_run import sample_texts


def write_documents(root: Path) -> None:
    lines = [json.dumps({"id": f"t{i}", "text": text}) for i, text in enumerate(sample_texts("pt-PT/news"))]
    (root / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")


def settings(root: Path) -> list[str]:
    """A small road over a file of documents that ``write_documents`` writes."""
    small = ("tokenizer.vocabulary_size=512", "pack.context=64", "pack.method=best_fit", "crawl.enabled=false")
    off = ("curate.near_languages.enabled=false", "curate.variant.enabled=false", "curate.personal_data.enabled=false")
    return [f"root={root}", f'curate.inputs=["{root}/texts.jsonl"]', *small, *off]


def arguments(root: Path, *others: str) -> list[str]:
    return ["--config", str(REPOSITORY / DEMO), *(part for one in settings(root) for part in ("--set", one)), *others]


def test_preview_of_an_unfinished_pack_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_documents(tmp_path)
    assert pack.main(arguments(tmp_path, "--preview")) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "stage pack is not finished" in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("count", ["0", "-3", "dez"])
def test_preview_of_no_rows_is_refused(tmp_path: Path, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        pack.main(arguments(tmp_path, f"--preview={count}"))
    assert error.value.code == 2
    assert "expected a number from 1" in capsys.readouterr().err


def test_preview_prints_rows_of_the_finished_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_documents(tmp_path)
    stages = road(config.load(RoadConfig, str(REPOSITORY / DEMO), settings(tmp_path)))
    for name, stage in stages.items():
        finish(stage)
        if name == "pack":
            break
    capsys.readouterr()
    before = sorted(tmp_path.rglob("*"))
    assert pack.main(arguments(tmp_path, "--preview", "4")) == 0
    printed = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert printed.count("── train part ") == 4
    done = stages["pack"].manifest()
    assert done is not None
    names = {
        name for uri in done.uris("train") for row in pq.read_table(uri)["document_ids"].to_pylist() for name in row
    }
    for line in printed.splitlines():
        if line.startswith("⟦") and "doc " in line:
            assert line.partition("doc ")[2].removesuffix("⟧") in names
    assert pack.main(arguments(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert f"{done.counters['train_rows']:,} rows of 65 tokens (train)" in printed
    assert f"padding {done.summary['padding_share']:.3%} of places" in printed
