"""What other limits would drop, beside every document decided one by one."""

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import what_if
from caravela.errors import UserError
from caravela.manifest import Manifest
from filters.curate import CurateConfig, curate_stages
from filters.language import LanguageConfig
from filters.quality import RULES, SIGNALS, FineWebQuality, GopherQuality, QualityConfig, as_stored, decide
from filters.what_if import JSON_FILE, PAGE_FILE, as_text, what_if_stage
from tests.reporting.reader import Reader
from tests.road_without_ray import finish

DEMO = Path(__file__).parents[2] / "jobs" / "configs" / "demo.toml"
TEXTS = Path(__file__).parents[2] / "platform" / "caravela" / "sample" / "texts"
TRIED = QualityConfig(
    fineweb_quality=FineWebQuality(enabled=False), gopher_quality=GopherQuality(min_doc_words=120, max_doc_words=400)
)


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> tuple[CurateConfig, Manifest]:
    """A curation of texts of many lengths, of which each limit that is changed moves some."""
    folder = tmp_path_factory.mktemp("what-if")
    chance = random.Random(6)
    texts = [path.read_text(encoding="utf-8") for path in sorted((TEXTS / "pt-BR").glob("*/*.txt"))]
    lines = [json.dumps({"text": "   "}), json.dumps({"text": "This is no Portuguese text, and so it has no signals."})]
    for _ in range(150):
        text = chance.choice(texts)
        text = text[: chance.choice([200, 500, 900, 2000])] * chance.choice([1, 1, 3])
        lines.append(json.dumps({"text": text.replace(".", "") if chance.random() < 0.2 else text}))
    (folder / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = CurateConfig(inputs=(str(folder / "in.jsonl"),))
    (stage,) = curate_stages(str(folder / "run"), config)
    return config, finish(stage)


@pytest.fixture(scope="module")
def made(curated: tuple[CurateConfig, Manifest]) -> Manifest:
    config, done = curated
    root = done.uri.partition("/curate/")[0]
    return finish(what_if_stage(curate_stages(root, config)[-1], TRIED))


def stored_signals(done: Manifest) -> list[dict[str, float]]:
    rows = [
        row for table in ("documents", "removed") for uri in done.uris(table) for row in pq.read_table(uri).to_pylist()
    ]
    return [{name: row[name] for name in SIGNALS} for row in rows if row["characters"] is not None]


def broken(signals: dict[str, float], place: int, config: QualityConfig) -> bool:
    """Whether a document breaks this rule, all others being switched off."""
    decision = decide(signals, config)
    rule = RULES[place]
    value, section = signals[rule.signal], getattr(config, rule.filter)
    limit = 1 if rule.limit is None else getattr(section, rule.limit)
    found = bool(section.enabled and limit and (value > limit if rule.side == "above" else value < limit))
    assert decision is not None or not found
    return found


@pytest.mark.parametrize("name", ["tried", "finished"])
def test_what_if_counts_what_deciding_each_document_counts(
    curated: tuple[CurateConfig, Manifest], made: Manifest, name: str
) -> None:
    figures = json.loads(Path(made.uri, JSON_FILE).read_text(encoding="utf-8"))
    config = as_stored(TRIED if name == "tried" else QualityConfig())
    every = stored_signals(curated[1])
    decisions = [decide(signals, config) for signals in every]
    firsts = Counter(decision[0] for decision in decisions if decision)
    measured = [place for place, rule in enumerate(RULES) if rule.signal in SIGNALS]
    which = [{place for place in measured if broken(signals, place, config)} for signals in every]
    assert [rule["signal"] for rule in figures["rules"]] == [RULES[place].signal for place in measured]
    assert figures["documents"] == len(every) == 150
    assert figures["kept"][name]["documents"] == decisions.count(None)
    assert figures["kept"][name]["characters"] == sum(
        int(signals["characters"]) for signals, decision in zip(every, decisions, strict=True) if decision is None
    )
    for place, rule in enumerate(figures["rules"]):
        assert rule["in_order"][name]["documents"] == firsts[rule["rule"]], rule["rule"]
        assert rule["alone"][name]["documents"] == sum(place in each for each in which), rule["rule"]
        assert rule["only"][name]["documents"] == sum(each == {place} for each in which), rule["rule"]
    assert len(firsts) > 3


def test_what_if_refuses_rules_whose_signals_were_not_measured(
    curated: tuple[CurateConfig, Manifest],
) -> None:
    config, done = curated
    root = done.uri.partition("/curate/")[0]
    quality = QualityConfig(preset="portuguese")
    stage = what_if_stage(curate_stages(root, dataclasses.replace(config, quality=quality))[-1], quality)
    with pytest.raises(UserError, match=r"holds no \w+_ratio; run jobs/curate\.py"):
        finish(stage)


def test_what_if_says_how_many_come_and_go(curated: tuple[CurateConfig, Manifest], made: Manifest) -> None:
    figures = json.loads(Path(made.uri, JSON_FILE).read_text(encoding="utf-8"))
    every = stored_signals(curated[1])
    kept = [
        {i for i, signals in enumerate(every) if decide(signals, as_stored(config)) is None}
        for config in (TRIED, QualityConfig())
    ]
    assert figures["kept_only_now"]["documents"] == len(kept[0] - kept[1]) > 0
    assert figures["dropped_only_now"]["documents"] == len(kept[1] - kept[0]) > 0
    text = as_text(figures)
    assert f"kept {len(kept[0])} " in text
    assert any(
        line.split()[:4] == ["gopher_quality.gopher_short_doc", "at", "least", "120"] for line in text.split("\n")
    )
    assert any(line.split()[:2] == ["fineweb_quality.line_punct_ratio", "off"] for line in text.split("\n"))


def test_what_if_curves_are_shares_of_documents_beyond_each_limit(
    curated: tuple[CurateConfig, Manifest], made: Manifest
) -> None:
    figures = json.loads(Path(made.uri, JSON_FILE).read_text(encoding="utf-8"))
    every = stored_signals(curated[1])
    drawn = 0
    for rule in figures["rules"]:
        values = np.array([signals[rule["signal"]] for signals in every])
        for x, share in rule["curve"]:
            # A point stands for values up to 0.2 % above it.
            near = x * (1 + 2**-9)
            low, high = (
                ((values > near).mean(), (values > x).mean())
                if rule["side"] == "above"
                else ((values < x).mean(), (values < near).mean())
            )
            assert low - 1e-9 <= share <= high + 1e-9, (rule["rule"], x)
        drawn += len(rule["curve"]) > 1
    assert drawn > 15


def test_what_if_page_is_html_without_script_and_marks_the_limits(made: Manifest) -> None:
    page = Path(made.uri, PAGE_FILE).read_text(encoding="utf-8")
    reader = Reader(page)
    assert not any(tag == "script" for tag, _ in reader.tags)
    text = "".join(reader.text)
    assert "tried ≥ 120" in text
    assert "finished run ≥ 50" in text
    assert len(page) < 300_000


def test_what_if_without_a_finished_run_says_what_makes_one(curated: tuple[CurateConfig, Manifest]) -> None:
    config, done = curated
    other = CurateConfig(inputs=config.inputs, language=LanguageConfig(threshold=0.123))
    for root, settings in (("elsewhere", config), (done.uri.partition("/curate/")[0], other)):
        with pytest.raises(UserError, match=r"no finished curation of these inputs.*jobs/curate\.py"):
            what_if_stage(curate_stages(root, settings)[-1], TRIED)


def test_what_if_job_prints_the_table_and_names_the_page(
    curated: tuple[CurateConfig, Manifest], made: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    config, done = curated
    settings = [
        f"root={done.uri.partition('/curate/')[0]}",
        "crawl.enabled=false",
        f"curate.inputs={json.dumps(config.inputs)}",
        "curate.quality.fineweb_quality.enabled=false",
        "curate.quality.gopher_quality.min_doc_words=120",
        "curate.quality.gopher_quality.max_doc_words=400",
    ]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    assert what_if.main(["--config", str(DEMO), *arguments]) == 0
    printed = capsys.readouterr().out
    assert as_text(json.loads(Path(made.uri, JSON_FILE).read_text(encoding="utf-8"))) in printed
    assert f"with curves: {made.uri}/{PAGE_FILE}" in printed
