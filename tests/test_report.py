"""The report on a small run whose every figure can be counted by hand, and on pages that mean harm."""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import yaml

from caravela import config, schema, stages, storage
from caravela.cluster import ClusterConfig
from caravela.errors import UserError
from caravela.manifest import Input, Manifest
from caravela.model.config import ModelConfig, num_parameters
from caravela.report import CARD_FILE, HTML_FILE, JSON_FILE, ReportConfig, report_stage
from caravela.reporting import dataset_card
from caravela.stages import Shard, ShardOutput, Stage
from tests.reporting.reader import Reader
from tests.reporting.test_page_tokenizer import FIT, TOKENIZER
from tests.road_without_ray import finish

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&</style></details>"
ARTICLE = "O barco saiu cedo do porto e voltou tarde com a rede cheia de peixe , disse o mestre ao neto ."
CHANGED = ARTICLE.replace("tarde", "logo")
MODEL = ModelConfig(
    num_layers=2,
    hidden_size=32,
    feed_forward_size=48,
    num_heads=4,
    num_kv_heads=2,
    vocabulary_size=640,
    max_positions=48,
)


def label(record_id: str, kind: str, **others: Any) -> dict[str, Any]:
    plain = {"language": "pt", "variant": "pt-BR", "register": None, "charset": "utf-8", "declared_charset": "utf-8"}
    empty = {"cluster": None, "jaccard": None, "junk_reason": None, "text": None}
    known = {**plain, **empty, "record_id": record_id, "kind": kind, **others}
    return {**known, "keep": known["junk_reason"] is None}


NEWS = {"register": "news", "cluster": "A", "text": ARTICLE}
LABELS = [
    label("a1", "text", jaccard=1.0, **NEWS),
    label("a2", "near_duplicate", jaccard=0.9, **NEWS),
    label("a3", "near_duplicate", jaccard=0.4, **NEWS),
    label("a4", "mirror", jaccard=1.0, **{**NEWS, "declared_charset": "iso-8859-1"}),
    label("b1", "text", register="legal", cluster="B", jaccard=1.0, text="dois artigos", declared_charset=None),
    label("g1", "text", register="news", cluster="G", text="unha lontra", language="gl", variant=None)
    | {"junk_reason": "language", "keep": False},
    label("e1", "text", register="news", cluster="E", text="un vencejo", language="es", variant=None)
    | {"junk_reason": "language", "keep": False},
    label("s1", "spam", junk_reason="keyword_stuffing", text="compre"),
    label("s2", "spam", junk_reason="keyword_stuffing", text="compre"),
    label("x1", "truncated", junk_reason="truncated", register="news", cluster="A"),
]
DOCUMENTS = {
    "a1": ARTICLE,
    "a2": CHANGED,
    "a3": "O barco saiu cedo",
    "a4": ARTICLE,
    "g1": "unha lontra",
    "s1": "compre",
}
REMOVED = [
    {"id": "b1", "text": "dois", "language": "pt", "stage": "quality", "reason": "gopher_quality.gopher_short_doc"},
    {"id": "e1", "text": "un vencejo " * 60, "language": "es", "stage": "language", "reason": "other_language"},
    {"id": "s2", "text": EVIL, "url": f"javascript:alert(1)//{EVIL}", "stage": "quality", "reason": EVIL}
    | {"language": EVIL, "detail": EVIL},
]


@dataclass(frozen=True)
class Writes:
    """A worker that writes what it is told."""

    write: Callable[[ShardOutput], Mapping[str, int]]

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        return self.write(out)


