"""datatrove's classes by name: the same texts, decisions and reasons as calling them; mistakes are one clear line."""

import importlib
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters.base import BaseFormatter

from caravela.config import ConfigError, build
from caravela.errors import UserError
from filters.datatrove_blocks import BlockConfig, Outcome, apply, apply_all, load_blocks
from tests.filters.hard_texts import hard_texts, sample_texts

STANDARD: list[tuple[str, dict[str, Any]]] = [
    ("GopherQualityFilter", {"language": "por", "min_doc_words": 20, "stop_words": ["de", "que", "a"]}),
    ("GopherRepetitionFilter", {"language": "por", "top_n_grams": [[2, 0.18], [3, 0.16]]}),
    ("FineWebQualityFilter", {"language": "por", "line_punct_thr": 0.091}),
    ("C4QualityFilter", {"language": "por", "min_num_sentences": 3}),
    ("C4ParagraphFilter", {}),
    ("RegexFilter", {"regex_exp": "[Pp]ão"}),
    ("SamplerFilter", {"rate": 0.5, "seed": 7}),
    ("FTFYFormatter", {"uncurl_quotes": True}),
    ("PIIFormatter", {"email_replacement": ["a@example.com", "b@example.com", "c@example.com"]}),
    ("SymbolLinesFormatter", {"replace_char": "\n"}),
]


class RaisesOnEmpty(BaseFilter):  # type: ignore[misc]
    name = "divides by the length"

    def filter(self, doc: Document) -> bool:
        doc.metadata["inverse"] = 1 / len(doc.text)
        return True


class OnlyBatches(BaseFilter):  # type: ignore[misc]
    name = "overrides filter_batch"

    def filter(self, doc: Document) -> bool:
        raise NotImplementedError

    def filter_batch(self, batch: list[Document]) -> list[bool | tuple[bool, str]]:
        return [(False, "short") if len(doc.text) < 5 else True for doc in batch]


class GivesNothing(BaseFormatter):  # type: ignore[misc]
    name = "returns None"

    def format(self, text: str) -> Any:
        return None


class Picky(BaseFormatter):  # type: ignore[misc]
    name = "refuses in its constructor"

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 10:
            raise ValueError(f"width of {width} is too small")

    def format(self, text: str) -> str:
        return text


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A section with blocks, as a job's config has it."""

    blocks: tuple[BlockConfig, ...] = ()


HERE = __name__


def one(name: str, **arguments: Any) -> Any:
    return load_blocks([BlockConfig(name=name, arguments=arguments)])[0]


def by_hand(name: str, arguments: dict[str, Any], texts: list[str]) -> list[tuple[str, bool, str | None]]:
    """What datatrove's own class makes of the texts: (text, kept, reason)."""
    for package in ("filters", "formatters"):
        cls = getattr(importlib.import_module(f"datatrove.pipeline.{package}"), name, None)
        if cls is None:
            continue
        step, results = cls(**arguments), []
        for text in texts:
            document = Document(text=text, id="x", metadata={})
            if package == "formatters":
                results.append((step.format(text), True, None))
                continue
            answer = step.filter(document)
            keep, reason = answer if isinstance(answer, tuple) else (answer, None)
            results.append((document.text, bool(keep), reason))
        return results
    raise AssertionError(name)


@pytest.mark.parametrize(("name", "arguments"), STANDARD, ids=[name for name, _ in STANDARD])
def test_block_equals_calling_datatrove(name: str, arguments: dict[str, Any]) -> None:
    texts = [*sample_texts()[:60], *(text for text in hard_texts(5, 200) if 0 < len(text) < 20_000)]
    texts.append("escreva a ana@casa.pt, rui@loja.com.br, eva@x.org ou ivo@y.org; servidor 8.8.8.8\n***\n---\nfim")
    block = one(name, **arguments)
    failed = 0
    for text, (expected_text, keep, reason) in zip(texts, by_hand(name, arguments, texts), strict=True):
        outcome = apply(block, text)
        failed += outcome.broken
        assert outcome.text == expected_text
        assert outcome.reason == ("" if keep else f"{name}.{reason}" if reason else name)
    assert failed == 0


def test_c4_is_off_by_default_and_on_by_name() -> None:
    text = (
        "Uma frase que acaba bem.\nSem fim\nO Javascript está desligado neste navegador.\n" + "Boa frase curta.\n" * 5
    )
    assert apply_all(load_blocks([]), text, "x", {}).text == text
    on = one("C4QualityFilter", language="por")
    assert apply(on, text).text == "Uma frase que acaba bem.\n" + "\n".join(["Boa frase curta."] * 5)
    assert apply(on, "lorem ipsum dolor sit amet.").reason == "C4QualityFilter.lorem_ipsum"


