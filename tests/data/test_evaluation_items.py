"""Readers of evaluation items: files of one's own in every format, and each task's published form, in small."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caravela.data.evaluation_items import TASKS, EvaluationItem, ItemFile, item_inputs, read_items, task_files
from caravela.errors import UserError

ROWS = [
    {"chave": "7", "pergunta": "Que vento\né este?", "escolhas": ["norte", "sul, ou leste"]},
    {"chave": "8", "pergunta": 'Quem disse "já"?', "escolhas": []},
]
EXPECTED = [
    EvaluationItem("prova/7", ("Que vento\né este?",), ("norte", "sul, ou leste")),
    EvaluationItem("prova/8", ('Quem disse "já"?',)),
]
FIELDS = {"id": "chave", "text": "pergunta", "options": "escolhas"}


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")


def write_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, ensure_ascii=False, indent=1), "utf-8")


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("p.jsonl", write_jsonl), ("p.jsonl.gz", write_gzip), ("p.json", write_json), ("p.parquet", write_parquet)],
)
def test_file_gives_its_items_with_options(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    file = ItemFile(uri=str(tmp_path / name), task="prova", **FIELDS)
    assert list(read_items([file], [], "")) == EXPECTED
    without = ItemFile(uri=str(tmp_path / name), id="chave", text="pergunta")
    assert list(read_items([without], [], "")) == [
        item._replace(id=f"p/{item.id[6:]}", options=()) for item in EXPECTED
    ]


@pytest.mark.parametrize(("name", "delimiter"), [("p.csv", ","), ("p.csv", ";"), ("p.tsv", "\t")])
def test_csv_gives_its_items_and_rows_serve_as_ids(tmp_path: Path, name: str, delimiter: str) -> None:
    with open(tmp_path / name, "w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, delimiter=delimiter)
        rows.writerow(["pergunta", "resposta"])
        rows.writerows([row["pergunta"], "x"] for row in ROWS)
    items = list(read_items([ItemFile(uri=str(tmp_path / name), text="pergunta")], [], ""))
    assert items == [EvaluationItem(f"p/{i}", (str(row["pergunta"]),)) for i, row in enumerate(ROWS)]


@pytest.mark.parametrize("options", [[{"text": "sim"}, {"text": "não"}], {"text": ["sim", "não"], "label": ["A", "B"]}])
def test_options_may_be_objects(tmp_path: Path, options: object) -> None:
    (tmp_path / "arc.jsonl").write_text(json.dumps({"question": "É?", "choices": options}), "utf-8")
    items = list(read_items([ItemFile(uri=str(tmp_path / "arc.jsonl"), options="choices")], [], ""))
    assert items == [EvaluationItem("arc/0", ("É?",), ("sim", "não"))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"question": "a"}\n{"question"', r"p\.jsonl: item 1 cannot be read: bad_json"),
        ("p.jsonl", '{"texto": "a"}\n', r"item 0 cannot be read: no_text_field .*'question'"),
        ("p.csv", "texto\na\n", "cannot be read: broken_file .*no column 'question'"),
        ("p.json", '{"question": "a"}', "expected an array of objects"),
        ("p.json", "[", "not valid JSON"),
        ("p.json", '[{"question": 3}]', "item 0: 'question' is int"),
        ("p.json", '[{"question": "a", "o": "b"}]', "'o' is str; expected a list"),
        ("p.txt", "a", "format not known"),
    ],
)
def test_broken_file_is_one_clear_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(UserError, match=message):
        list(read_items([ItemFile(uri=str(tmp_path / name), options="o")], [], ""))


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.parquet"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    file = ItemFile(uri=str(tmp_path / name))
    for call in (lambda: list(read_items([file], [], "")), lambda: item_inputs([file], [], "")):
        with pytest.raises(UserError, match=f"{name}.*: no such file of evaluation items"):
            call()


def test_empty_file_has_no_items(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("", "utf-8")
    assert list(read_items([ItemFile(uri=str(tmp_path / "p.jsonl"))], [], "")) == []


PUBLISHED = {
    "assin": (
        "assin-ptbr-dev.xml",
        '<?xml version="1.0" encoding="utf-8"?><entailment-corpus><pair id="3" entailment="None" similarity="2">'
        "<t>O barco saiu.</t><h>O barco &amp; a vela ficaram.</h></pair></entailment-corpus>",
        [EvaluationItem("assin/assin-ptbr-dev/3", ("O barco saiu.", "O barco & a vela ficaram."))],
    ),
    "enem": (
        "enem_api_2009.jsonl",
        json.dumps(
            {
                "path": "2009/questions/4",
                "context": "O texto.",
                "alternativesIntroduction": "Ele diz que",
                "alternatives": [{"letter": "A", "text": "sim"}, {"letter": "B", "text": None}],
            }
        )
        + "\n\n"
        + json.dumps(
            {"path": "2009/questions/5", "context": None, "alternativesIntroduction": "E?", "alternatives": []}
        ),
        [
            EvaluationItem("enem/2009/questions/4", ("O texto. Ele diz que",), ("sim", "")),
            EvaluationItem("enem/2009/questions/5", ("E?",)),
        ],
    ),
    "faquad": (
        "train.json",
        json.dumps(
            {"data": [{"title": "", "paragraphs": [{"context": "C", "qas": [{"id": "ab", "question": "Onde?"}]}]}]}
        ),
        [EvaluationItem("faquad/ab", ("Onde?",))],
    ),
    "hatebr": (
        "HateBR.csv",
        'id,comentario,x\n1,"Boa, ""né""",0\n',
        [EvaluationItem("hatebr/HateBR/1", ('Boa, "né"',))],
    ),
    "oab": (
        "official/2011-03.txt",
        "Questão 1\n\nAREA CIVIL\n\nJosé vendeu\na casa.\n\nOPTIONS\n\nA:CORRECT) Sim, pode.\n\nB) Não\npode.\n\n\n"
        "ENUM Questão 2 \n \nAREA \n\nQuem?\n\nOPTIONS \n\nA) Eu.\n",
        [
            EvaluationItem("oab/2011-03/1", ("José vendeu a casa.",), ("Sim, pode.", "Não pode.")),
            EvaluationItem("oab/2011-03/2", ("Quem?",), ("Eu.",)),
        ],
    ),
    "pt_hate_speech": (
        "binary.csv",
        '"text","y"\n"Duas\nlinhas",1\nTrês,0\n',
        [
            EvaluationItem("pt_hate_speech/binary/0", ("Duas\nlinhas",)),
            EvaluationItem("pt_hate_speech/binary/1", ("Três",)),
        ],
    ),
}
OLD_ENEM = [{"id": "ENEM_2022_1", "question": "Fim?", "original_question": "Longo. Fim?", "options": ["sim"]}]


