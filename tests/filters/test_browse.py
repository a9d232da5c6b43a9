"""The page of removed documents, over a real curation and deduplication of a few texts."""

import dataclasses
import json
from pathlib import Path

import pytest

from caravela.config import ConfigError
from filters.browse import PAGE_FILE, BrowseConfig, browse_stage
from filters.curate import CurateConfig, curate_stages
from filters.dedup.config import DedupConfig
from filters.dedup.road import dedup_stages
from filters.quality import GopherQuality, QualityConfig
from tests.reporting.reader import Reader
from tests.road_without_ray import finish

TEXTS = Path(__file__).parents[2] / "platform" / "caravela" / "sample" / "texts"
EVIL = "<script>alert(1)</script>"


def samples(language: str, register: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((TEXTS / language / register).glob("*.txt"))]


def marks(page: str) -> list[str]:
    return [piece.split("</mark>")[0] for piece in page.split("<mark>")[1:]]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The page with everything, and one of a run without deduplication that shows one document a reason."""
    folder = tmp_path_factory.mktemp("browse")
    news = samples("pt-BR", "news")
    lines = news[0].split("\n")
    menu = "\n".join([*lines[:2], *["Notícias | Esportes | Economia"] * 12, *lines[2:]])
    documents = [
        *({"id": f"news-{i}", "text": text} for i, text in enumerate(news)),
        {"id": "copy", "text": news[1].replace("que", "o qual", 1)},
        {"id": "menu", "text": menu},
        {"id": "spanish", "text": samples("es", "news")[0]},
        *(
            {"id": f"short-{i}", "text": f"Página {i} não foi encontrada. Volte para a página inicial."}
            for i in range(5)
        ),
        {"id": "evil", "text": f"Uma frase curta de texto com {EVIL} que não diz nada de novo a ninguém.", "url": EVIL},
    ]
    path = folder / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    root, dedup = str(folder / "run"), DedupConfig()
    config = CurateConfig(inputs=(str(path),))
    curation = curate_stages(root, config)[-1]
    deduplication = dedup_stages(root, dedup, curation.as_input())
    unique = deduplication[-1]
    for stage in (curation, *deduplication):
        finish(stage)
    whole = browse_stage(root, BrowseConfig(), config.language, config.quality, curation.as_input(), unique.as_input())
    small = BrowseConfig(removed_per_reason=1, kept_per_reason=0, characters=100)
    part = browse_stage(root, small, config.language, config.quality, curation.as_input())
    made = {}
    for name, stage in (("whole", whole), ("part", part)):
        made[name] = Path(finish(stage).uri, PAGE_FILE).read_text(encoding="utf-8")
    return made


def test_page_is_html_without_script_and_shows_every_reason(pages: dict[str, str]) -> None:
    reader = Reader(pages["whole"])
    text = "".join(reader.text)
    assert not any(tag == "script" for tag, _ in reader.tags)
    assert EVIL in text
    for reason in ("other_language", "gopher_quality.gopher_short_doc", "near_duplicate"):
        assert reason in text


def test_page_marks_repeated_lines_and_the_changed_words_of_a_copy(pages: dict[str, str]) -> None:
    marked = marks(pages["whole"])
    assert any("o qual" in mark for mark in marked)
    assert sum("Esportes" in mark for mark in marked) >= 1


def test_kept_documents_stand_beside_the_removed_nearest_to_the_limit_first(pages: dict[str, str]) -> None:
    beside = pages["whole"].split("Kept, nearest to words 50")[1].split("</details>")[0]
    counts = [int(piece.split("words ")[1].split(".")[0]) for piece in beside.split('class="source"')[1:]]
    assert counts == sorted(counts)
    assert counts
    assert min(counts) >= 50


def test_page_keeps_to_its_numbers(pages: dict[str, str]) -> None:
    short = pages["part"].split("gopher_short_doc")[1].split("</details>")[0]
    assert short.count('class="source"') == 1
    assert "Kept, nearest" not in pages["part"]


def test_page_is_the_same_every_time_and_another_with_other_limits(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"id": "a", "text": samples("pt-PT", "news")[0]}), encoding="utf-8")
    config = CurateConfig(inputs=(str(path),))
    strict = dataclasses.replace(config, quality=QualityConfig(gopher_quality=GopherQuality(min_doc_words=60)))
    uris = []
    for settings in (config, config, strict):
        curation = curate_stages(str(tmp_path / "run"), settings)[-1]
        finish(curation)
        inputs = (settings.language, settings.quality, curation.as_input())
        uris.append(finish(browse_stage(str(tmp_path / "run"), BrowseConfig(), *inputs)).uri)
    assert uris[0] == uris[1] != uris[2]


def test_config_refuses_what_shows_nothing() -> None:
    with pytest.raises(ConfigError, match="characters = 5: expected 100 or more"):
        BrowseConfig(characters=5)
