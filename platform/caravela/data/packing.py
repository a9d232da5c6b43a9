"""Documents to rows of a fixed number of tokens.

In: the kept documents of a stage, and a tokenizer. Out: tables ``train`` and ``validation`` of ``context + 1`` tokens a
row (schema.packed), ``composition`` (what they are made of) and ``samples`` (some rows of each source). Documents are
encoded as ``<s> … </s>`` and put into rows by one of two methods (``concatenation``, ``best_fit``). A row's targets are
its tokens but the first.

A document with repeats r (``filters.dedup.rehydration``) is packed r times: pass p over the shard packs those with more
than p, so its copies lie as far apart as the shard allows and never in one row that is best-fit packed. Which documents
validate is decided by a hash of their id, so no text is ever in both tables.

In = kept + removed: ``removed.no_repeats`` are documents with 0 repeats, ``removed.short_of_a_row`` those of which
nothing came into a row at the end of a shard. Memory: one row group's tokens, or a window's; of each document of a
shard its id, source and length.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from caravela import manifest, schema, storage
from caravela.config import ConfigError, to_dict
from caravela.data import groups
from caravela.data import tokenizer as tokenizers
from caravela.data.best_fit import BestFit
from caravela.data.composition import COMPOSITION, SAMPLES, Composition, histogram, length_counters, row_samples, whole
from caravela.data.concatenation import Concatenation
from caravela.data.encoding import Encoder, piece_bytes
from caravela.data.rows import Numbers, RowWriter
from caravela.data.shard_documents import ShardDocuments, text_bytes
from caravela.errors import UserError
from caravela.manifest import Input, ShardRecord
from caravela.stages import Shard, ShardOutput, Stage, finished

SPLIT_SEED = 0x5EED
TABLES = ("train", "validation")
METHODS = {"concatenated": Concatenation, "best_fit": BestFit}
CONTAMINATION = "contamination"
"""Column of decontamination, counted as a group where it is there."""


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Shape of the rows that training reads."""

    context: int = 2048
    """Tokens that the model sees at once; a row holds one more."""
    method: Literal["concatenated", "best_fit"] = "concatenated"
    """How documents fill rows: one after the other and cut where a row ends, or whole in the row where they fit best,
    with padding behind them; only documents longer than a row are cut then."""
    validation_share: float = 0.01
    """Share of documents that is held out."""
    row_group_rows: int = 256
    """Rows read at once in training: small enough that a shuffled window is cheap on object storage."""
    rehydrate: bool = True
    """Whether a document is packed as often as its column ``repeats`` says, 0 leaving it out; false: each once. Only
    with ``dedup.rehydration`` is it another number than 1."""
    group_by: tuple[str, ...] = ("source", "variant", "metadata.register", "year")
    """What tokens are counted by, for the report: columns of documents, ``metadata.<field>``, or ``year``."""

    def __post_init__(self) -> None:
        if self.context < 8:
            raise ConfigError(f"context = {self.context}: expected 8 or more")
        if not 0 <= self.validation_share < 1:
            raise ConfigError(f"validation_share = {self.validation_share}: expected from 0 to below 1")
        if self.row_group_rows < 1:
            raise ConfigError(f"row_group_rows = {self.row_group_rows}: expected 1 or more")
        if not all(self.group_by) or len(set(self.group_by)) < len(self.group_by):
            raise ConfigError(f"group_by = {list(self.group_by)}: expected names of columns, each once")


def pack_stage(root: str, config: PackConfig, documents: Input, tokenizer: Input) -> Stage:
    """The stage that packs the table ``documents`` of one stage with the tokenizer of another."""

    def plan() -> list[Shard]:
        source = finished(documents)
        finished(tokenizer)
        uris = source.uris("documents")
        return [
            Shard(index=i, name=file.path, spec={"tokenizer": tokenizer.uri, "uri": uri, "rows": file.rows})
            for i, (file, uri) in enumerate(zip(source.files("documents"), uris, strict=True))
        ]

    return Stage(
        name="pack",
        version=2,
        root=root,
        config=to_dict(config),
        inputs=(documents, tokenizer),
        plan=plan,
        make_worker=functools.partial(PackWorker, config),
        finish=functools.partial(_figures, config, tokenizer),
    )


