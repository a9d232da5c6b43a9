"""A run that packs with the tokenizer.json of a model: the ids of the package tokenizers, up to the exported folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from caravela.data import encoding, loader, packing, preview, tokenizer
from caravela.data.packing import PackConfig
from caravela.data.tokenizer import TokenizerConfig, tokenizer_stage
from caravela.data.tokenizer_json import JsonTokenizer
from caravela.data.tokenizer_report import TokenizerReportConfig, tokenizer_report_stage
from caravela.data.training_order import Source, TrainingOrder
from caravela.errors import UserError
from caravela.evaluate import EvaluateConfig, evaluate_stage
from caravela.export import ExportConfig, export_stage
from caravela.stages import Stage, finished
from tests.data.test_tokenizer import DOCUMENTS, documents_stage
from tests.given_tokenizer import BEGIN, END, TURN, byte_level, write
from tests.road_without_ray import finish
from tests.toy_run import TOY, pretrain_input

TEXTS = [row["text"] for row in DOCUMENTS]
HARD = [
    "",
    " ",
    "\n\n\t x \r\n",
    "日本 🙂\u200d e\u0301",
    f"{BEGIN} fim {END}{TURN}",
    "pagou a <nome> 1234567,80 €, d'água",
    "a" * 3000,
]
NAMES = {"bos_token": BEGIN, "eos_token": {"content": END, "lstrip": False}}
FILLERS = 70_000


def reference(path: str) -> tokenizers.Tokenizer:
    """The package's own reading, without cutting, and with special tokens that texts do not become."""
    made = tokenizers.Tokenizer.from_file(path)
    made.no_truncation()
    made.encode_special_tokens = True
    return made


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> str:
    """More pieces than 16 bits can number, those that are used at the end."""
    content = byte_level(TEXTS[:40], fillers=FILLERS)
    return write(tmp_path_factory.mktemp("llama"), content, **NAMES, chat_template="{{ messages }}")