def test_block_that_raises_sets_the_document_aside_and_goes_on() -> None:
    block = one(f"{HERE}.RaisesOnEmpty")
    outcome = apply(block, "", "d1", {"url": "http://x.pt"})
    assert outcome == Outcome("", {"url": "http://x.pt"}, "error:RaisesOnEmpty", "ZeroDivisionError: division by zero")
    assert outcome.broken
    assert apply(block, "ab", "d2").metadata == {"inverse": 0.5}


def test_formatter_that_gives_no_text_is_an_error_and_the_text_stays() -> None:
    outcome = apply(one(f"{HERE}.GivesNothing"), "texto")
    assert (outcome.text, outcome.reason) == ("texto", "error:GivesNothing")


def test_filter_that_works_on_batches_is_called_by_batch() -> None:
    block = one(f"{HERE}.OnlyBatches")
    assert apply(block, "abc").reason == "OnlyBatches.short"
    assert apply(block, "abcdef").reason == ""


def test_apply_all_stops_at_the_first_block_that_removes() -> None:
    blocks = load_blocks(
        [
            BlockConfig(name="SymbolLinesFormatter"),
            BlockConfig(name="RegexFilter", arguments={"regex_exp": "fim"}),
            BlockConfig(name=f"{HERE}.GivesNothing"),
        ]
    )
    outcome = apply_all(blocks, "***\nfim", "x", {"a": 1})
    assert (outcome.text, outcome.reason, outcome.metadata) == ("fim", "RegexFilter", {"a": 1})


def test_blocks_loaded_again_start_over() -> None:
    """What circulates in a block must not depend on the shards that its worker had before."""
    config = [BlockConfig(name="PIIFormatter")]
    first, second = (
        [apply(block, f"{i}@casa.pt").text for i in range(3)] for block in (load_blocks(config)[0] for _ in range(2))
    )
    assert first == second == ["email@example.com", "firstname.lastname@example.org", "email@example.com"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "C4Quality"}, r"blocks\[0\]\.name = 'C4Quality'.*did you mean C4QualityFilter"),
        ({"name": "zzzz"}, r"datatrove has .*FTFYFormatter.*PIIFormatter.*URLFilter"),
        ({"name": "no.such.Filter"}, r"name = 'no\.such\.Filter': expected an importable module: No module named 'no'"),
        ({"name": "datatrove.pipeline.filters.C5QualityFilter"}, "did you mean C4QualityFilter"),
        ({"name": "datatrove.data.Document"}, "subclass of datatrove's BaseFilter or BaseFormatter"),
        ({"name": "datatrove.pipeline.filters.base_filter.BaseFilter"}, "subclass of datatrove's"),
        (
            {"name": "C4QualityFilter", "arguments": {"min_sentences": 3}},
            r"arguments\.min_sentences = 3: C4QualityFilter has no such argument; "
            r"did you mean min_num_sentences\? it takes \(split_paragraph: bool = True.*min_num_sentences: int = 5",
        ),
        (
            {"name": "C4QualityFilter", "arguments": {"min_num_sentences": "three"}},
            r"arguments\.min_num_sentences = 'three': expected a whole number for C4QualityFilter\.min_num_sentences",
        ),
        ({"name": "C4QualityFilter", "arguments": {"split_paragraph": 1}}, "expected true or false"),
        ({"name": "C4QualityFilter", "arguments": {"exclusion_writer": "x"}}, "no such argument"),
        ({"name": "FTFYFormatter", "arguments": {"normalization": "NFX"}}, r"'NFX': expected 'NFC' or 'NFD'.*nothing"),
        ({"name": "RegexFilter"}, r"arguments\.regex_exp = : expected a value for RegexFilter"),
        ({"name": "SamplerFilter"}, r"arguments\.seed = : expected a whole number for SamplerFilter"),
        ({"name": "RegexFilter", "arguments": {"regex_exp": "x"}, "place": "first"}, "before_quality, after_quality"),
        ({"name": "RegexFilter", "argument": {}}, r"did you mean blocks\[0\]\.arguments"),
    ],
)
def test_bad_block_is_one_line_that_names_what_it_takes(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(Blocks, {"blocks": [table]}, "my.toml")
    assert str(caught.value).startswith("my.toml: blocks[0]")
    assert "\n" not in str(caught.value)


def test_constructor_that_refuses_names_class_and_signature() -> None:
    with pytest.raises(UserError, match=r"Picky: width of 3 is too small; it takes \(width: int\)"):
        one(f"{HERE}.Picky", width=3)


def test_library_that_is_not_installed_is_named_when_the_config_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaisesOnEmpty, "_requires_dependencies", [("no_such_module", "no-such-package")], raising=False)
    with pytest.raises(ConfigError, match="pip install no-such-package"):
        BlockConfig(name=f"{HERE}.RaisesOnEmpty")


def test_checking_a_config_imports_no_word_splitter() -> None:
    code = (
        "import sys; from filters.datatrove_blocks import BlockConfig; "
        "BlockConfig(name='C4QualityFilter', arguments={'language': 'por'}); "
        "print([m for m in ('spacy', 'torch', 'nltk') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
