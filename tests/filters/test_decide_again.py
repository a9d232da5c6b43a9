"""Curation under other limits on a finished run: the files of a fresh pass, from its tables alone."""

import dataclasses
import json
import os
import random
from pathlib import Path

import pytest

from caravela import stages
from caravela.data.evaluation_items import ItemFile
from caravela.manifest import Manifest
from filters.c4 import C4Config
from filters.curate import CurateConfig, curate_stages
from filters.datatrove_blocks import BlockConfig
from filters.decide_again import differences, is_limit
from filters.decontamination import DecontaminationConfig
from filters.fasttext_model import FastTextModel
from filters.language import LanguageConfig
from filters.personal_data import PersonalDataConfig
from filters.quality import (
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    PortugueseQuality,
    QualityConfig,
    SignalConfig,
)
from filters.repeated_lines import RepeatedLinesConfig
from filters.text_classifier import ClassifierConfig
from filters.variant import VariantConfig
from tests.filters.fasttext_models import MODELS
from tests.road_without_ray import finish

TEXTS = Path(__file__).parents[2] / "platform" / "caravela" / "sample" / "texts"
REGISTERS = ("news", "howto", "legal", "shop", "technical")
QUALITIES = {
    "stricter": QualityConfig(gopher_quality=GopherQuality(min_doc_words=230, min_alpha_words_ratio=0.9)),
    "looser": QualityConfig(gopher_quality=GopherQuality(min_doc_words=5, min_alpha_words_ratio=0.5)),
    "another rule": QualityConfig(fineweb_quality=FineWebQuality(line_punct_thr=0.9, new_line_ratio=0.01)),
    "filters off": QualityConfig(
        gopher_repetition=GopherRepetition(enabled=False),
        fineweb_quality=FineWebQuality(enabled=False),
        gopher_quality=GopherQuality(min_doc_words=0, min_stop_words=0),
    ),
}


def write_documents(path: Path) -> None:
    """Portuguese and other texts, cut and repeated, with personal data in some."""
    chance = random.Random(4)
    texts = [
        text.read_text(encoding="utf-8")
        for language in ("pt-BR", "pt-PT", "es")
        for register in REGISTERS
        for text in sorted((TEXTS / language / register).glob("*.txt"))[:2]
    ]
    with path.open("w", encoding="utf-8") as file:
        file.write("{broken\n")
        for i in range(180):
            text = chance.choice(texts)
            text = text[: chance.choice([80, 300, 900, len(text)])] * chance.choice([1, 1, 1, 4])
            if i % 3 == 0:
                text += "\nEscreva para fulano@exemplo.com.br ou ligue (11) 98765-4321."
            url = f"https://{'spam' if i % 20 == 0 else 'site'}.example/{i % 7}"
            file.write(json.dumps({"id": str(i), "text": text if i % 11 else "", "url": url, "nota": i}) + "\n")


def curated(root: Path, config: CurateConfig) -> Manifest:
    return [finish(stage) for stage in curate_stages(str(root), config)][-1]


def files(done: Manifest) -> list[tuple[str, int, str]]:
    return [(file.path, file.rows, file.sha256) for shard in done.shards for file in shard.files]


def make_unreadable(path: Path) -> None:
    """Other bytes under the fingerprint of the old ones: as many, and as old."""
    status = path.stat()
    path.write_bytes(b"\xff" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "ROW_GROUP_BYTES", 20_000)


