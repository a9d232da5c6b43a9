"""The tokenizer stage: what it learns from, and that the same documents give the same vocabulary."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import xxhash

from caravela import schema, storage
from caravela.config import ConfigError, build
from caravela.data import tokenizer
from caravela.data.tokenizer import TokenizerConfig, sentences
from caravela.errors import UserError
from caravela.stages import Shard, ShardOutput, Stage, finished
from tests.road_without_ray import finish
from tests.toy_run import sentencepiece_model

TEXTS = Path(__file__).parents[2] / "platform" / "caravela" / "sample" / "texts"
DOCUMENTS = [
    {
        "id": f"{path.parent.name}/{path.stem}",
        "text": path.read_text("utf-8"),
        "source": "amostra",
        "variant": path.parts[-3],
        "metadata": json.dumps({"register": path.parent.name}),
    }
    for variant, most in (("pt-BR", 60), ("pt-PT", 20))
    for path in sorted(TEXTS.glob(f"{variant}/*/*.txt"))[::2][:most]
]


def documents_stage(root: str, rows: Sequence[dict[str, Any]], shards: int = 2) -> Stage:
    """A finished stage whose table ``documents`` holds the rows."""

    def work(shard: Shard, out: ShardOutput) -> dict[str, int]:
        table = out.table("documents", schema.documents())
        for row in rows[shard.index :: shards]:
            table.add(row)
        return {}

    stage = Stage(
        name="dedup",
        version=1,
        root=root,
        config={},
        inputs=(),
        plan=lambda: [Shard(index=i, name=str(i), spec={}) for i in range(shards)],
        make_worker=lambda: work,
    )
    finish(stage)
    return stage


def trained(root: str, rows: Sequence[dict[str, Any]], shards: int = 2, **settings: Any) -> Stage:
    config = TokenizerConfig(**{"vocabulary_size": 700, **settings})
    stage = tokenizer.tokenizer_stage(root, config, documents_stage(root, rows, shards).as_input())
    finish(stage)
    return stage


def is_held_out(row: dict[str, Any], share: float) -> bool:
    return xxhash.xxh64_intdigest(row["id"].encode()) / 2**64 < share


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("sample_mb", [0.05, 200.0])
def test_the_same_documents_give_the_same_bytes(tmp_path: Path, algorithm: str, sample_mb: float) -> None:
    settings = {"algorithm": algorithm, "sample_mb": sample_mb, "user_symbols": ("[NOME]",)}
    one = trained(str(tmp_path / "one"), DOCUMENTS, 1, **settings)
    shuffled = random.Random(3).sample(DOCUMENTS, len(DOCUMENTS))
    other = trained(str(tmp_path / "other"), shuffled, 7, **settings)
    names = (tokenizer.MODEL_FILE, tokenizer.SAMPLE_FILE)
    assert all(
        storage.read_bytes(storage.join(one.uri, name)) == storage.read_bytes(storage.join(other.uri, name))
        for name in names
    )


def test_held_out_documents_are_not_learnt_from(tmp_path: Path) -> None:
    """Each document that is held out brings a character of its own, which would get a piece."""
    share = 0.3
    rows = [{**row, "text": f"{row['text']} {chr(0x4E00 + i)}{chr(0x4E00 + i)}" * 3} for i, row in enumerate(DOCUMENTS)]
    left_out = [i for i, row in enumerate(rows) if is_held_out(row, share)]
    assert 10 < len(left_out) < 40
    stage = trained(str(tmp_path), rows, held_out_share=share, character_coverage=1.0, vocabulary_size=900)
    processor = tokenizer.load(stage.uri)
    known = [i for i in range(len(rows)) if not processor.is_byte(processor.encode(chr(0x4E00 + i))[0])]
    assert known == [i for i in range(len(rows)) if i not in left_out]
    counters = stage.manifest().counters
    assert counters["learnable_documents"] == counters["sampled_documents"] == len(rows) - len(left_out)


def test_model_of_another_run_is_taken_as_it_is(tmp_path: Path) -> None:
    web = trained(str(tmp_path / "web"), DOCUMENTS)
    model = storage.join(web.uri, tokenizer.MODEL_FILE)
    chat = trained(str(tmp_path / "chat"), DOCUMENTS[:9], model=model)
    assert tokenizer.tokenizer_sha256(finished(chat.as_input())) == tokenizer.tokenizer_sha256(finished(web.as_input()))
    assert finished(chat.as_input()).summary["sampled_bytes"] == 0
    moved = f"{tmp_path}/moved.model"
    shutil.copyfile(model, moved)
    assert trained(str(tmp_path / "chat"), DOCUMENTS[:9], model=moved).fingerprint == chat.fingerprint


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"vocabulary_size": 600}, r"tokenizer.vocabulary_size = 600: expected 640, as .*given.model has it"),
        ({"add_dummy_prefix": True}, {}, r"tokenizer.model = .*given.model: expected one that gives every text back"),
        ({"byte_fallback": False}, {}, "expected one that gives every text back"),
        ({"bos_id": 0, "unk_id": 1}, {}, "with <unk>, <s>, </s> as 0, 1, 2"),
        (None, {}, r"tokenizer.model = .*given.model: no SentencePiece model"),
    ],
)
def test_model_that_encodes_otherwise_is_refused(
    tmp_path: Path, changes: dict[str, Any] | None, settings: dict[str, Any], message: str
) -> None:
    given = tmp_path / "given.model"
    texts = [row["text"] for row in DOCUMENTS]
    given.write_bytes(b"no model" if changes is None else sentencepiece_model(texts, **changes))
    with pytest.raises(UserError, match=message):
        trained(str(tmp_path / "run"), DOCUMENTS[:3], **{"vocabulary_size": 640, "model": str(given), **settings})


def test_model_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer.model = nowhere.model: no such file"):
        trained(str(tmp_path), DOCUMENTS[:3], model="nowhere.model")


def test_strata_are_reported_with_what_they_have_and_gave(tmp_path: Path) -> None:
    settings = {"sample_mb": 0.06, "sample_by": ("variant", "metadata.register"), "sample_temper": 0.0}
    stage = trained(str(tmp_path), DOCUMENTS, held_out_share=0.0, **settings)
    strata = json.loads(storage.read_text(storage.join(stage.uri, tokenizer.SAMPLE_FILE)))
    assert stage.manifest().summary["largest_strata"] == strata
    assert stage.manifest().summary["strata"] == len(strata)
    assert [row["bytes"] for row in strata] == sorted((row["bytes"] for row in strata), reverse=True)
    for row in strata:
        own = [
            len(each["text"].encode())
            for each in DOCUMENTS
            if each["variant"] == row["stratum"]["variant"]
            and json.loads(each["metadata"])["register"] == row["stratum"]["metadata.register"]
        ]
        assert (row["documents"], row["bytes"]) == (len(own), sum(own))
        assert row["sampled_bytes"] >= min(sum(own), 0.06e6 / len(strata) - 1)
        assert row["sampled_bytes"] < 0.06e6 + max(own)
    assert sum(row["sampled_bytes"] for row in strata) == stage.manifest().counters["sampled_bytes"]


def test_symbols_have_the_ids_after_the_special_ones(tmp_path: Path) -> None:
    stage = trained(str(tmp_path), DOCUMENTS, user_symbols=("[NOME]", "R$"), chat_symbols=("<|fala|>",))
    processor = tokenizer.load(stage.uri)
    pieces = [processor.id_to_piece(i) for i in range(7)]
    assert pieces == ["<unk>", "<s>", "</s>", "<|fala|>", "[NOME]", "R$", "<0x00>"]
    assert processor.is_control(3)
    assert processor.encode("[NOME]R$") == [4, 5]
    assert processor.encode("pagou R$5 a [NOME].").count(5) == 1
    assert 3 not in processor.encode("<|fala|>olá")
    assert processor.decode(processor.encode("<|fala|> [NOME]  R$ 5")) == "<|fala|> [NOME]  R$ 5"


def test_without_symbols_bytes_follow_the_special_ones(tmp_path: Path) -> None:
    processor = tokenizer.load(trained(str(tmp_path), DOCUMENTS, chat_symbols=()).uri)
    assert processor.id_to_piece(3) == "<0x00>"


def test_sentences_hold_the_whole_text_and_fit_sentencepiece() -> None:
    long = "é à ö " * 5000 + "x" * 9000
    found = list(sentences(f"um\n\n  \n dois \n{long}\n"))
    assert found[:2] == ["um", " dois "]
    assert "".join(found[2:]) == long
    assert max(len(line.encode()) for line in found) <= tokenizer.MAX_SENTENCE_BYTES


def test_a_text_of_one_long_line_is_learnt_from(tmp_path: Path) -> None:
    """SentencePiece alone would leave such a line out, and then there would be nothing to learn from."""
    rows = [{"id": str(i), "text": " ".join(row["text"].split()) * 12} for i, row in enumerate(DOCUMENTS[:4])]
    assert min(len(row["text"]) for row in rows) > tokenizer.MAX_SENTENCE_BYTES
    processor = tokenizer.load(trained(str(tmp_path), rows, held_out_share=0.0).uri)
    assert isinstance(processor, sentencepiece.SentencePieceProcessor)
    assert processor.get_piece_size() == 700


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"vocabulary_size": 321}, "vocabulary_size = 321: expected at least 322"),
        ({"sample_mb": 0.0}, "sample_mb = 0.0: expected more than 0"),
        ({"sample_temper": 1.5}, "sample_temper = 1.5: expected from 0 to 1"),
        ({"held_out_share": 1.0}, "held_out_share = 1.0: expected from 0 to below 1"),
        ({"character_coverage": 0.0}, "character_coverage = 0.0: expected more than 0, at most 1"),
        ({"user_symbols": ["<s>"]}, "user_symbols = '<s>': expected another name"),
        ({"user_symbols": ["<0x0A>"]}, "user_symbols = '<0x0A>': expected another name"),
        ({"user_symbols": ["a b"]}, "user_symbols = 'a b': expected printable characters without white space"),
        ({"chat_symbols": [""]}, "chat_symbols = '': expected printable characters"),
        ({"user_symbols": ["<|im_end|>"]}, r"user_symbols = \['<|im_end|>'\]: '<\|im_end\|>' is named twice"),
    ],
)
def test_config_names_the_value_that_is_wrong(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TokenizerConfig, table, "run.toml")
