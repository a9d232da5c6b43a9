"""Tokenizer and packing, against SentencePiece itself and counting by hand."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece

from caravela import schema
from caravela.data import composition, encoding, packing, preview, rows, tokenizer
from caravela.data.packing import PackConfig
from caravela.data.tokenizer import TokenizerConfig
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage
from tests.road_without_ray import finish
from tests.toy_run import sentencepiece_model

TEXTS = Path(__file__).parents[2] / "platform" / "caravela" / "sample" / "texts"
DOCUMENTS = [
    {"id": path.stem, "text": path.read_text(encoding="utf-8")} for path in sorted(TEXTS.glob("pt-PT/*/*.txt"))[:40]
]


class Documents:
    """Stands in for deduplication: writes given rows over two shards."""

    def __call__(self, shard: Shard, out: ShardOutput) -> dict[str, int]:
        table, size = out.table("documents", schema.documents()), 0
        for row in DOCUMENTS[shard.index :: 2]:
            table.add(row)
            size += len(row["text"].encode())
        return {"bytes_kept": size}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Stage]:
    root = str(tmp_path_factory.mktemp("run"))
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(2)]
    documents = Stage(
        name="dedup", version=1, root=root, config={}, inputs=(), plan=lambda: plan, make_worker=Documents
    )
    finish(documents)
    tokens = tokenizer.tokenizer_stage(root, TokenizerConfig(vocabulary_size=800), documents.as_input())
    finish(tokens)
    return documents, tokens


def packed(stages: tuple[Stage, Stage], config: PackConfig) -> Manifest:
    documents, tokens = stages
    return finish(packing.pack_stage(documents.root, config, documents.as_input(), tokens.as_input()))


@pytest.mark.parametrize(
    "text",
    ["Olá,  mundo!\n\n\tFim.", " espaço antes e depois ", "preço: 1234,50 €", "日本 🙂 \x07", "", "<s> literal </s>"],
)
def test_tokenizer_gives_any_text_back(stages: tuple[Stage, Stage], text: str) -> None:
    processor = tokenizer.load(stages[1].uri)
    assert processor.decode(processor.encode(text)) == text


def test_tokenizer_splits_digits_and_has_the_special_tokens(stages: tuple[Stage, Stage]) -> None:
    processor = tokenizer.load(stages[1].uri)
    assert len(processor.encode("2026")) == 4
    assert [processor.id_to_piece(i) for i in range(6)] == [
        "<unk>",
        "<s>",
        "</s>",
        "<|im_start|>",
        "<|im_end|>",
        "<0x00>",
    ]


def test_tokenizer_trained_twice_is_the_same(stages: tuple[Stage, Stage], tmp_path: Path) -> None:
    documents, tokens = stages
    again = tokenizer.tokenizer_stage(str(tmp_path), TokenizerConfig(vocabulary_size=800), documents.as_input())
    assert [f.sha256 for f in finish(again).files("files")] == [f.sha256 for f in tokens.manifest().files("files")]


def test_tokenizer_larger_than_the_text_allows_is_one_line(stages: tuple[Stage, Stage], tmp_path: Path) -> None:
    config = TokenizerConfig(vocabulary_size=200_000)
    stage = tokenizer.tokenizer_stage(str(tmp_path), config, stages[0].as_input())
    with pytest.raises(UserError, match="vocabulary_size = 200000"):
        finish(stage)


@pytest.mark.parametrize(("context", "row_group_rows"), [(8, 1), (31, 4), (256, 16), (4000, 256)])
def test_pack_rows_are_the_documents_one_after_the_other(
    stages: tuple[Stage, Stage], context: int, row_group_rows: int
) -> None:
    config = PackConfig(context=context, validation_share=0.0, row_group_rows=row_group_rows)
    done = packed(stages, config)
    processor = tokenizer.load(stages[1].uri)
    for index, uri in enumerate(done.uris("train")):
        stream, owner = [], []
        for row in DOCUMENTS[index::2]:
            tokens = [1, *processor.encode(row["text"]), 2]
            stream += tokens
            owner += [row["id"]] * len(tokens)
        rows = pq.read_table(uri).to_pylist()
        width = context + 1
        assert len(rows) == len(stream) // width
        assert [t for row in rows for t in row["tokens"]] == stream[: len(rows) * width]
        for i, row in enumerate(rows):
            own = owner[i * width : (i + 1) * width]
            starts = [j for j in range(width) if j == 0 or own[j] != own[j - 1]]
            assert row["document_starts"] == starts
            assert row["document_ids"] == [own[j] for j in starts]
            decoded = processor.decode(row["tokens"][1:])
            if "\ufffd" not in decoded:  # a row may cut a character of several byte tokens
                assert row["target_bytes"] == len(decoded.encode())
        groups = pq.ParquetFile(uri).metadata
        sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        assert all(size == row_group_rows for size in sizes[:-1])


def test_pack_holds_out_whole_documents(stages: tuple[Stage, Stage]) -> None:
    done = packed(stages, PackConfig(context=16, validation_share=0.3))
    ids = {
        table: {i for uri in done.uris(table) for row in pq.read_table(uri)["document_ids"].to_pylist() for i in row}
        for table in ("train", "validation")
    }
    assert not ids["train"] & ids["validation"]
    assert ids["train"] | ids["validation"] == {row["id"] for row in DOCUMENTS}
    assert 4 <= len(ids["validation"]) <= 20


def test_pack_counts_every_token(stages: tuple[Stage, Stage]) -> None:
    done = packed(stages, PackConfig(context=100))
    for table in ("train", "validation"):
        total = done.counters
        assert total[f"{table}_tokens"] == total[f"{table}_rows"] * 101 + total[f"{table}_dropped"]


def test_pack_without_one_full_row_is_refused(stages: tuple[Stage, Stage]) -> None:
    with pytest.raises(UserError, match="do not fill one row"):
        packed(stages, PackConfig(context=1_000_000))


# Documents of every kind: with groups, repeats, of no text, and longer than a row.
RICH: list[dict[str, Any]] = [
    {
        "id": f"d{i:03d}",
        "text": "" if i == 7 else (DOCUMENTS[i % 40]["text"] * (3 if i % 9 == 0 else 1))[: 40 + 97 * i],
        "source": ("jornal", "blogue", "fórum \x1b[31m")[i % 3],
        "variant": ("pt-PT", "pt-BR", None)[i % 3],
        "date": ("2019-04-01", "1998", "", "sem data", None)[i % 5],
        "metadata": ('{"register": "news"}', '{"register": 3}', "", None, "[1]")[i % 5],
        "contamination": (0.0, 0.05, 0.34, 1.0)[i % 4],
        "repeats": i % 4,
    }
    for i in range(60)
]


class RichDocuments:
    """Stands in for deduplication with rehydration."""

    def __call__(self, shard: Shard, out: ShardOutput) -> dict[str, int]:
        fields = [*schema.documents(["contamination"]), pa.field("repeats", pa.uint8())]
        table = out.table("documents", pa.schema(fields))
        for row in RICH[shard.index :: 2]:
            table.add(row)
        return {}


@pytest.fixture(scope="module")
def rich(stages: tuple[Stage, Stage]) -> tuple[Stage, Stage]:
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(2)]
    documents = Stage(
        name="rich",
        version=1,
        root=stages[0].root,
        config={},
        inputs=(),
        plan=lambda: plan,
        make_worker=RichDocuments,
    )
    finish(documents)
    return documents, stages[1]


def rows_of(done: Manifest, *tables: str) -> list[dict[str, Any]]:
    return [
        row for table in tables or packing.TABLES for uri in done.uris(table) for row in pq.read_table(uri).to_pylist()
    ]


def stretches_of(row: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    ends = [*row["document_starts"][1:], len(row["tokens"]) - row["padding"]]
    for name, start, end in zip(row["document_ids"], row["document_starts"], ends, strict=True):
        yield name, row["tokens"][start:end]


def by_hand(stages: tuple[Stage, Stage], text: str) -> list[int]:
    return [1, *tokenizer.load(stages[1].uri).encode(text), 2]


def test_best_fit_rows_hold_whole_documents_and_padding(rich: tuple[Stage, Stage]) -> None:
    config = PackConfig(context=400, method="best_fit", row_group_rows=4, rehydrate=False, validation_share=0.2)
    done = packed(rich, config)
    processor = tokenizer.load(rich[1].uri)
    found: dict[str, list[list[int]]] = {}
    for row in rows_of(done):
        used = 401 - row["padding"]
        assert row["tokens"][used:] == [2] * row["padding"]
        texts = []
        for name, tokens in stretches_of(row):
            found.setdefault(name, []).append(tokens)
            texts.append(processor.decode(tokens))
        if "\ufffd" not in "".join(texts):
            first = processor.decode(row["tokens"][:1])  # no target
            assert row["target_bytes"] == len("".join(texts).encode()) - len(first.encode())
    expected = {row["id"]: by_hand(rich, str(row["text"])) for row in RICH}
    for name, tokens in expected.items():
        assert sorted(found[str(name)]) == sorted(tokens[at : at + 401] for at in range(0, len(tokens), 401))
    long = {name for name, tokens in expected.items() if len(tokens) > 401}
    assert {name for name, stretches in found.items() if len(stretches) > 1} == long
    total = done.summary
    assert total["train_documents_cut"] + total["validation_documents_cut"] == len(long)
    assert total["cut_share"] == pytest.approx(len(long) / 60, abs=1e-6)
    places = 401 * (total["train_rows"] + total["validation_rows"])
    assert total["padding_share"] == pytest.approx(1 - sum(map(len, expected.values())) / places, abs=1e-6)
    for uri in done.uris("train"):
        groups = pq.ParquetFile(uri).metadata
        assert all(groups.row_group(i).num_rows == 4 for i in range(groups.num_row_groups - 1))


@pytest.mark.parametrize("method", ["concatenated", "best_fit"])
def test_pack_repeats_documents_as_often_as_their_column_says(rich: tuple[Stage, Stage], method: Any) -> None:
    config = PackConfig(context=24, method=method, row_group_rows=4, validation_share=0.0)
    done = packed(rich, config)
    rows = rows_of(done, "train")
    begun = Counter(name for row in rows for name, tokens in stretches_of(row) if tokens[0] == 1)
    tokens = Counter[str]()
    for row in rows:
        for name, own in stretches_of(row):
            tokens[name] += len(own)
        names = [name for name, own in stretches_of(row) if own[0] == 1]
        assert method == "concatenated" or len(set(names)) == len(names)
    lost = 0
    for row in RICH:
        length, repeats = len(by_hand(rich, str(row["text"]))), int(str(row["repeats"]))
        lost += repeats * length - tokens[str(row["id"])]
        assert begun[str(row["id"])] <= repeats
    assert lost == done.counters["train_dropped"]
    assert lost == 0 if method == "best_fit" else lost < 2 * 25
    total = done.counters
    assert (total["documents_in"], total["removed.no_repeats"]) == (60, 15)
    assert total["documents_kept"] == len(tokens)
    assert total["train_documents"] == sum(int(str(row["repeats"])) for row in RICH)
    once = packed(rich, dataclasses.replace(config, rehydrate=False))
    assert once.counters["train_documents"] == 60


def test_pack_counts_documents_that_fall_short_of_a_row(rich: tuple[Stage, Stage]) -> None:
    done = packed(rich, PackConfig(context=1500, rehydrate=False, validation_share=0.0))
    seen = {name for row in rows_of(done, "train") for name in row["document_ids"]}
    assert done.counters["removed.short_of_a_row"] == 60 - len(seen) > 0
    cut = Counter(name for row in rows_of(done, "train") for name in row["document_ids"])
    ends = Counter(name for row in rows_of(done, "train") for name, own in stretches_of(row) if own[-1] == 2)
    assert done.counters["train_documents_cut"] == sum(cut[name] > 1 or not ends[name] for name in seen)


def test_pack_composition_is_that_of_the_documents(rich: tuple[Stage, Stage]) -> None:
    config = PackConfig(context=64, validation_share=0.3, group_by=("source", "variant", "metadata.register", "year"))
    done = packed(rich, config)
    held_out = {name for row in rows_of(done, "validation") for name in row["document_ids"]}
    groups = {
        "source": lambda row: row["source"],
        "variant": lambda row: row["variant"] or "",
        "year": lambda row: {"2019-04-01": "2019", "1998": "1998"}.get(row["date"], ""),
        "metadata.register": lambda row: {'{"register": "news"}': "news", '{"register": 3}': "3"}.get(
            row["metadata"], ""
        ),
        "contamination": lambda row: {0.0: "0.0 to 0.1", 0.05: "0.0 to 0.1", 0.34: "0.3 to 0.4", 1.0: "0.9 to 1.0"}[
            row["contamination"]
        ],
    }
    assert set(done.summary["composition"]) == set(groups)
    for field, group_of in groups.items():
        expected: dict[str, Counter[str]] = {}
        for row in RICH:
            text, copies = str(row["text"]), int(str(row["repeats"]))
            length = copies * len(by_hand(rich, text))
            numbers = {"documents": copies, "tokens": length, "bytes": copies * len(text.encode())}
            numbers["validation_tokens"] = length * (row["id"] in held_out)
            if copies:
                expected.setdefault(group_of(row), Counter()).update(numbers)
        found = done.summary["composition"][field]
        assert found["rest"] is None
        assert {entry.pop("value"): entry for entry in map(dict, found["values"])} == expected
    lengths = [len(by_hand(rich, str(row["text"]))) for row in RICH for _ in range(int(str(row["repeats"])))]
    for bin_ in done.summary["lengths"]:
        inside = [length for length in lengths if bin_["from"] <= length <= bin_["to"]]
        assert (bin_["documents"], bin_["tokens"]) == (len(inside), sum(inside))
    assert sum(bin_["documents"] for bin_ in done.summary["lengths"]) == len(lengths)


def test_composition_of_many_values_keeps_the_sums(tmp_path: Path) -> None:
    uris = []
    for shard in range(3):
        counted = composition.Composition(["source"])
        names = pa.array([f"site-{i}" for i in range(1500)]).dictionary_encode()
        tokens = np.arange(1500) * (shard + 1)
        counted.add({"source": names}, dict.fromkeys(composition.MEASURES, tokens))
        assert counted.table().num_rows == composition.MOST_VALUES + 1
        uris.append(str(tmp_path / f"{shard}.parquet"))
        pq.write_table(counted.table(), uris[-1])
    found = composition.whole(uris)["source"]
    values = {entry["value"]: entry["tokens"] for entry in found["values"]}
    assert values == {f"site-{i}": i * 6 for i in range(1480, 1500)}
    assert sum(values.values()) + found["rest"]["tokens"] == sum(range(1500)) * 6


def test_samples_name_rows_that_begin_with_their_source(rich: tuple[Stage, Stage]) -> None:
    done = packed(rich, PackConfig(context=16, validation_share=0.0))
    source_of = {row["id"]: row["source"] for row in RICH}
    seen = Counter[str]()
    for part, uri in enumerate(done.uris("samples")):
        rows = pq.read_table(done.uris("train")[part]).to_pylist()
        for sample in pq.read_table(uri).to_pylist():
            assert source_of[rows[sample["row"]]["document_ids"][0]] == sample["source"]
            seen[sample["source"]] += 1
    assert seen == dict.fromkeys(("jornal", "blogue", "fórum \x1b[31m"), 2 * composition.SAMPLED_ROWS)


def test_pack_gives_the_same_bytes_again(rich: tuple[Stage, Stage], tmp_path: Path) -> None:
    config = PackConfig(context=64, method="best_fit")
    first = packed(rich, config)
    again = finish(packing.pack_stage(str(tmp_path), config, rich[0].as_input(), rich[1].as_input()))
    assert [f.sha256 for s in again.shards for f in s.files] == [f.sha256 for s in first.shards for f in s.files]
    assert again.uri != first.uri


def test_pack_by_an_unknown_column_is_one_line(rich: tuple[Stage, Stage]) -> None:
    with pytest.raises(UserError, match=r"no column 'registo' for pack.group_by; it has id, text"):
        packed(rich, PackConfig(context=16, group_by=("registo",)))


@pytest.mark.parametrize("damage", ["a byte", "the end", "all", "rows"])
def test_pack_of_a_corrupt_shard_is_one_line_and_makes_nothing(
    stages: tuple[Stage, Stage], tmp_path: Path, damage: str
) -> None:
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(2)]
    documents = Stage(
        name="rich", version=1, root=str(tmp_path), config={}, inputs=(), plan=lambda: plan, make_worker=RichDocuments
    )
    path = Path(finish(documents).uris("documents")[1])
    data = bytearray(path.read_bytes())
    if damage == "a byte":
        data[200] ^= 1  # in the first pages, whose checksums say so
        path.write_bytes(data)
    elif damage == "the end":
        path.write_bytes(data[:-20])
    elif damage == "all":
        path.unlink()
    else:
        pq.write_table(pq.read_table(path).slice(1), path)
    stage = packing.pack_stage(str(tmp_path), PackConfig(context=16), documents.as_input(), stages[1].as_input())
    with pytest.raises(UserError, match=rf"^{path}: .*run") as error:
        finish(stage)
    assert "\n" not in str(error.value)
    assert stage.manifest() is None


def test_counted_targets_are_all_but_the_padding() -> None:
    assert rows.counted_targets(np.array([0, 1, 3, 4]), 4).astype(int).tolist() == [
        [1, 1, 1, 1],
        [1, 1, 1, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]


@pytest.mark.parametrize("method", ["concatenated", "best_fit"])
def test_preview_shows_the_documents_texts(rich: tuple[Stage, Stage], method: Any) -> None:
    done = packed(rich, PackConfig(context=30, method=method, rehydrate=False, validation_share=0.0))
    processor = tokenizer.load(rich[1].uri)
    places = [preview.Place(part, row) for part, file in enumerate(done.files("train")) for row in range(file.rows)]
    shown = preview.shown_rows(done, "train", places, processor)
    of: dict[str, list[preview.Stretch]] = {}
    for stretch in (stretch for row in shown for stretch in row.stretches):
        of.setdefault(stretch.document, []).append(stretch)
    whole = 0
    for row in RICH:
        own = of.get(str(row["id"]), [])
        assert sum(stretch.begins for stretch in own) == bool(own)
        if method == "best_fit" and len(own) > 1:
            continue  # the rest of a long document may stand in a row before the others
        assert [stretch.begins for stretch in own] == [True, *[False] * (len(own) - 1)][: len(own)]
        text = "".join(stretch.text for stretch in own)
        if own and own[-1].ends and "\ufffd" not in text:
            assert text == row["text"]
            whole += 1
    assert whole >= (1 if method == "best_fit" else 40)
    places = preview.scattered(done, "train", 7)
    assert len(set(places)) == 7
    assert places == preview.scattered(done, "train", 7) != preview.scattered(done, "train", 7, seed=1)
    everything = preview.scattered(done, "train", 10**6)
    assert sorted(everything) == [(p, r) for p, file in enumerate(done.files("train")) for r in range(file.rows)]
    line = preview.as_text(done, preview.shown_rows(done, "train", everything, processor))
    assert line.count("⟦doc ") == len(of)
    assert ("⟦padding: " in line) == (method == "best_fit")


def test_preview_escapes_what_could_harm_a_terminal() -> None:
    text = "olá\n\x1b[2J\x9b31m\u202e\u200bfim\t\r\x00 ção 日本 🙂"
    assert preview.printable(text) == r"olá" + "\n" + r"\x1b[2J\x9b31m\u202e\u200bfim\t\r\x00 ção 日本 🙂"


HARD = ["", " ", "  a  b ", "\n\n x\n", "<s> a </s>", "▁a ▁", "日本 🙂 \x07\x00 fim", "\ufeffé\u0301\u200d", "9" * 50]


@pytest.mark.parametrize(
    ("changes", "by_word"),
    [
        ({}, True),
        ({"model_type": "unigram"}, False),
        ({"split_by_whitespace": False}, False),  # pieces such as "de▁"
        ({"treat_whitespace_as_suffix": True}, False),
        ({"add_dummy_prefix": True}, False),
        ({"remove_extra_whitespaces": True}, False),
        ({"user_defined_symbols": ["a b"]}, False),
    ],
)
@pytest.mark.parametrize("most_words", [1, 200, 1 << 20])
def test_encoder_gives_the_ids_of_sentencepiece(changes: dict[str, Any], by_word: bool, most_words: int) -> None:
    own = [row["text"] for row in DOCUMENTS]
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(own[:20], **changes))
    texts = [*HARD, *own, *("".join(pair) for pair in itertools.product(HARD, HARD))]
    expected = [[1, *processor.encode(text), 2] for text in texts]
    encoder = encoding.Encoder(processor, np.uint16, most_words)
    assert encoder.by_word == by_word
    for kind in (pa.string(), pa.large_string()):
        found = [encoder.encode(pa.array(texts[at : at + 30], kind)) for at in range(0, len(texts), 30)]
        assert np.concatenate([each.ids for each in found]).tolist() == list(itertools.chain.from_iterable(expected))
        assert np.concatenate([each.lengths for each in found]).tolist() == list(map(len, expected))
    assert len(encoder.encode(pa.array([], pa.string())).ids) == 0