@pytest.mark.parametrize(
    "others",
    [
        {},
        {
            "shard_mb": 1,
            "repeated_lines": RepeatedLinesConfig(enabled=True, min_pages=5),
            "blocks": (BlockConfig(name="SamplerFilter", arguments={"rate": 0.8, "seed": 1}, place="before_quality"),),
            "variant": VariantConfig(enabled=False),
            "personal_data": PersonalDataConfig(enabled=False),
        },
    ],
    ids=["default", "other steps"],
)
def test_deciding_again_gives_the_files_of_a_fresh_pass_and_reads_no_input(
    tmp_path: Path, others: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.jsonl"
    write_documents(path)
    base = CurateConfig(inputs=(str(path),), **others)  # type: ignore[arg-type]
    changed = [dataclasses.replace(base, quality=quality) for quality in QUALITIES.values()]
    fresh = [curated(tmp_path / str(i), config) for i, config in enumerate(changed)]
    first = curated(tmp_path / "run", base)
    assert "decides again" not in capsys.readouterr().out
    make_unreadable(path)
    for config, expected in zip(changed, fresh, strict=True):
        done = curated(tmp_path / "run", config)
        assert f"decides again on the signals in {tmp_path}/run/curate/" in capsys.readouterr().out
        assert done.fingerprint == expected.fingerprint != first.fingerprint
        assert files(done) == files(expected)
        assert done.counters == expected.counters
        assert done.summary == expected.summary
    kept = [done.counters["documents_kept"] for done in (first, *fresh)]
    assert kept[1] < kept[0] < kept[2] <= kept[4]
    assert kept[0] > 20


def test_limits_of_our_own_rules_are_decided_again_on_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.jsonl"
    write_documents(path)
    base = CurateConfig(inputs=(str(path),), quality=QualityConfig(preset="portuguese"))
    limits = PortugueseQuality(max_capital_ratio=0.05, min_function_word_ratio=0.35)
    config = dataclasses.replace(base, quality=QualityConfig(preset="portuguese", portuguese_quality=limits))
    fresh, first = curated(tmp_path / "fresh", config), curated(tmp_path / "run", base)
    make_unreadable(path)
    capsys.readouterr()
    done = curated(tmp_path / "run", config)
    assert "decides again" in capsys.readouterr().out
    assert files(done) == files(fresh)
    assert done.counters == fresh.counters
    assert any(name.startswith("removed.quality.portuguese_quality.") for name in done.counters)
    assert done.counters["documents_kept"] < first.counters["documents_kept"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"language": LanguageConfig(threshold=0.9)}, "differs in curate.language.threshold, not in quality limits"),
        ({"quality": QualityConfig(signals=SignalConfig(short_line_length=20))}, "curate.quality.signals.short_line"),
        ({"quality": QualityConfig(preset="portuguese")}, "did not measure the same signals"),
        (
            {"variant": VariantConfig(enabled=False), "personal_data": PersonalDataConfig(enabled=False)},
            "differs in curate.personal_data.enabled, curate.variant.enabled, not",
        ),
    ],
)
def test_a_full_pass_is_made_where_more_than_limits_differ_and_says_so(
    tmp_path: Path, changes: dict[str, object], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.jsonl"
    write_documents(path)
    base = CurateConfig(inputs=(str(path),))
    curated(tmp_path / "run", base)
    assert "full pass" not in capsys.readouterr().out
    config = dataclasses.replace(base, **changes)  # type: ignore[arg-type]
    done = curated(tmp_path / "run", config)
    said = next(line for line in capsys.readouterr().out.splitlines() if "a full pass" in line)
    assert why in said
    assert files(done) == files(curated(tmp_path / "fresh", config))


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ({"c4": C4Config(enabled=True)}, "curate.c4 rewrites texts"),
        (
            {"blocks": (BlockConfig(name="C4QualityFilter", arguments={"filter_no_terminal_punct": False}),)},
            "curate.blocks may rewrite texts",
        ),
        ({"decontamination": None}, "curate.decontamination looks at texts"),
        ({"classifiers": None}, "curate.classifiers score only what passes quality"),
    ],
)
def test_a_full_pass_is_made_where_a_step_behind_quality_stands_in_the_way(
    tmp_path: Path, steps: dict[str, object], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.jsonl"
    write_documents(path)
    if "decontamination" in steps:
        (tmp_path / "prova.jsonl").write_text(
            '{"id": "7", "question": "Qual das barragens alimenta o canal da serra?"}'
        )
        items = (ItemFile(uri=str(tmp_path / "prova.jsonl"), task="prova"),)
        steps = {"decontamination": DecontaminationConfig(enabled=True, items=items)}
    if "classifiers" in steps:
        model = MODELS["tree"].write(tmp_path / "model.bin")
        label = FastTextModel(model).labels[0].removeprefix("__label__")
        steps = {"classifiers": (ClassifierConfig(name="good", model_uri=model, label=label),)}
    base = CurateConfig(inputs=(str(path),), **steps)  # type: ignore[arg-type]
    curated(tmp_path / "run", base)
    config = dataclasses.replace(base, quality=QUALITIES["looser"])
    done = curated(tmp_path / "run", config)
    assert f"a full pass: {why}" in capsys.readouterr().out
    assert files(done) == files(curated(tmp_path / "fresh", config))


def test_a_run_that_lost_a_file_or_read_other_inputs_is_not_decided_again_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.jsonl"
    write_documents(path)
    base = CurateConfig(inputs=(str(path),))
    first = curated(tmp_path / "run", base)
    os.remove(first.uris("removed")[0])
    config = dataclasses.replace(base, quality=QUALITIES["looser"])
    done = curated(tmp_path / "run", config)
    assert f"a full pass: {first.uris('removed')[0]} is missing" in capsys.readouterr().out
    assert files(done) == files(curated(tmp_path / "fresh", config))
    path.write_text('{"text": "outro"}\n', encoding="utf-8")
    capsys.readouterr()
    other = curated(tmp_path / "run", dataclasses.replace(base, quality=QUALITIES["stricter"]))
    assert other.counters["documents_in"] == 1
    assert "again" not in capsys.readouterr().out


def test_differences_name_settings_and_only_limits_are_limits() -> None:
    one = {"a": {"b": 1, "c": [1, 2]}, "d": 0}
    assert differences(one, {"a": {"b": 1, "c": [2, 1]}, "e": 0, "d": 0}) == ["a.c", "e"]
    assert differences(one, one) == []
    assert is_limit("quality.gopher_quality.min_doc_words")
    assert not any(map(is_limit, ("quality.signals.stop_words", "language.threshold", "qualities")))
