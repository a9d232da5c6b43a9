"""Labelled texts: every format gives the same, the split depends on the texts alone, and mistakes are one line."""

import csv
import gzip
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import fasttext
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caravela.errors import UserError
from filters.training.texts import (
    Labelled,
    LabelledFields,
    LabelledLines,
    SplitConfig,
    collect,
    expand,
    line_of,
    read_labelled,
)
from tests.filters.training.sentences import sentences

FIELDS = LabelledFields(text="sentence", label="lang")
ODD = (
    "",
    " ",
    "\n\n",
    "um\u00a0dois\ttrês\r\nquatro\x0bcinco\x0cseis\x00sete\u2028oito",
    "\x1c\x85a\u3000b\ufeff c\u200bd",
    "__label__x a </s> b </s>c __label__",
    " 🙂 e\u0301  中文 \x00\x00 fim. ",
)
ROWS = [(text, language) for language in ("es", "fr", "pt") for text in sentences(language)[:60]]


def split(folder: Path, rows: Sequence[tuple[str, str]], **settings: object) -> LabelledLines:
    folder.mkdir(exist_ok=True)
    return collect((Labelled(*row) for row in rows), str(folder), SplitConfig(**settings), FIELDS)  # type: ignore[arg-type]


def parts(lines: LabelledLines) -> dict[str, list[tuple[str, str]]]:
    """Text and label, part by part."""
    named = {"train": lines.train, "validation": lines.validation, "test": lines.test}
    return {
        name: list(zip(lines.lines(part), (lines.labels[i] for i in lines.label_ids[part]), strict=True))
        for name, part in named.items()
    }


def test_split_holds_every_text_once_and_its_share_of_each_label(tmp_path: Path) -> None:
    lines = split(tmp_path, ROWS)
    found = parts(lines)
    everything = sorted(row for part in found.values() for row in part)
    assert everything == sorted((line_of(text), label) for text, label in ROWS)
    assert lines.counts(lines.test) == lines.counts(lines.validation) == {"es": 6, "fr": 6, "pt": 6}
    assert lines.counts(lines.train) == {"es": 48, "fr": 48, "pt": 48}
    labels = [label for _, label in found["train"]]
    assert max(len(run.group()) for run in re.finditer(r"(.)\1*", "".join(label[0] for label in labels))) < 12


def test_split_does_not_depend_on_the_order_and_does_on_the_seed(tmp_path: Path) -> None:
    forwards, backwards = split(tmp_path / "a", ROWS), split(tmp_path / "b", ROWS[::-1])
    assert parts(forwards) == parts(backwards)
    assert parts(split(tmp_path / "c", ROWS, seed=2))["test"] != parts(forwards)["test"]


def test_texts_that_others_join_do_not_move_across_the_border_of_a_label(tmp_path: Path) -> None:
    """More Spanish leaves the French and Portuguese parts as they were."""
    more = [(text, "es") for text in sentences("es")[60:100]]
    before, after = parts(split(tmp_path / "a", ROWS)), parts(split(tmp_path / "b", [*more, *ROWS]))
    for name in before:
        assert [row for row in before[name] if row[1] != "es"] == [row for row in after[name] if row[1] != "es"]


def test_duplicates_are_taken_once_and_contradictions_not_at_all(tmp_path: Path) -> None:
    twice = [(f"  {text}\n", label) for text, label in ROWS[:7]]  # the same words to fastText
    contradiction = [(ROWS[10][0], "fr")]
    lines = split(tmp_path, [*ROWS, *twice, *contradiction])
    assert lines.removed == {"duplicate": 7, "two_labels": 2}
    assert lines.documents_in == len(ROWS) + 8
    texts = [text for part in parts(lines).values() for text, _ in part]
    assert len(texts) == len(set(texts)) == len(ROWS) - 1
    assert line_of(ROWS[10][0]) not in texts


def test_balance_and_limit_cut_training_alone(tmp_path: Path) -> None:
    rows = [*ROWS, *((text, "pt") for text in sentences("pt")[60:200])]
    lines = split(tmp_path / "a", rows, balance=True)
    assert lines.counts(lines.train) == {"es": 48, "fr": 48, "pt": 48}
    assert lines.counts(lines.test) == {"es": 6, "fr": 6, "pt": 20}
    assert lines.removed == {"over_limit": 112}
    limited = split(tmp_path / "b", rows, most_per_label=10)
    assert set(limited.counts(limited.train).values()) == {10}