@pytest.fixture(scope="module")
def tokens(given: str, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    root = str(tmp_path_factory.mktemp("run"))
    stage = tokenizer_stage(root, config(given), documents_stage(root, DOCUMENTS).as_input())
    finish(stage)
    return stage


def config(path: str, **changed: Any) -> TokenizerConfig:
    return TokenizerConfig(**{"model": path, "vocabulary_size": 70_656, **changed})


def test_ids_are_those_of_the_package(given: str, tokens: Stage) -> None:
    processor, expected = tokenizer.load(tokens.uri), reference(given)
    encoded = encoding.Encoder(processor, "uint32").encode(pa.array([*TEXTS, *HARD]))
    begin, end = expected.token_to_id(BEGIN), expected.token_to_id(END)
    assert (processor.bos_id(), processor.eos_id()) == (begin, end)
    one_after_the_other = [[begin, *expected.encode(text, add_special_tokens=False).ids, end] for text in TEXTS + HARD]
    assert encoded.ids.tolist() == [number for ids in one_after_the_other for number in ids]
    assert encoded.lengths.tolist() == [len(ids) for ids in one_after_the_other]
    assert [processor.encode(text) for text in TEXTS + HARD] == [ids[1:-1] for ids in one_after_the_other]
    assert min(encoded.ids) >= FILLERS > 1 << 16


def test_texts_come_back_and_their_bytes_are_counted(tokens: Stage) -> None:
    processor = tokenizer.load(tokens.uri)
    sizes = encoding.piece_bytes(processor)
    assert len(sizes) == processor.get_piece_size() == 70_656
    for text in TEXTS + HARD:
        ids = processor.encode(text)
        assert processor.decode([processor.bos_id(), *ids, processor.eos_id()]) == text
        assert sizes[ids].sum() == len(text.encode())
    assert sizes[[processor.bos_id(), processor.eos_id()]].tolist() == [0, 0]


@pytest.mark.parametrize("method", ["concatenated", "best_fit"])
def test_rows_hold_wide_ids_and_are_read_back_as_the_documents(given: str, tokens: Stage, method: Any) -> None:
    settings = PackConfig(context=1024, method=method, row_group_rows=4, validation_share=0.0)
    documents = documents_stage(tokens.root, DOCUMENTS)
    done = finish(packing.pack_stage(tokens.root, settings, documents.as_input(), tokens.as_input()))
    assert done.summary["vocabulary_size"] == 70_656
    assert done.summary["tokenizer_sha256"] == tokenizer.tokenizer_sha256(finished(tokens.as_input()))
    expected, end = reference(given), reference(given).token_to_id(END)
    for uri in done.uris("train"):
        table = pq.read_table(uri)
        assert table.schema.field("tokens").type.value_type == pa.uint32()
        for row in table.slice(0, 3).to_pylist():
            padded = [end] * row["padding"]
            assert row["tokens"][len(row["tokens"]) - row["padding"] :] == padded
            text_of_targets = expected.decode(row["tokens"][1 : 1025 - row["padding"]])
            if "\ufffd" not in text_of_targets:
                assert row["target_bytes"] == len(text_of_targets.encode())
    processor = tokenizer.load(tokens.uri)
    places = preview.scattered(done, "train", 10**6)
    texts = {row["id"]: row["text"] for row in DOCUMENTS}
    whole = 0
    for row in preview.shown_rows(done, "train", places, processor):
        for stretch in row.stretches:
            if stretch.begins and stretch.ends:
                assert stretch.text == texts[stretch.document]
                whole += 1
            elif stretch.begins:
                assert texts[stretch.document].startswith(stretch.text.rstrip("\ufffd"))
    assert whole > 10
    order = TrainingOrder([Source("documents", done)], seed=0, batch_rows=3, steps=2, window_groups=2)
    with loader.Loader(order) as batches:
        first = next(batches.batches(1))
    row = order.sample(1, 0).row
    stored = pq.read_table(done.uris("train")[row.group.part])["tokens"][row.group.group * 4 + row.row].as_py()
    assert first.tokens[0].tolist() == stored


@pytest.mark.slow
def test_the_rest_of_the_road_takes_it(tmp_path: Path) -> None:
    """Report, evaluation and export; what is exported is the given file, and transformers gives its ids."""
    given = write(tmp_path / "llama", byte_level(TEXTS[:40]), **NAMES, chat_template="{{ messages }}")
    root, shape = str(tmp_path), dataclasses.replace(TOY, vocabulary_size=700)
    documents = documents_stage(root, DOCUMENTS[:12])
    tokens = tokenizer_stage(root, config(given, vocabulary_size=700), documents.as_input())
    finish(tokens)
    compare = TokenizerReportConfig(compare=(given,), by=("variant",))
    report = finish(
        tokenizer_report_stage(root, compare, config(given), documents.as_input(), tokens.as_input())
    ).summary
    assert report["tokenizers"][0] == {**report["tokenizers"][1], "name": "this run", "path": "tokenizer.json"}
    assert report["groups"][0]["figures"][0] == report["groups"][0]["figures"][1]
    pack = packing.pack_stage(
        root, PackConfig(context=48, validation_share=0.5), documents.as_input(), tokens.as_input()
    )
    finish(pack)
    pretrain = pretrain_input(root, shape)
    evaluated = finish(
        evaluate_stage(
            root,
            EvaluateConfig(max_rows=4, prompts=("Era",), max_new_tokens=3),
            pretrain,
            pack.as_input(),
            tokens.as_input(),
        )
    ).summary
    assert evaluated["bits_per_byte"] == pytest.approx(
        evaluated["loss"] * evaluated["tokens"] / evaluated["bytes"] / 0.6931472, rel=1e-3
    )
    done = finish(export_stage(root, ExportConfig(), pretrain, tokens.as_input()))
    names = {file.path for file in done.files("files")}
    assert "tokenizer.model" not in names
    assert Path(done.uri, "tokenizer.json").read_bytes() == Path(given).read_bytes()
    theirs, own = AutoTokenizer.from_pretrained(done.uri), reference(given)
    assert (theirs.bos_token, theirs.eos_token, theirs.chat_template) == (BEGIN, END, "{{ messages }}")
    begin, end = own.token_to_id(BEGIN), own.token_to_id(END)
    for name in ("config.json", "generation_config.json"):
        found = json.loads(Path(done.uri, name).read_text())
        assert (found["bos_token_id"], found["eos_token_id"]) == (begin, end)
    assert theirs(TEXTS[0]).input_ids == [begin, *own.encode(TEXTS[0], add_special_tokens=False).ids]


def test_what_begins_and_ends_a_document_can_be_said(given: str, tmp_path: Path) -> None:
    alone = write(tmp_path / "alone", Path(given).read_text("utf-8"))
    documents = documents_stage(str(tmp_path), DOCUMENTS[:3]).as_input()
    with pytest.raises(UserError, match=r'tokenizer.begin = "": expected the token of .* that begins a document, as '):
        tokenizer_stage(str(tmp_path), config(alone), documents)
    with pytest.raises(UserError, match=r'tokenizer.end = "": expected the token of .* that ends a document, as '):
        tokenizer_stage(str(tmp_path), config(alone, begin=BEGIN), documents)
    said = tokenizer_stage(str(tmp_path), config(alone, begin=END, end=TURN), documents)
    finish(said)
    processor, own = tokenizer.load(said.uri), reference(given)
    assert [processor.bos_id(), processor.eos_id()] == [own.token_to_id(END), own.token_to_id(TURN)]
    other = tokenizer_stage(str(tmp_path), config(alone, begin=END, end=END), documents)
    moved = write(tmp_path / "moved", Path(given).read_text("utf-8"))
    assert other.fingerprint != said.fingerprint
    assert tokenizer_stage(str(tmp_path), config(moved, begin=END, end=TURN), documents).fingerprint == said.fingerprint


def with_blank_in_front() -> str:
    return byte_level(TEXTS[:5], prefix=True)


def lower_case() -> str:
    made = tokenizers.Tokenizer.from_str(byte_level(TEXTS[:5]))
    made.normalizer = normalizers.Lowercase()
    return made.to_str()


def words() -> str:
    made = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(TEXTS[:5], trainers.WordLevelTrainer(special_tokens=["<unk>", BEGIN, END]))
    return made.to_str()


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (with_blank_in_front, {}, "expected one that gives every text back and adds no blank"),
        (lower_case, {}, "expected one that gives every text back and adds no blank"),
        (words, {}, "expected one that gives every text back and adds no blank"),
        (lambda: "{}", {}, r"no tokenizer.json that the package tokenizers can read; tokenizer.model expects"),
        (lambda: byte_level(TEXTS[:5]), {"vocabulary_size": 600}, "tokenizer.vocabulary_size = 600: expected 604, as"),
        (lambda: byte_level(TEXTS[:5]), {"begin": "<s>"}, r"tokenizer.begin = '<s>': expected a token of"),
        (lambda: byte_level(TEXTS[:5]), {"end": "<nome>"}, r"and <nome> to be special tokens, which no text becomes"),
    ],
)
def test_one_that_cannot_be_packed_with_is_refused(
    tmp_path: Path, content: Any, settings: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "given", content(), **NAMES)
    documents = documents_stage(str(tmp_path), DOCUMENTS[:3]).as_input()
    with pytest.raises(UserError, match=message):
        finish(tokenizer_stage(str(tmp_path), config(path, **{"vocabulary_size": 3000, **settings}), documents))


