"""Figures on tokenizers, against arithmetic by hand and against the tokenizers' own libraries."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import xxhash
from tokenizers import decoders, models, pre_tokenizers, trainers

from caravela import storage
from caravela.config import ConfigError, build
from caravela.data import peer_tokenizers, tokenizer_report
from caravela.data.tokenizer import TokenizerConfig, load, tokenizer_stage
from caravela.data.tokenizer_report import TokenizerReportConfig, tokenizer_report_stage
from caravela.errors import UserError
from caravela.stages import Stage
from tests.data.test_tokenizer import DOCUMENTS, documents_stage
from tests.road_without_ray import finish

LEARNT = TokenizerConfig(vocabulary_size=700, held_out_share=0.3)
HELD_OUT = [row for row in DOCUMENTS if xxhash.xxh64_intdigest(row["id"].encode()) / 2**64 < 0.3]


def stages_on(root: str, rows: Sequence[dict[str, Any]], shards: int = 2) -> tuple[Stage, Stage]:
    documents = documents_stage(root, rows, shards)
    own = tokenizer_stage(root, LEARNT, documents.as_input())
    finish(own)
    return documents, own


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Stage]:
    return stages_on(str(tmp_path_factory.mktemp("run")), DOCUMENTS)


def report(run: tuple[Stage, Stage], **settings: Any) -> dict[str, Any]:
    documents, own = run
    config = TokenizerReportConfig(**settings)
    stage = tokenizer_report_stage(own.root, config, LEARNT, documents.as_input(), own.as_input())
    return dict(finish(stage).summary)


def word_level(path: Path, words: Sequence[str]) -> str:
    """A tokenizer that knows some words and nothing else."""
    vocabulary = {"<unk>": 0, **{word: i + 1 for i, word in enumerate(words)}}
    made = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(path))
    return str(path)


def byte_level(path: Path) -> str:
    """A small byte-level vocabulary, learnt here."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator((row["text"] for row in DOCUMENTS[:10]), trainer)
    made.save(str(path))
    return str(path)


def test_figures_of_a_small_text_by_hand(tmp_path: Path) -> None:
    """Seven words are seven tokens, four of them unknown; "é" and "à" are two bytes each, so there are 27."""
    rows = [
        {"id": "um", "text": "o mar e a maré", "variant": "pt-PT", "metadata": "{}"},
        {"id": "dois", "text": "à beira-mar", "variant": "pt-BR", "metadata": "{}"},
    ]
    path = word_level(tmp_path / "words.json", ["o", "mar", "a", "rio"])
    peer = peer_tokenizers.load(path, "compare")
    documents = documents_stage(str(tmp_path / "run"), rows)
    own = tokenizer_stage(str(tmp_path / "run"), LEARNT, documents_stage(str(tmp_path / "more"), DOCUMENTS).as_input())
    finish(own)
    config = TokenizerReportConfig(compare=(path,), by=("variant",))
    known = TokenizerConfig(held_out_share=0.0)
    stage = tokenizer_report_stage(str(tmp_path / "run"), config, known, documents.as_input(), own.as_input())
    found = finish(stage).summary
    assert peer.pieces == 5
    assert found["held_out"] is False
    assert [(g["field"], g["value"], g["documents"], g["words"], g["bytes"]) for g in found["groups"]] == [
        ("", "all", 2, 7, 27),
        ("variant", "pt-PT", 1, 5, 15),
        ("variant", "pt-BR", 1, 2, 12),
    ]
    everything, portugal, brazil = (group["figures"][1] for group in found["groups"])
    assert everything == {
        "tokens": 7,
        "byte_tokens": 0,
        "unknown_tokens": 4,  # e, maré, à, beira-mar
        "pieces_used": 4,  # o, mar, a and the unknown one
        "documents_back": 0,
        "tokens_per_word": 1.0,
        "bytes_per_token": round(27 / 7, 4),
        "byte_fallback_share": 0.0,
        "unknown_share": round(4 / 7, 6),
        "unused_pieces_share": 0.2,
        "back_share": 0.0,
    }
    assert (portugal["unknown_tokens"], portugal["pieces_used"]) == (2, 4)
    assert (brazil["unknown_tokens"], brazil["pieces_used"], brazil["unused_pieces_share"]) == (2, 1, 0.8)