class PackWorker:
    """Encodes and packs one shard."""

    def __init__(self, config: PackConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        processor = tokenizers.load(shard.spec["tokenizer"])
        wanted = (self.config.group_by, [CONTAMINATION], self.config.rehydrate)
        with ShardDocuments(shard.spec["uri"], int(shard.spec["rows"]), *wanted) as documents:
            packing = _Packing(self.config, out, documents, processor)
            for done in range(documents.passes):
                for numbers, batch in documents.batches(more_than=done):
                    packing.add(numbers, batch, first_pass=done == 0)
                packing.end_pass()
        return packing.close()


class _Packing:
    """One shard in work: its packers, and what is counted."""

    def __init__(
        self,
        config: PackConfig,
        out: ShardOutput,
        documents: ShardDocuments,
        processor: tokenizers.Tokenizer,
    ) -> None:
        self.out = out
        self.documents = documents
        sizes = piece_bytes(processor)
        rows = schema.packed(config.context + 1, len(sizes))
        self.encoder = Encoder(processor, rows.field("tokens").type.value_type.to_pandas_dtype())
        method = METHODS[config.method]
        writers = {
            name: RowWriter(out.table(name, rows), sizes, config.row_group_rows, documents.ids, processor.eos_id())
            for name in TABLES
        }
        self.packers = {name: method(writer) for name, writer in writers.items()}
        self.held_out = held_out(documents.ids, config.validation_share)
        self.lengths: Numbers = np.zeros(documents.num_rows, np.int64)
        """Tokens of every document."""
        self.composition = Composition(documents.fields)
        self.counters: Counter[str] = Counter()

    def add(self, numbers: Numbers, batch: pa.RecordBatch, first_pass: bool) -> None:
        """Packs some documents once; in the first pass they are also counted, with all their copies."""
        encoded = self.encoder.encode(batch["text"])
        sizes = text_bytes(batch)
        here = self.held_out[numbers]
        for name, which in zip(TABLES, (~here, here), strict=True):
            self.packers[name].add(numbers[which], encoded.of(which))
            self.counters[f"{name}_documents"] += int(which.sum())
            self.counters[f"{name}_tokens"] += int(encoded.lengths[which].sum())
        self.counters["text_bytes"] += int(sizes.sum())
        self.out.progress.add(documents=len(numbers), bytes=int(sizes.sum()))
        if first_pass:
            self.lengths[numbers] = encoded.lengths
            copies = self.documents.copies[numbers]
            tokens = copies * encoded.lengths
            measures = {
                "documents": copies,
                "tokens": tokens,
                "validation_tokens": tokens * here,
                "bytes": copies * sizes,
            }
            self.composition.add(groups.groups_of(batch, self.documents.fields), measures)

    def end_pass(self) -> None:
        for packer in self.packers.values():
            packer.end_pass()

    def close(self) -> dict[str, int]:
        """Writes what is left, the small tables too; returns the counters."""
        copies, lost = self.documents.copies, np.zeros(self.documents.num_rows, np.int64)
        for name, packer in self.packers.items():
            packer.close()
            np.add.at(lost, packer.dropped_documents, 1)
            of_table = {"rows": packer.rows.rows, "dropped": packer.dropped, "padding": packer.rows.padding}
            of_table["documents_cut"] = packer.documents_cut
            self.counters.update({f"{name}_{what}": count for what, count in of_table.items()})
            offered = self.counters[f"{name}_tokens"]
            in_rows = packer.rows.rows * packer.rows.width - packer.rows.padding
            assert offered == in_rows + packer.dropped, f"{name}: {offered} tokens in, {in_rows} in rows"
        self.out.table("composition", COMPOSITION).add_batch(self.composition.table())
        first = self.packers["train"].rows.first_documents
        samples = row_samples(np.concatenate([np.empty(0, np.int64), *first]), self.documents.sources, self.out.index)
        self.out.table("samples", SAMPLES).add_batch(samples)
        in_all, not_wanted = len(copies), int((copies == 0).sum())
        short = int(((copies > 0) & (lost >= copies)).sum())
        return {
            **self.counters,
            **length_counters(self.lengths, copies),
            "documents_in": in_all,
            "documents_kept": in_all - not_wanted - short,
            "removed.no_repeats": not_wanted,
            "removed.short_of_a_row": short,
        }


def held_out(ids: pa.Array, share: float) -> npt.NDArray[np.bool_]:
    """Which documents validate."""
    limit = int(share * (1 << 64))
    hashes = (xxhash.xxh3_64_intdigest(identifier.encode("utf-8"), SPLIT_SEED) for identifier in ids.to_pylist())
    return np.fromiter((value < limit for value in hashes), np.bool_, len(ids))


def _figures(config: PackConfig, tokenizer: Input, records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    """What training asks of the packed data, and the report; refuses data that holds not one row to train on."""
    counted = manifest.sum_counters(records)
    total = {name: count for name, count in counted.items() if "." not in name}
    if not total.get("train_rows"):
        raise UserError(
            f"pack.context = {config.context}: {total.get('train_tokens', 0)} tokens do not fill one row of it"
        )
    in_both = {
        what: sum(total[f"{name}_{what}"] for name in TABLES)
        for what in ("documents", "rows", "tokens", "dropped", "padding", "documents_cut")
    }
    parts = [file.path for record in records for file in record.files if file.table == "composition"]
    return {
        "context": config.context,
        "method": config.method,
        "tokenizer": tokenizer.fingerprint,
        "tokenizer_sha256": tokenizers.tokenizer_sha256(finished(tokenizer)),
        "vocabulary_size": int(tokenizers.load(tokenizer.uri).get_piece_size()),
        **total,
        "dropped_share": round(in_both["dropped"] / max(1, in_both["tokens"]), 6),
        "padding_share": round(in_both["padding"] / max(1, in_both["rows"] * (config.context + 1)), 6),
        "cut_share": round(in_both["documents_cut"] / max(1, in_both["documents"]), 6),
        "lengths": histogram(counted),
        "composition": whole([storage.join(uri, path) for path in parts]),
    }


def as_text(summary: Mapping[str, Any]) -> str:
    """What was packed, in three lines."""
    documents = summary["train_documents"] + summary["validation_documents"]
    lines = [
        f"{summary[f'{name}_rows']:,} rows of {summary['context'] + 1:,} tokens ({name}) hold "
        f"{summary[f'{name}_documents']:,} documents of {summary[f'{name}_tokens']:,} tokens"
        for name in TABLES
    ]
    shares = {name: f"{summary[f'{name}_share']:.3%}" for name in ("dropped", "padding", "cut")}
    lines.append(
        f"lost at ends of shards {shares['dropped']} of tokens · padding {shares['padding']} of places · "
        f"cut {shares['cut']} of {documents:,} documents ({summary['method']})"
    )
    return "\n".join(lines)
