"""What goes where datatrove and we split alike is what datatrove's own SentenceDedup takes out."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.dedup.sentence_dedup import (
    SentDedupConfig,
    SentenceDedupFilter,
    SentenceDedupSignature,
    SentenceFindDedups,
)
from datatrove.utils.text import TextNormConfig, split_into_sentences

from filters.dedup.config import SpansConfig
from filters.dedup.sentences import split
from tests.filters.dedup.test_spans import POOL, rows_of, table, trimmed

LANGUAGE = "por_Latn"
SENTENCES = [sentence.replace("…", "?") for sentence in POOL]  # spaCy ends no sentence at an ellipsis


def theirs(folder: Path, texts: Sequence[str], length: int, by_sentence: bool) -> dict[str, str]:
    """Id → text of the documents that datatrove keeps."""
    config = SentDedupConfig(
        n_sentences=length,
        split_sentences=by_sentence,
        min_doc_words=0,
        min_num_sentences=0,
        norm_config=TextNormConfig(norm_numbers=False),
    )
    signatures, found = str(folder / "signatures"), str(folder / "found")

    def documents() -> list[Document]:
        return [Document(text=row["text"], id=row["id"]) for row in rows_of(texts)]

    SentenceDedupSignature(signatures, config=config, language=LANGUAGE).run(documents())
    SentenceFindDedups(signatures, found, config=config).run()
    kept = SentenceDedupFilter(found, config=config, language=LANGUAGE).run(documents())
    return {document.id: document.text for document in kept}


def texts_of(seed: int, between: str) -> list[str]:
    """Documents of one paragraph, or of lines without blank ones, in which passages come again."""
    chance = random.Random(seed)
    passages = [chance.sample(SENTENCES, 4) for _ in range(6)]
    texts = []
    for i in range(60):
        own = [f"Aqui vem a frase {i} de número {k}." for k in range(chance.randrange(6))]
        pieces = [*own, *chance.choice(passages)[: chance.randrange(5)]]
        if chance.random() < 0.3:
            pieces = [*chance.choice(passages), *pieces, *chance.choice(passages)]
        if chance.random() < 0.2:
            pieces = [piece.upper() for piece in pieces]
        texts.append(between.join(pieces))
    return [text for text in texts if text]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_repeated_sentences_that_go_are_those_of_datatrove(tmp_path: Path, length: int) -> None:
    texts = texts_of(seed=length, between=" ")
    for text in texts:  # the cases on which both agree
        assert [piece.strip() for piece in split_into_sentences(text, LANGUAGE)] == split(text)
    expected = theirs(tmp_path, texts, length, by_sentence=True)
    config = SpansConfig(unit="sentences", sentences=length, min_words=1, min_document_words=0)
    _, _, done = trimmed(tmp_path, rows_of(texts), config, shards=1)
    assert {row["id"]: row["text"] for row in table(done, "documents")} == expected
    assert sum(map(len, expected.values())) < 0.9 * sum(map(len, texts))


def test_repeated_lines_that_go_are_those_of_datatrove(tmp_path: Path) -> None:
    texts = texts_of(seed=9, between="\n")
    expected = theirs(tmp_path, texts, 1, by_sentence=False)
    config = SpansConfig(unit="lines", min_words=1, min_document_words=0)
    _, _, done = trimmed(tmp_path, rows_of(texts), config, shards=1)
    assert {row["id"]: row["text"] for row in table(done, "documents")} == expected
    assert sum(map(len, expected.values())) < 0.9 * sum(map(len, texts))