def test_pieces_are_the_same_words_in_short_lines_shuffled(tmp_path: Path) -> None:
    long = [(" ".join(f"{label}{i}w{j}" for j in range(101)), label) for label in "ab" for i in range(10)]
    lines = split(tmp_path / "a", long, least_per_label=10)
    texts = dict(parts(lines)["train"])
    path = tmp_path / "train"
    lines.write_training_file(str(path), piece_words=25, seed=1)
    pieces = [line.split(" ") for line in path.read_text("utf-8").splitlines()]
    assert sorted(len(piece) - 1 for piece in pieces) == [20] * 64 + [21] * 16
    assert sorted(word for _, *words in pieces for word in words) == sorted(" ".join(texts).split(" "))
    assert all(label == f"__label__{words[0][0]}" for label, *words in pieces)
    neighbours = [a[1].split("w")[0] == b[1].split("w")[0] for a, b in itertools.pairwise(pieces)]
    assert sum(neighbours) < len(neighbours) / 4
    lines.write_training_file(str(path))
    assert path.read_text("utf-8") == "".join(f"__label__{label} {text}\n" for text, label in texts.items())


def test_lines_hold_the_words_that_fasttext_sees() -> None:
    """Its own tokenizer is the judge; of labels and ends of line nothing is left."""
    for text in ODD:
        seen = fasttext.tokenize(text.replace("\n", " "))
        words = [word for word in seen if word != "</s>" and not word.startswith("__label__")]
        assert line_of(text).split(" ") == (words or [""])


def write(folder: Path, kind: str, rows: Sequence[tuple[str, str]]) -> Path:
    path = folder / f"texts.{kind}"
    dicts = [{"sentence": text, "lang": label} for text, label in rows]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(dicts), path)
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["sentence", "lang"])
            writer.writeheader()
            writer.writerows(dicts)
    elif kind.startswith("jsonl"):
        data = "".join(json.dumps(row) + "\n" for row in dicts).encode()
        path.write_bytes(gzip.compress(data) if kind.endswith(".gz") else data)
    else:
        data = "".join(f"__label__{label} {text}\n" for text, label in rows).encode()
        path.write_bytes(gzip.compress(data) if kind.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "csv", "txt", "txt.gz"])
def test_every_format_gives_the_same_texts(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind, ROWS)
    uris = expand([f"{tmp_path}/*.{kind}"], "language_id.inputs")
    rows = [(line_of(row.text), row.label.removeprefix("__label__")) for row in read_labelled(uris, FIELDS)]
    assert rows == [(line_of(text), label) for text, label in ROWS]


def test_fasttext_lines_with_two_labels_or_none_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("__label__a __label__b um dois\ntrês quatro\n\n__label__a\n__label__a cinco\n", encoding="utf-8")
    rows = list(read_labelled([str(path)], FIELDS))
    assert [(row.problem, row.label) for row in rows] == [
        ("two_labels", ""),
        ("no_label", ""),
        ("", "__label__a"),
        ("", "__label__a"),
    ]


def test_labels_that_are_no_strings_are_written_as_json_has_them(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"sentence": "um", "lang": 1}, {"sentence": "dois", "lang": True}, {"sentence": "três", "lang": ["a"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n", encoding="utf-8")
    found = list(read_labelled([str(path)], FIELDS))
    assert [(row.label, row.problem) for row in found] == [("1", ""), ("true", ""), ("", "no_label"), ("", "bad_json")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"no labelled text in 0 rows \(the inputs are empty\)"),
        ([("um dois", "")], r"no labelled text in 1 rows \(1 no_label\).*field 'sentence'.*field 'lang'"),
        ([(" \n", "pt")], r"no labelled text in 1 rows \(1 no_text\)"),
        ([(f"um {i}", "pt") for i in range(50)], "label 'pt' alone, on 50 texts: expected two labels or more"),
        (
            [(f"um {i}", "pt") for i in range(50)] + [("uno", "es"), ("dos", "es"), ("dos", "es")],
            "too few different texts of label 'es': 2; expected 20 of each",
        ),
        ([("um", "português do Brasil")], "label 'português do Brasil': expected one word"),
    ],
)
def test_unusable_texts_are_refused_in_one_line(tmp_path: Path, rows: Sequence[tuple[str, str]], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        split(tmp_path, rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_unknown_text_column_names_those_that_are_there(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, ROWS)
    with pytest.raises(UserError, match=r"no column 'body'.* sentence, ?lang"):
        list(read_labelled([str(path)], LabelledFields(text="body", label="lang")))


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.jsonl", "no such input"), ("absent.txt", "no such input"), ("pages.warc.gz", "pages without labels")],
)
def test_inputs_that_cannot_be_learned_from_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "pages.warc.gz").write_bytes(b"")
    with pytest.raises(UserError, match=rf"{message}.*language_id\.inputs"):
        expand([str(tmp_path / name)], "language_id.inputs")


def test_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    for kind in ("jsonl.gz", "txt.gz"):
        path = write(tmp_path, kind, ROWS)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(UserError, match=re.escape(path.name)):
            list(read_labelled([str(path)], FIELDS))
