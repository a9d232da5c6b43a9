"""The page's section on tokenizers."""

from typing import Any

import pytest

from caravela.reporting.page_tokenizer import tokenizer_section
from tests.reporting.reader import Reader

TOKENIZER: dict[str, Any] = {"vocabulary_size": 640, "sampled_bytes": 250, "learnable_bytes": 300, "strata": 3}
TOKENIZER["largest_strata"] = [
    {"stratum": {"source": source}, "documents": 2, "bytes": size, "sampled_documents": 1, "sampled_bytes": taken}
    for source, size, taken in (("<b>jornal</b>", 200, 150), (None, 60, 60))
]


def fit_of(*tokens: int, back: int = 3) -> dict[str, Any]:
    """One group's figures for tokenizers that make so many tokens of its 100 words and 500 bytes."""
    returned = [3, *(back for _ in tokens[1:])]
    return {
        "documents": 3,
        "words": 100,
        "bytes": 500,
        "figures": [
            {
                "tokens": each,
                "byte_tokens": 1,
                "unknown_tokens": 0,
                "pieces_used": 480,
                "documents_back": documents,
                "tokens_per_word": each / 100,
                "bytes_per_token": round(500 / each, 4),
                "byte_fallback_share": 1 / each,
                "unknown_share": 0.0,
                "unused_pieces_share": 0.25,
                "back_share": round(documents / 3, 4),
            }
            for each, documents in zip(tokens, returned, strict=True)
        ],
    }


FIT: dict[str, Any] = {
    "held_out": True,
    "tokenizers": [
        {"name": "this run", "path": "tokenizer.model", "kind": "SentencePiece", "pieces": 640},
        {"name": "tucano", "path": "/m/tucano/tokenizer.json", "kind": "tokenizer.json, BPE", "pieces": 32_000},
    ],
    "groups": [
        {"field": "", "value": "all", **fit_of(175, 199, back=1)},
        {"field": "variant", "value": "pt-PT", **fit_of(181, 203)},
        {"field": "variant", "value": "<i>pt</i>", **fit_of(169, 195)},
        {"field": "metadata.register", "value": "legal", **fit_of(188, 222)},
    ],
}


def words_of(fit: dict[str, Any] | None, **changes: Any) -> str:
    tokenizer = {"algorithm": "bpe", **TOKENIZER, **changes}
    made = tokenizer_section({"tokenizer": tokenizer, "tokenizer_fit": fit, "packing": None})
    assert made is not None
    return " ".join(" ".join(Reader(made).text).split())


def test_tokenizers_stand_side_by_side() -> None:
    words = words_of(FIT)
    assert "learnt from 250 B of the run's own documents and measured on 3 documents (500 B) that it has not" in words
    assert "tucano tokenizer.json, BPE 32,000 1.990 2.513 0.50% 25.0% 33.3%" in words
    assert "Where documents do not come back as they were" in words
    assert "All figures by variant variant 2 values" in words
    assert "All figures by register metadata.register 1 value" in words
    assert "pt-PT this run 3 500 B 1.810" in words
    assert "all: this run 1.75, tucano 1.99; pt-PT: this run 1.81, tucano 2.03; <i>pt</i>: this run 1.69" in words
    assert "<b>jornal</b> 2 200 B 66.7% 150 B 60.0% not known 2 60 B 20.0% 60 B 24.0%" in words
    assert "1 smaller stratum not shown." in words


def test_unknown_tokens_are_a_column_where_there_are_any() -> None:
    assert "Unknown" not in words_of(FIT)
    groups = [{"field": "", "value": "all", **fit_of(175, 200)}]
    groups[0]["figures"][1] |= {"unknown_tokens": 5, "unknown_share": 0.025}
    assert "BPE 32,000 2.000 2.500 0.50% 2.50% 25.0% 100%" in words_of({**FIT, "groups": groups})


def test_a_tokenizer_on_known_text_says_so() -> None:
    assert "(500 B) among those, because none was held out." in words_of({**FIT, "held_out": False})


def test_a_tokenizer_alone_needs_no_plot() -> None:
    alone = {**FIT, "tokenizers": FIT["tokenizers"][:1], "groups": [{"field": "", "value": "all", **fit_of(175)}]}
    words = words_of(alone)
    assert "Tokens per word 1.75" in words
    assert "this run 1.75" not in words
    assert "Where documents do not come back" not in words


def test_more_tokenizers_than_marks_are_in_the_table() -> None:
    names = [{"name": f"n{i}", "path": "", "kind": "SentencePiece", "pieces": 640} for i in range(8)]
    groups = [{"field": "", "value": "all", **fit_of(*range(170, 178))}]
    words = words_of({**FIT, "tokenizers": names, "groups": groups})
    assert "The plot shows the first 6 tokenizers." in words
    assert "n7 SentencePiece 640 1.770" in words


@pytest.mark.parametrize(("algorithm", "name"), [("bpe", "byte-pair encoding"), ("unigram", "unigram model")])
def test_a_tokenizer_that_was_not_measured_is_shown_by_its_vocabulary(algorithm: str, name: str) -> None:
    words = words_of(None, algorithm=algorithm)
    assert f"A vocabulary of 640 pieces ({name}), learnt from 250 B of the run's own documents." in words


def test_without_a_tokenizer_there_is_no_section() -> None:
    assert tokenizer_section({"tokenizer": None, "tokenizer_fit": None, "packing": None}) is None