def test_byte_fallback_vocabularies_are_taken(tmp_path: Path) -> None:
    """Llama 2's kind, as our own export writes it."""
    web = tokenizer_stage(
        str(tmp_path / "web"),
        TokenizerConfig(vocabulary_size=700),
        documents_stage(str(tmp_path), DOCUMENTS).as_input(),
    )
    finish(web)
    pretrain = pretrain_input(str(tmp_path), dataclasses.replace(TOY, vocabulary_size=700))
    exported = finish(export_stage(str(tmp_path), ExportConfig(), pretrain, web.as_input()))
    again = tokenizer_stage(
        str(tmp_path / "again"),
        config(f"{exported.uri}/tokenizer.json", vocabulary_size=700),
        documents_stage(str(tmp_path), DOCUMENTS).as_input(),
    )
    finish(again)
    learnt, read = tokenizer.load(finished(web.as_input()).uri), tokenizer.load(again.uri)
    assert isinstance(read, JsonTokenizer)
    assert encoding.piece_bytes(read).tolist() == encoding.piece_bytes(learnt).tolist()
    for text in TEXTS[:20] + HARD:
        assert read.encode(text) == learnt.encode(text)
        assert read.decode(read.encode(text)) == text
    assert (read.bos_id(), read.eos_id()) == (1, 2)
