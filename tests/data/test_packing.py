"""Tokenizer and packing, against SentencePiece itself and counting by hand."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from caravela import schema
from caravela.data import packing, tokenizer
from caravela.data.packing import PackConfig
from caravela.data.tokenizer import TokenizerConfig
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage
from tests.road_without_ray import finish

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