def stage(
    root: Path,
    name: str,
    write: Callable[[ShardOutput], Mapping[str, int]] = lambda out: {},
    summary: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Stage:
    return Stage(
        name=name,
        version=1,
        root=str(root),
        config=settings or {},
        inputs=(),
        plan=lambda: [Shard(index=0, name=name, spec={})],
        make_worker=functools.partial(Writes, write),
        finish=lambda records, uri: summary or {},
    )


def write_crawl(out: ShardOutput) -> Mapping[str, int]:
    lines = "".join(json.dumps(row) + "\n" for row in LABELS)
    Path(out.local_path("labels.jsonl")).write_text(lines, encoding="utf-8")
    return {}


def write_curated(out: ShardOutput) -> Mapping[str, int]:
    kept, removed = out.table("documents", schema.documents()), out.table("removed", schema.removed())
    for identifier, text in DOCUMENTS.items():
        kept.add({"id": identifier, "text": text, "language": "pt"})
    for row in REMOVED:
        removed.add(row)
    reasons = {f"removed.{row['stage']}.{row['reason']}": 1 for row in REMOVED}
    size = sum(len(text) for text in DOCUMENTS.values())
    return {"documents_in": 9, "documents_kept": 6, "bytes_in": 12_345, "bytes_kept": size, **reasons}


def write_deduplicated(out: ShardOutput) -> Mapping[str, int]:
    kept = out.table("documents", schema.documents().append(pa.field("cluster_size", pa.uint32())))
    removed = out.table("removed", schema.removed())
    for identifier in ("a1", "a3", "g1", "s1"):
        sizes = {"cluster_size": 3 if identifier == "a1" else 1}
        kept.add({"id": identifier, "text": DOCUMENTS[identifier], "language": "pt", **sizes})
    for identifier, reason in (("a2", "near_duplicate"), ("a4", "exact_duplicate")):
        lost = {"id": identifier, "text": DOCUMENTS[identifier], "language": "pt"}
        removed.add({**lost, "stage": "dedup", "reason": reason, "detail": "a1"})
    counters = {"documents_in": 6, "documents_kept": 4, "bytes_in": 500, "bytes_kept": 300}
    return {**counters, "removed.near_duplicate": 1, "removed.exact_duplicate": 1}


def write_metrics(out: ShardOutput) -> Mapping[str, int]:
    with open(out.local_path("metrics.jsonl"), "w") as file:
        for step in range(1, 5):
            speed = {"learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_second": 1000.0 * step}
            times = {"seconds": 2.0, "seconds_data": 0.5, "seconds_checkpoint": 0.0}
            losses = {"loss": 8.0 - step, "loss/web": 7.5 - step, "loss/books": 9.0 - step, "mfu": 0.1 * step}
            totals = {"goodput": 0.25 * step, "energy_kwh": 0.5 * step, "co2_kg": 0.05 * step, "steps_redone": 3}
            held_out = {"validation_loss": 4.5, "validation_bits_per_byte": 1.5, "validation_bits_per_byte/web": 1.25}
            row = {"step": step, **losses, **speed, **times, **totals}
            file.write(json.dumps(row | (held_out if step == 4 else {})) + "\n")
    return {}


FUNNEL = [("in", 9, 12_345), ("read", 9, 400), ("extract", 9, 400), ("language", 8, 380), ("quality", 6, 300)]
PACKED = {"context": 48, "train_rows": 20, "validation_rows": 2, "train_tokens": 1000, "validation_tokens": 100}
EVALUATION = {"loss": 4.5, "perplexity": 90.02, "bits_per_byte": 2.0, "rows": 2, "tokens": 96, "bytes": 300}
SAMPLES = [{"prompt": "Era uma vez", "text": " o mar", "decoding": "greedy"}, {"prompt": EVIL, "text": EVIL}]


def run_stages(root: Path) -> list[Stage]:
    made = [
        stage(root, "crawl", write_crawl),
        stage(
            root,
            "curate",
            write_curated,
            {"funnel": [dict(zip(("step", "documents", "bytes"), row, strict=True)) for row in FUNNEL]},
            {"note": EVIL, "language": {"threshold": 0.65}},
        ),
        stage(root, "signatures", settings={"minhash": True, "bands": 14, "rows_per_band": 8}),
        stage(root, "dedup", write_deduplicated, {"cluster_sizes": {"3": 1}}),
        stage(root, "tokenizer", summary=TOKENIZER, settings={"algorithm": "bpe"}),
        stage(root, "tokenizer_report", summary=FIT),
        stage(root, "pack", summary=PACKED),
        stage(root, "pretrain", write_metrics, settings={"model": config.to_dict(MODEL)}),
        stage(root, "evaluate", summary={**EVALUATION, "samples": SAMPLES}),
        stage(root, "export"),
    ]
    for one in made:
        finish(one)
    return made


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    return run_stages(tmp_path_factory.mktemp("run"))


def made_of(road: Sequence[Stage], *names: str) -> list[Input]:
    return [one.as_input() for one in road if not names or one.name in names]


def run_report(road: Sequence[Stage], inputs: Sequence[Input]) -> Manifest:
    return stages.run(report_stage(road[0].root, ReportConfig(), inputs), ClusterConfig())


@pytest.fixture(scope="module")
def report(road: list[Stage]) -> Manifest:
    return run_report(road, made_of(road))


@pytest.fixture(scope="module")
def text(report: Manifest) -> str:
    return storage.read_text(storage.join(report.uri, HTML_FILE))


@pytest.fixture(scope="module")
def figures(report: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(storage.read_text(storage.join(report.uri, JSON_FILE)))
    return found


def test_report_stage_runs_in_the_driver_without_ray(report: Manifest) -> None:
    assert {file.path for file in report.files("files")} == {HTML_FILE, JSON_FILE, CARD_FILE}
    assert not ray.is_initialized()


def test_report_headline_counts_what_the_stages_counted(figures: dict[str, Any]) -> None:
    headline = figures["headline"]
    assert (headline["documents_in"], headline["documents_kept"], headline["documents_deduplicated"]) == (9, 6, 4)
    assert headline["tokens"] == 1100
    assert headline["parameters"] == num_parameters(MODEL)
    assert (headline["final_loss"], headline["final_validation_loss"]) == (4.0, 4.5)
    assert headline["bits_per_byte"] == 2.0


def test_report_page_shows_the_figures(text: str) -> None:
    words = " ".join("".join(Reader(text).text).split())
    for figure in ("12.3 kB", "1,100", "1.75", "90.0", "2.000", "byte-pair encoding", "threshold = 0.65"):
        assert figure in words, figure
    assert "Of the steps' time, 25.0% went into waiting for rows and 0% into taking checkpoints." in words
    assert "from 7.00 to 4.00 nats per token, at 2,500 tokens/s (median) and 25.0% MFU." in words
    assert "100% was goodput: neither starting, nor checkpoints, nor work done again (3 steps)." in words
    assert "It took 2 kWh, 0.2 kg of CO2." in words
    for shown in ("web 3.50", "books 5.00", "all 1.50", "web 1.25", "MFU, share of the peak"):
        assert shown in words


def test_funnel_ends_with_deduplication_and_has_no_bytes_before_extraction(figures: dict[str, Any]) -> None:
    assert [step["documents"] for step in figures["funnel"]] == [9, 9, 9, 8, 6, 4]
    assert [step["bytes"] for step in figures["funnel"]] == [12_345, None, 400, 380, 300, 300]


def test_removed_documents_are_shown_under_their_reason(figures: dict[str, Any]) -> None:
    found = {(row["step"], row["reason"]): row for row in figures["removed"]}
    spanish = found[("language", "other_language")]["examples"][0]
    assert (spanish["id"], spanish["language"], spanish["characters"]) == ("e1", "es", 660)
    assert len(spanish["text"]) <= 302
    assert spanish["text"].endswith((" vencejo …", " un …"))
    assert found[("dedup", "near_duplicate")]["examples"][0]["detail"] == "a1"
    assert [row["step"] for row in figures["removed"]] == ["language", "quality", "quality", "dedup", "dedup"]


def test_near_duplicate_is_shown_beside_the_kept_one_with_its_words_marked(figures: dict[str, Any], text: str) -> None:
    pair = figures["duplicates"]["example"]
    assert (pair["kept"]["id"], pair["removed"]["id"], pair["cluster_size"]) == ("a1", "a2", 3)
    assert [words for words, differs in pair["kept_words"] if differs] == ["tarde "]
    assert [words for words, differs in pair["removed_words"] if differs] == ["logo "]
    assert "<mark>tarde</mark> com a rede" in text


def test_scores_equal_those_counted_by_hand(figures: dict[str, Any]) -> None:
    scores = figures["scores"]
    assert (scores["pages"], scores["unmatched"]) == (10, 1)
    language = scores["language"]
    assert (language["pages"], language["precision"], language["recall"]) == (7, 0.8333, 1.0)
    assert [(g["group"], g["pages"], g["passed"]) for g in language["by_language"]] == [
        (["es"], 1, 0),
        (["gl"], 1, 1),
        (["pt-BR"], 5, 5),
    ]
    quality = scores["quality"]
    assert (quality["good"], quality["good_kept"], quality["junk"], quality["junk_removed"]) == (5, 4, 3, 2)
    assert (quality["good_kept_recall"], quality["good_kept_precision"]) == (0.8, 0.8)
    assert (quality["junk_removed_recall"], quality["junk_removed_precision"]) == (0.6667, 0.6667)
    assert quality["by_junk_reason"][1] == {
        "group": ["truncated"],
        "pages": 1,
        "removed": 1,
        "reasons": [["unread.unread", 1]],
    }


def test_extraction_is_scored_by_words_and_by_declared_charset(figures: dict[str, Any]) -> None:
    extraction = figures["scores"]["extraction"]
    groups = {tuple(group["group"]): group for group in extraction["by_charset"]}
    # a2 has 19 of its 20 words, which is just enough; a3 and b1 are short.
    assert (extraction["pages"], extraction["with_text"], extraction["complete"]) == (7, 7, 5)
    assert groups[("utf-8", "iso-8859-1 declared")]["median_words_found"] == 1.0
    # Of "dois artigos" only "dois" came out, and nothing else did.
    alone = groups[("utf-8", "none declared")]
    assert (alone["median_words_found"], alone["median_words_right"]) == (0.5, 1.0)


def test_deduplication_is_scored_by_the_similarity_of_each_copy(figures: dict[str, Any]) -> None:
    copies = figures["scores"]["deduplication"]
    assert copies["alike"] == {"pairs": 2, "joined": 2}
    assert copies["different"] == {"pairs": 1, "joined": 0}
    assert copies["unrelated_joined"] == 0
    bins = {row["from"]: row for row in copies["bins"]}
    assert (bins[0.9]["pairs"], bins[0.9]["joined"], bins[1.0]["pairs"], bins[0.0]["joined"]) == (1, 1, 1, 0)
    assert bins[0.9]["expected"] == pytest.approx(1 - (1 - 0.43046721) ** 14, abs=1e-4)  # 0.9^8


def test_nothing_from_a_crawled_page_becomes_markup(text: str) -> None:
    reader = Reader(text)
    assert EVIL in "".join(reader.text)
    allowed = "html head meta title style body header main footer section nav h1 h2 h3 h4 p a span div dl dt dd i "
    allowed += "table thead tbody tfoot tr th td figure figcaption svg path rect line text mark blockquote details "
    allowed += "summary pre code"
    for tag, attributes in reader.tags:
        assert tag in allowed.split(), tag
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("lang") in (None, "en", "pt", "es", EVIL.lower())
        assert (attributes.get("href") or "#").startswith("#")
        assert "src" not in attributes


def test_page_needs_nothing_but_itself(text: str) -> None:
    policy = next(a for tag, a in Reader(text).tags if tag == "meta" and "http-equiv" in a)
    assert str(policy["content"]).startswith("default-src 'none'; style-src 'unsafe-inline'")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "<script" not in text


def test_every_chart_is_an_image_with_a_title_or_decoration(text: str) -> None:
    reader = Reader(text)
    drawings = [a for tag, a in reader.tags if tag == "svg" and a.get("class") not in ("lines", "place")]
    images = [a for a in drawings if a.get("role") == "img"]
    assert len(images) == reader.titled_images == 13
    assert all(a.get("aria-hidden") == "true" for a in drawings if a not in images)


def test_portuguese_is_marked_as_such(text: str) -> None:
    assert '<blockquote lang="pt"><span class="prompt">Era uma vez</span> o mar</blockquote>' in text
    assert re.search(r'<blockquote lang="es">un vencejo', text)


def test_report_is_a_function_of_its_inputs(road: list[Stage], report: Manifest, text: str) -> None:
    storage.delete_tree(report.uri)
    again = run_report(road, made_of(road))
    assert storage.read_text(storage.join(again.uri, HTML_FILE)) == text


@pytest.mark.parametrize(
    ("names", "shown", "absent"),
    [
        (("curate",), {"road", "funnel", "removed", "config"}, "Duplicates, Against the labels, Tokenizer"),
        (("pretrain", "evaluate"), {"road", "training", "evaluation", "samples", "config"}, "Funnel, Removed"),
        (("crawl",), {"road", "config"}, "Funnel, Removed, Duplicates, Against the labels"),
        (("curate", "dedup"), {"road", "funnel", "removed", "duplicates", "config"}, "Against the labels, Tokenizer"),
    ],
)
def test_report_of_some_stages_shows_those_and_names_what_is_absent(
    road: list[Stage], names: tuple[str, ...], shown: set[str], absent: str
) -> None:
    made = run_report(road, made_of(road, *names))
    written = storage.read_text(storage.join(made.uri, HTML_FILE))
    assert {a["id"] for tag, a in Reader(written).tags if tag == "section"} == shown
    assert f"Nothing to show in this run for: {absent}" in written


def test_report_refuses_unfinished_stages_unless_partial(tmp_path: Path, road: list[Stage]) -> None:
    waiting = stage(Path(road[0].root), "pretrain", settings={"not": "run"})
    inputs = [*made_of(road, "curate"), waiting.as_input()]
    with pytest.raises(UserError, match="stage pretrain is not finished"):
        run_report(road, inputs)
    partial = report_stage(road[0].root, ReportConfig(), inputs, partial=True)
    made = stages.run(partial, ClusterConfig())
    assert "Not finished when this report was made: pretrain." in storage.read_text(storage.join(made.uri, HTML_FILE))
    assert [source.name for source in made.inputs] == ["curate"]


def test_partial_report_of_a_finished_run_is_the_report(road: list[Stage]) -> None:
    inputs = made_of(road)
    whole = report_stage(road[0].root, ReportConfig(), inputs)
    assert report_stage(road[0].root, ReportConfig(), inputs, partial=True).uri == whole.uri


@pytest.mark.parametrize("wrong", [{"examples_per_reason": -1}, {"excerpt_characters": 3}, {"example_parts": 0}])
def test_report_config_names_the_wrong_value(wrong: dict[str, int]) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(UserError, match=f"{name} = {value}: expected"):
        ReportConfig(**wrong)  # type: ignore[arg-type]


def test_run_without_removed_documents_or_clusters_renders(tmp_path: Path) -> None:
    def write(out: ShardOutput) -> Mapping[str, int]:
        out.table("documents", schema.documents().append(pa.field("cluster_size", pa.uint32())))
        out.table("removed", schema.removed())
        return {"documents_in": 0, "documents_kept": 0, "bytes_in": 0, "bytes_kept": 0}

    steps = [{"step": step, "documents": 0, "bytes": 0} for step in ("in", "read", "extract", "language", "quality")]
    empty = [
        stage(tmp_path, "curate", write, {"funnel": steps}),
        stage(tmp_path, "dedup", write, {"cluster_sizes": {}}),
    ]
    for one in empty:
        finish(one)
    made = run_report(empty, made_of(empty))
    Reader(storage.read_text(storage.join(made.uri, HTML_FILE)))


def test_verified_near_duplicates_are_told_of_in_page_figures_and_card(tmp_path: Path) -> None:
    found = {"mode": "sample", "similarity": 0.5, "share": 0.05, "pairs_verified": 40, "false_positives": 2}
    found |= {
        "false_positive_rate": 0.05,
        "interval": [0.0138, 0.165],
        "pairs_of_similarity": [0] * 4 + [2, 0, 0, 8, 30, 0],
    }
    one = stage(tmp_path, "dedup", write_deduplicated, {"cluster_sizes": {"3": 1}, "verification": found})
    finish(one)
    made = run_report([one], made_of([one]))
    rate = "The true rate lies between 1.4% and 16.5% with 95% confidence."
    page, card = (storage.read_text(storage.join(made.uri, name)) for name in (HTML_FILE, CARD_FILE))
    assert rate in page
    assert "2 (5.0%) have a Jaccard similarity below 0.50: false positives. " + rate in card
    assert json.loads(storage.read_text(storage.join(made.uri, JSON_FILE)))["duplicates"]["verification"] == found


def test_dataset_card_counts_by_hand_and_leaves_licence_to_people(road: list[Stage], tmp_path: Path) -> None:
    inputs = [one.as_input() for one in road]
    done = finish(report_stage(str(tmp_path), ReportConfig(title="Barcos"), inputs))
    card = Path(done.uri, CARD_FILE).read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["size_categories"] == ["n<1K"]
    assert fields["language"] == ["pt"]
    assert fields["license_name"] == "FILL IN"
    assert [entry["config_name"] for entry in fields["configs"]] == ["documents", "removed"]
    assert body.startswith("\n# Barcos\n\n4 documents, 300 B of text")
    assert "| deduplicate | 4 | 44.4% | 300 B |" in body
    assert "| dedup | `near_duplicate` | 1 | nearly equal to a kept document |" in body
    assert "Licence of the texts: FILL IN" in body
    assert "| `row` | its number in the file" in body
    assert "`removed` beside the documents holds the duplicates" in body


def test_dataset_card_is_not_made_without_documents(tmp_path: Path) -> None:
    one = stage(tmp_path, "tokenizer", summary=TOKENIZER, settings={"algorithm": "bpe"})
    finish(one)
    done = finish(report_stage(str(tmp_path), ReportConfig(), [one.as_input()]))
    assert sorted(file.path for file in done.files("files")) == sorted([HTML_FILE, JSON_FILE])


@pytest.mark.parametrize(
    ("documents", "expected"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (617_700_000, "100M<n<1B"), (10**13, "n>1T")],
)
def test_size_category_is_the_hubs(documents: int, expected: str) -> None:
    assert dataset_card.size_category(documents) == expected
