"""The page of removed documents, over a real curation and deduplication of a few texts."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

import browse
from caravela import manifest
from caravela.config import ConfigError
from caravela.data.evaluation_items import ItemFile
from caravela.manifest import Manifest
from caravela.reporting.examples import removal_counts
from caravela.reporting.reasons import explanation
from filters.browse import PAGE_FILE, BrowseConfig, browse_stage
from filters.c4 import C4Config
from filters.curate import CurateConfig, curate_stages
from filters.decontamination import DecontaminationConfig
from filters.dedup.config import DedupConfig
from filters.dedup.road import dedup_stages
from filters.quality import GopherQuality, QualityConfig
from filters.url_rules import UrlConfig, UrlPatterns
from tests.reporting.reader import Reader
from tests.road_without_ray import finish

DEMO = Path(__file__).parents[2] / "jobs" / "configs" / "demo.toml"
TEXTS = Path(__file__).parents[2] / "platform" / "caravela" / "sample" / "texts"
EVIL = "<script>alert(1)</script>"
QUESTION = "Qual das barragens abaixo alimenta o canal que rega os arrozais entre a serra e a lagoa salgada?"
MENU = "Notícias | Esportes | Economia"


def samples(language: str, register: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((TEXTS / language / register).glob("*.txt"))]


def first_words(text: str, count: int) -> str:
    return f"{' '.join(text.split()[:count]).rstrip('.,;')}."


def marks(page: str) -> list[str]:
    return [piece.split("</mark>")[0] for piece in page.split("<mark>")[1:]]


def fold_of(page: str, reason: str) -> str:
    return page.split(f"<code>{reason}</code>")[1].split("</details>")[0]


def documents() -> list[dict[str, str]]:
    news = samples("pt-BR", "news")
    lines = news[0].split("\n")
    site = "https://site.example/"
    return [
        *({"id": f"news-{i}", "text": text, "url": f"{site}{i}"} for i, text in enumerate(news)),
        {"id": "copy", "text": news[1].replace("que", "o qual", 1), "url": f"{site}copy"},
        {"id": "menu", "text": "\n".join([*lines[:2], *[MENU] * 30, *lines[2:]]), "url": f"{site}menu"},
        {"id": "huge", "text": (f"{news[2]}\n" + "compre já este barco " * 3 + "\n") * 400, "url": f"{site}huge"},
        {"id": "spanish", "text": samples("es", "news")[0], "url": f"{site}es"},
        *({"id": f"short-{i}", "text": first_words(news[i], 40 + i), "url": f"{site}s{i}"} for i in range(5)),
        *({"id": f"long-{i}", "text": first_words(news[i + 5], 52 + 9 * i), "url": f"{site}l{i}"} for i in range(3)),
        {"id": EVIL, "text": f"{first_words(news[3], 30)} Diz {EVIL} e mais nada.", "url": f"{site}{EVIL}"},
        {"id": "denied", "text": news[4], "url": "https://www.spam.example/a"},
        {"id": "lorem", "text": f"{news[6]}\nTem lorem ipsum nesta linha.", "url": f"{site}lorem"},
        {"id": "exam", "text": f"{news[7]}\n{QUESTION}", "url": f"{site}exam"},
        {"id": "none", "text": " ", "url": f"{site}none"},
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Manifest], dict[str, str]]:
    """The stages; and the page with everything, and one of a run without deduplication that shows one of a reason."""
    folder = tmp_path_factory.mktemp("browse")
    path, items = folder / "in.jsonl", folder / "prova.jsonl"
    path.write_text("\n".join([*map(json.dumps, documents()), "{broken"]), encoding="utf-8")
    items.write_text(json.dumps({"id": "7", "question": QUESTION}), encoding="utf-8")
    root = str(folder / "run")
    config = CurateConfig(
        inputs=(str(path),),
        url=UrlConfig(deny=UrlPatterns(domains=("spam.example",))),
        c4=C4Config(enabled=True, filter_no_terminal_punct=False, filter_curly_bracket=False, min_num_sentences=1),
        decontamination=DecontaminationConfig(enabled=True, items=(ItemFile(uri=str(items), task="prova"),)),
    )
    curation = curate_stages(root, config)[-1]
    deduplication = dedup_stages(root, DedupConfig(), curation.as_input())
    finished = [finish(stage) for stage in (curation, *deduplication)]
    whole = browse_stage(root, BrowseConfig(), curation.as_input(), deduplication[-1].as_input())
    small = BrowseConfig(removed_per_reason=1, kept_per_reason=0, characters=100)
    part = browse_stage(root, small, curation.as_input())
    pages = {
        name: Path(finish(stage).uri, PAGE_FILE).read_text(encoding="utf-8")
        for name, stage in (("whole", whole), ("part", part))
    }
    return [finished[0], finished[-1]], pages


@pytest.fixture(scope="module")
def pages(made: tuple[list[Manifest], dict[str, str]]) -> dict[str, str]:
    return made[1]


def test_page_shows_every_reason_with_its_meaning_and_count(made: tuple[list[Manifest], dict[str, str]]) -> None:
    stages, pages = made
    counts = [each for stage in stages for each in removal_counts(stage)]
    assert {step for step, _, _ in counts} == {
        *("read", "url", "extract", "language", "quality", "c4", "decontamination", "dedup")
    }
    for _, reason, documents_removed in counts:
        assert explanation(reason), reason
        summary = pages["whole"].split(f"<code>{reason}</code>")[1].split("</summary>")[0]
        assert f">{documents_removed} · " in summary


def test_page_is_html_without_script_whatever_documents_hold(pages: dict[str, str]) -> None:
    reader = Reader(pages["whole"])
    assert not any(tag == "script" for tag, _ in reader.tags)
    assert f"Diz {EVIL} e mais nada." in "".join(reader.text)
    assert EVIL not in pages["whole"]


def test_page_marks_the_place_where_each_reason_lies(pages: dict[str, str]) -> None:
    page = pages["whole"]
    assert marks(fold_of(page, "gopher_repetition.dup_line_frac")).count(MENU) >= 10
    assert "spam.example" in marks(fold_of(page, "deny_domain"))
    assert marks(fold_of(page, "lorem_ipsum")) == ["lorem ipsum"]
    assert any("o qual" in mark for mark in marks(fold_of(page, "near_duplicate")))
    assert "prova/7 1.00" in fold_of(page, "contaminated")
    assert "at first sight es" in fold_of(page, "other_language")


def test_huge_document_is_shown_in_part(pages: dict[str, str]) -> None:
    shown = [int(size.replace(",", "")) for size in re.findall(r"([0-9,]+) characters<", pages["whole"])]
    assert max(shown) > 1_000_000
    assert len(pages["whole"]) < 100_000


def test_kept_documents_stand_beside_the_removed_nearest_to_the_limit_first(pages: dict[str, str]) -> None:
    beside = fold_of(pages["whole"], "gopher_quality.gopher_short_doc").split("Kept, nearest to words 50")[1]
    counts = [float(piece.split("words ")[1].split(" ")[0]) for piece in beside.split('class="source"')[1:]]
    assert len(counts) == 4
    assert counts == sorted(counts)
    assert counts[0] >= 50
    assert counts[0] < 60


def test_page_keeps_to_its_numbers(pages: dict[str, str]) -> None:
    short = fold_of(pages["part"], "gopher_quality.gopher_short_doc")
    assert short.count('class="source"') == 1
    assert "Kept, nearest" not in pages["part"]
    assert "near_duplicate" not in pages["part"]


def test_page_is_the_same_every_time_and_another_with_other_limits(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"id": "a", "text": samples("pt-PT", "news")[0]}), encoding="utf-8")
    config = CurateConfig(inputs=(str(path),))
    strict = dataclasses.replace(config, quality=QualityConfig(gopher_quality=GopherQuality(min_doc_words=60)))
    uris = []
    for settings in (config, config, strict):
        curation = curate_stages(str(tmp_path / "run"), settings)[-1]
        finish(curation)
        uris.append(finish(browse_stage(str(tmp_path / "run"), BrowseConfig(), curation.as_input())).uri)
    assert uris[0] == uris[1] != uris[2]
    overrides = [f"root={tmp_path}/run", "crawl.enabled=false", f'curate.inputs=["{path}"]']
    arguments = [argument for override in overrides for argument in ("--set", override)]
    assert browse.main(["--config", str(DEMO), *arguments]) == 0
    assert uris[0] == f"{tmp_path}/run/{manifest.read_run_index(f'{tmp_path}/run')['browse']}"


def test_config_refuses_what_shows_nothing() -> None:
    with pytest.raises(ConfigError, match="characters = 5: expected 100 or more"):
        BrowseConfig(characters=5)