def test_the_runs_tokenizer_is_measured_on_held_out_documents(run: tuple[Stage, Stage]) -> None:
    found = report(run)
    assert 10 < len(HELD_OUT) < 40
    assert found["held_out"] is True
    assert found["tokenizers"] == [
        {"name": "this run", "path": "tokenizer.model", "kind": "SentencePiece", "pieces": 700}
    ]
    processor = load(run[1].uri)
    fallback = {i for i in range(700) if processor.is_byte(i) and processor.id_to_piece(i) != "<0x0A>"}
    groups = {(group["field"], group["value"]): group for group in found["groups"]}
    registers = {json.loads(row["metadata"])["register"] for row in HELD_OUT}
    assert set(groups) == {
        ("", "all"),
        ("variant", "pt-BR"),
        ("variant", "pt-PT"),
        *(("metadata.register", register) for register in registers),
    }
    for (field, value), group in groups.items():
        own = [
            row
            for row in HELD_OUT
            if not field or value in (row["variant"] if field == "variant" else json.loads(row["metadata"])["register"])
        ]
        ids = [processor.encode(row["text"]) for row in own]
        figures = group["figures"][0]
        assert group["documents"] == figures["documents_back"] == len(own)
        assert group["words"] == sum(len(row["text"].split()) for row in own)
        assert group["bytes"] == sum(len(row["text"].encode()) for row in own)
        assert figures["tokens"] == sum(map(len, ids))
        assert figures["byte_tokens"] == sum(token in fallback for each in ids for token in each)
        assert figures["pieces_used"] == len({token for each in ids for token in each})
        assert figures["tokens_per_word"] == round(figures["tokens"] / group["words"], 4)
    assert groups["", "all"]["figures"][0]["byte_tokens"] > 0


def test_the_same_vocabulary_as_tokenizer_json_has_the_same_figures(run: tuple[Stage, Stage], tmp_path: Path) -> None:
    """Unigram: the pieces and their scores are all there is to it."""
    text = [line for row in DOCUMENTS[:20] for line in row["text"].split("\n") if line.strip()]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=model,
        vocab_size=600,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    one, other = tmp_path / "one.model", tmp_path / "other.json"
    one.write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(600)]
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=processor.unk_id(), byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.save(str(other))
    found = report(run, compare=(str(one), str(other)))
    for group in found["groups"]:
        assert group["figures"][1] == group["figures"][2]
    assert found["tokenizers"][2]["kind"] == "tokenizer.json, Unigram"
    assert found["groups"][0]["figures"][1]["byte_tokens"] > 0
    assert found["groups"][0]["figures"][1]["back_share"] == 1.0


def test_byte_level_tokens_are_counted_as_their_library_splits(run: tuple[Stage, Stage], tmp_path: Path) -> None:
    path = byte_level(tmp_path / "bytes.json")
    theirs = tokenizers.Tokenizer.from_file(path)
    figures = report(run, compare=(path,))["groups"][0]["figures"][1]
    encoded = [theirs.encode(row["text"], add_special_tokens=False) for row in HELD_OUT]
    assert figures["tokens"] == sum(len(each.ids) for each in encoded)
    assert figures["pieces_used"] == len({token for each in encoded for token in each.ids})
    assert figures["back_share"] == 1.0
    letters = {letter: byte for byte, letter in enumerate(_byte_letters())}
    expected = 0
    for each in encoded:
        for piece in each.tokens:
            try:
                bytes(letters[letter] for letter in piece).decode("utf-8")
            except UnicodeDecodeError:
                expected += 1
    assert figures["byte_tokens"] == expected > 0