def folded(items: list[EvaluationItem]) -> list[EvaluationItem]:
    """White space does not matter to those who use the items."""

    def plain(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(" ".join(text.split()) for text in texts)

    return [EvaluationItem(item.id, plain(item.question), plain(item.options)) for item in items]


def place(folder: Path, task: str, name: str, content: str, packed: bool) -> None:
    path = folder / task / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, "utf-8")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("task", PUBLISHED)
def test_task_by_name_gives_its_items(tmp_path: Path, task: str, packed: bool) -> None:
    name, content, expected = PUBLISHED[task]
    place(tmp_path, task, name, content, packed)
    place(tmp_path, task, "README.md", "# what this is", False)
    assert folded(list(read_items([], [task], str(tmp_path)))) == folded(expected)
    assert [given.name for given in item_inputs([], [task], str(tmp_path))] == [
        f"items of {task} {name.split('/')[-1]}{'.gz' if packed else ''}"
    ]


def test_every_task_has_its_published_form_above() -> None:
    assert set(PUBLISHED) == set(TASKS)


def test_old_array_of_enem_is_read_too(tmp_path: Path) -> None:
    place(tmp_path, "enem", "2022.json", json.dumps(OLD_ENEM), False)
    assert list(read_items([], ["enem"], str(tmp_path))) == [
        EvaluationItem("enem/ENEM_2022_1", ("Longo. Fim?",), ("sim",))
    ]


@pytest.mark.parametrize("task", PUBLISHED)
def test_task_file_of_another_shape_is_one_clear_error(tmp_path: Path, task: str) -> None:
    name = PUBLISHED[task][0]
    place(tmp_path, task, name, '{"a": [1]}\nQuestão 3\nnada' if task == "oab" else '{"a": [1]}\n2\n', False)
    if task == "oab":
        assert [item.id for item in read_items([], [task], str(tmp_path))] == ["oab/2011-03/3"]
        return
    with pytest.raises(UserError, match=rf"not a file of the task {task} as published"):
        list(read_items([], [task], str(tmp_path)))


def test_unknown_task_and_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tasks = 'mmlu': expected one of assin, enem"):
        task_files("mmlu", str(tmp_path))
    with pytest.raises(UserError, match=r"oab: no files of the task oab; expected official/"):
        task_files("oab", str(tmp_path))


def test_inputs_change_with_the_content_of_a_task(tmp_path: Path) -> None:
    place(tmp_path, "oab", *PUBLISHED["oab"][:2], False)
    before = item_inputs([], ["oab"], str(tmp_path))
    place(tmp_path, "oab", "official/2012-06.txt", "Questão 1\nE?\n", False)
    assert before != item_inputs([], ["oab"], str(tmp_path))
