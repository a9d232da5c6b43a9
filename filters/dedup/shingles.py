"""Stages ``candidates`` and ``shingles``, where removals are verified: the sets of shingles that are to be compared.

``candidates``: each partition of clusters → the documents whose texts ``filters.dedup.verification`` needs, by shard.
``shingles``: each shard of documents, those of the index too, with its candidates → their sets, by cluster. Words and
shingles are those of the MinHash. Row groups without a candidate are not read, nor are files without one.

Cost: one more reading of the documents that hold candidates, and 8 bytes on storage for each of their words. Memory: 24
bytes for each word of a shard's candidates.
"""

import functools
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from caravela import storage
from caravela.data.columns import utf8_buffers
from caravela.errors import UserError
from caravela.manifest import Input
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.dedup import kernels, partitions, ranking, verification
from filters.dedup.config import DedupConfig
from filters.dedup.folded_words import folding_table
from filters.dedup.index import IndexRun
from filters.dedup.signatures import BATCH_ROWS
from filters.dedup.tables import CANDIDATES, ROW_BITS, ROW_MASK, SHINGLES, by_partition, nodes_of, spread


def candidates_stage(
    root: str, config: DedupConfig, members: Input, signatures: Input, index: tuple[IndexRun, ...] = ()
) -> Stage:
    """The documents whose texts are to be compared, partition by partition."""
    ranked = {"priority": list(config.priority), "source_rank": list(config.source_rank)}
    share = {"verify_share": config.verify_share} if config.verify == "sample" else {}
    return Stage(
        name="candidates",
        version=1,
        root=root,
        config={**ranked, "quality_step": config.quality_step, "verify": config.verify, **share},
        inputs=(members, signatures, *(run.signatures for run in index)),
        plan=functools.partial(ranking.plan, members, signatures, index),
        make_worker=functools.partial(CandidateWorker, config),
    )


class CandidateWorker:
    """One partition of clusters to the documents that are to be read."""

    def __init__(self, config: DedupConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        partition = ranking.read(shard, self.config)
        texts = verification.texts_of(partition)
        chosen = texts.best[verification.needed(partition, texts, self.config)]
        chosen = chosen[np.argsort(partition.node[chosen])]
        node = partition.node[chosen]
        columns = {"row": (node & ROW_MASK).astype(np.uint32), "root": partition.root[chosen]}
        shards = sum(shard.spec["old_shards"]) + int(shard.spec["new"])
        parts = by_partition(pa.table(columns, schema=CANDIDATES), (node >> ROW_BITS).astype(np.int64), shards)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="candidates"), CANDIDATES, parts)
        return {"candidates": len(chosen)}


def shingles_stage(
    root: str, config: DedupConfig, candidates: Input, curated: Input, index: tuple[IndexRun, ...] = ()
) -> Stage:
    """The sets of the candidates, shard by shard."""
    sources = (*(run.documents for run in index), curated)

    def plan() -> list[Shard]:
        found = finished(candidates)
        documents = [uri for source in sources for uri in finished(source).uris("documents")]
        files = partitions.files(found.uris("candidates"))
        spec = {"candidates": files, "shards": len(documents), "partitions": len(found.shards)}
        return [
            Shard(index=i, name=storage.name_of(uri), spec={**spec, "documents": uri})
            for i, uri in enumerate(documents)
        ]

    return Stage(
        name="shingles",
        version=2,
        root=root,
        config={"shingle_words": config.shingle_words, "fold_digits": config.fold_digits},
        inputs=(candidates, *sources),
        plan=plan,
        make_worker=functools.partial(ShingleWorker, config),
    )


class ShingleWorker:
    """One shard's candidates to their sets of shingles."""

    def __init__(self, config: DedupConfig) -> None:
        self.config = config

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        count, shards = int(shard.spec["partitions"]), int(shard.spec["shards"])
        found = partitions.read_all(shard.spec["candidates"], shard.index, shards, CANDIDATES)
        wanted = pa.concat_tables([CANDIDATES.empty_table(), *found]).sort_by("row")
        row = wanted["row"].to_numpy()
        values, lengths = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for texts in _texts(shard.spec["documents"], row.astype(np.int64)) if len(row) else ():
            data, offsets = utf8_buffers(texts)
            hashes, ends = np.empty(kernels.most_words(offsets), np.uint64), np.empty(len(texts), np.int64)
            fold = folding_table(self.config.fold_digits)
            kernels.shingle_sets(data, offsets, fold, self.config.shingle_words, hashes, ends)
            values.append(hashes[: ends[-1]].copy())
            lengths.append(np.diff(ends, prepend=0))
            out.progress.add(documents=len(texts), bytes=int(offsets[-1] - offsets[0]))
        borders = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
        sets = pa.ListArray.from_arrays(pa.array(borders.astype(np.int32)), pa.array(np.concatenate(values)))
        table = pa.table({"node": nodes_of(shard.index, row), "shingles": sets}, schema=SHINGLES)
        parts = by_partition(table, spread(wanted["root"].to_numpy()) % np.uint64(count), count)
        partitions.write(out.local_path(f"part-{shard.index:05d}.parts", table="shingles"), SHINGLES, parts)
        return {"candidates": len(row), "shingles": int(borders[-1])}


def _texts(uri: str, rows: npt.NDArray[np.int64]) -> Iterator[pa.Array]:
    """The texts of some rows, ascending, of a file of documents."""
    try:
        stream = storage.open_read(uri)
    except FileNotFoundError as error:
        raise UserError(
            f"{storage.shown(uri)}: documents that dedup.verify compares are gone; put them back, or set dedup.verify "
            'to "off"'
        ) from error
    with stream:
        file = pq.ParquetFile(stream)
        first = 0
        for group in range(file.num_row_groups):
            after = first + file.metadata.row_group(group).num_rows
            begin, end = np.searchsorted(rows, [first, after]).tolist()
            if begin < end:
                yield from _chosen(file, group, rows[begin:end] - first)
            first = after


def _chosen(file: pq.ParquetFile, group: int, rows: npt.NDArray[np.int64]) -> Iterator[pa.Array]:
    first = 0
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=["text"]):
        begin, end = np.searchsorted(rows, [first, first + batch.num_rows]).tolist()
        if begin < end:
            yield batch["text"].take(pa.array(rows[begin:end] - first))
        first += batch.num_rows