def _byte_letters() -> list[str]:
    """GPT-2's table: printable bytes stand for themselves, the others are moved behind the 256th character."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + moved.index(byte)) for byte in range(256)]


def test_truncation_and_padding_of_a_file_are_switched_off(run: tuple[Stage, Stage], tmp_path: Path) -> None:
    path = byte_level(tmp_path / "bytes.json")
    made = tokenizers.Tokenizer.from_file(path)
    made.enable_truncation(8)
    made.enable_padding(length=16)
    made.save(str(tmp_path / "cut.json"))
    figures = report(run, compare=(path, str(tmp_path / "cut.json")))["groups"][0]["figures"]
    assert figures[1] == figures[2]


def test_figures_do_not_depend_on_shards(run: tuple[Stage, Stage], tmp_path: Path) -> None:
    assert report(stages_on(str(tmp_path), DOCUMENTS[::-1], shards=7)) == report(run)


def test_text_is_bounded_and_every_group_is_in_it(run: tuple[Stage, Stage]) -> None:
    whole, some = report(run), report(run, text_mb=0.02)
    assert 20_000 <= some["groups"][0]["bytes"] < whole["groups"][0]["bytes"]
    assert {(g["field"], g["value"]) for g in some["groups"]} == {(g["field"], g["value"]) for g in whole["groups"]}


def test_a_field_without_values_is_left_out_and_null_is_a_group(tmp_path: Path) -> None:
    rows = [{**row, "variant": row["variant"] if i % 2 else None} for i, row in enumerate(DOCUMENTS)]
    found = report(stages_on(str(tmp_path), rows), by=("variant", "metadata.genre"))
    assert {group["field"] for group in found["groups"]} == {"", "variant"}
    assert found["groups"][-1]["value"] == "not known"


def test_values_beyond_the_largest_are_one_group(tmp_path: Path) -> None:
    rows = [{**row, "source": f"s{i % 40:02d}"} for i, row in enumerate(DOCUMENTS * 3)]
    rows = [{**row, "id": f"{i}"} for i, row in enumerate(rows)]
    found = report(stages_on(str(tmp_path), rows), by=("source",))
    groups = found["groups"]
    assert len(groups) == 1 + 24 + 1
    assert groups[-1]["value"] == "others"
    assert sum(group["bytes"] for group in groups[1:]) == groups[0]["bytes"]
    assert groups[-2]["bytes"] == min(group["bytes"] for group in groups[1:-1])


def test_comparing_changes_the_report_alone(run: tuple[Stage, Stage], tmp_path: Path) -> None:
    documents, own = run
    path = tmp_path / "words.json"

    def fingerprint(*compare: str) -> str:
        config = TokenizerReportConfig(compare=compare)
        stage = tokenizer_report_stage(own.root, config, LEARNT, documents.as_input(), own.as_input())
        return stage.fingerprint

    none, one = fingerprint(), fingerprint(word_level(path, ["mar"]))
    assert fingerprint(str(path)) == one != none
    assert fingerprint(word_level(path, ["rio"])) not in (one, none)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert fingerprint(word_level(moved / "words.json", ["mar"])) == one


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such tokenizer; correct tokenizer_report.compare"),
        (b"", "no SentencePiece model; tokenizer_report.compare expects"),
        (b"PAR1 nothing of the kind", "no SentencePiece model"),
        (b'{"version": "1.0"', "no tokenizer.json that the package tokenizers can read"),
        (b'{"version": "1.0"}', "no tokenizer.json that the package tokenizers can read"),
        (b"{\xff}", "no tokenizer.json that the package tokenizers can read"),
    ],
)
def test_what_is_no_tokenizer_is_one_line(
    run: tuple[Stage, Stage], tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "peer.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        report(run, compare=(str(path),))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_is_one_line(run: tuple[Stage, Stage], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="directory"):
        report(run, compare=(str(tmp_path),))


def test_without_the_package_a_tokenizer_json_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = word_level(tmp_path / "words.json", ["mar"])
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # as Python itself marks what cannot be imported
    with pytest.raises(UserError, match=r"package tokenizers, which is not installed; install the extra \[train\]"):
        peer_tokenizers.load(path, "tokenizer_report.compare")


def test_a_peer_in_object_storage_is_read(root: str, tmp_path: Path) -> None:
    uri = storage.join(root, "peers", "marés", "tokenizer.json")
    storage.write_bytes(uri, Path(word_level(tmp_path / "words.json", ["mar", "o"])).read_bytes())
    assert peer_tokenizers.load(uri, "compare").encode("o mar") == [2, 1]
    before = peer_tokenizers.content_of(uri, "compare")
    storage.write_bytes(uri, Path(word_level(tmp_path / "words.json", ["mar", "rio"])).read_bytes())
    assert peer_tokenizers.content_of(uri, "compare") != before


def test_names_are_short_and_different() -> None:
    paths = ["s3://b/tucano/tokenizer.json", "/m/gpt2.json", "/m/a/spiece.model", "/n/a/spiece.model"]
    assert peer_tokenizers.names_of(paths) == ["tucano", "gpt2", "/m/a/spiece.model", "/n/a/spiece.model"]


def test_the_table_for_a_terminal_has_a_line_for_each_group_and_tokenizer(
    run: tuple[Stage, Stage], tmp_path: Path
) -> None:
    found = report(run, compare=(word_level(tmp_path / "words.json", ["mar"]),), by=("variant",))
    lines = tokenizer_report.as_text(found).splitlines()
    assert [line.split()[0] for line in lines] == ["text", "all", "all", *["variant"] * 4]
    assert f"{found['groups'][0]['figures'][0]['tokens_per_word']:.3f}" in lines[1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"text_mb": 0}, "text_mb = 0.0: expected more than 0"),
        ({"compare": ["a", "a"]}, r"compare = \['a', 'a'\]: expected each once"),
        ({"by": [""]}, r"by = \[''\]: expected each once, and none empty"),
    ],
)
def test_config_names_the_value_that_is_wrong(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TokenizerReportConfig, table, "run.toml")
