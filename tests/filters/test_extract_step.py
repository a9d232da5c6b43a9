"""The step ``extract`` over batches: what a page says of itself is kept, and no page is another's affair."""

from collections.abc import Iterator, Sequence

import pytest

from caravela.data.columns import RawColumns
from caravela.data.extract import ExtractConfig
from caravela.data.raw import RawDocument
from filters.batch import Batch
from filters.steps import Extract

WORDS = "A ponte velha reabriu ontem à tarde, e os barcos voltaram a passar por baixo dela com a maré cheia."
# resiliparse's time grows with the square of the depth, in one call of compiled code.
STUCK = b"<div>" * 16_000 + WORDS.encode()
LIMITED = ExtractConfig(extractor="resiliparse", time_limit_seconds=0.4)


def page(number: int) -> bytes:
    head = (
        f"<head><title>Notícia {number}</title><meta property='og:site_name' content='Gazeta da Ria'>"
        "<meta property='article:published_time' content='2019-03-05T10:00:00Z'></head>"
    )
    body = "".join(f"<p>{number}. {WORDS}</p>" for _ in range(3))
    return f"<html lang='pt_PT'>{head}<body><article>{body}</article></body></html>".encode()


def document(name: str, html: bytes) -> RawDocument:
    return RawDocument(id=name, url=f"https://ria.example/{name}", date="2020-01-01T00:00:00Z", html=html)


@pytest.fixture
def step() -> Iterator[Extract]:
    step = Extract(LIMITED)
    yield step
    step.extractor.close()


def through(step: Extract, documents: Sequence[RawDocument]) -> Batch:
    batch = Batch(RawColumns.of(documents))
    step(batch, batch.still_in())
    return batch


def test_what_a_page_says_of_itself_is_kept_beside_the_day_on_which_it_was_fetched(step: Extract) -> None:
    bare = b"<html><body><article>" + f"<p>{WORDS}</p>".encode() * 3 + b"</article></body></html>"
    batch = through(step, [document("a", page(1)), document("b", bare)])
    places = batch.still_in()
    assert batch.strings("title", places) == ["Notícia 1", ""]
    assert batch.strings("date", places) == ["2020-01-01T00:00:00Z"] * 2
    assert batch.metadata == [
        {"encoding": "utf-8", "published": "2019-03-05", "site": "Gazeta da Ria", "declared_language": "pt-PT"},
        {"encoding": "utf-8", "site": "ria.example"},
    ]


def test_page_that_is_stuck_is_removed_with_its_reason_and_is_not_damage(step: Extract) -> None:
    pages = [page(0), STUCK, page(1), b"", page(2)]
    batch = through(step, [document(str(i), html) for i, html in enumerate(pages)])
    assert {place: removal.reason for place, removal in batch.removals.items()} == {1: "timeout", 3: "no_text"}
    assert batch.counts["broken"] == 0
    alone = [through(step, [document(str(i), pages[i])]) for i in (0, 2, 4)]
    assert batch.text.to_pylist()[::2] == [one.text.to_pylist()[0] for one in alone]
    assert batch.metadata[::2] == [one.metadata[0] for one in alone]


def test_one_process_serves_batch_after_batch_and_none_is_started_for_texts(step: Extract) -> None:
    through(step, [RawDocument(id="t", text=WORDS)])
    assert step.extractor.process_id is None
    for number in range(3):
        step.begin_shard()
        batch = through(step, [document("p", page(number)), RawDocument(id="t", text=WORDS)])
        assert batch.text.to_pylist()[1] == WORDS
        assert batch.text.to_pylist()[0].startswith(f"{number}. A ponte")
    assert step.extractor.started == 1
