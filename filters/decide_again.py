"""Stage ``curate`` under other quality limits, from a finished run of it: the same files, and no signal is measured.

In: the tables ``documents`` and ``removed`` of a finished curation of the same inputs by the same version of the stage,
whose settings differ in nothing but limits of the quality rules. Out: what a full pass would write, byte for byte, and
the same counters: both tables are merged back to the order of the input by their column ``row``, each document is
decided on its stored signals, and only what a document never had is computed, the variant of one that is kept now.

A full pass it is where the stored tables do not tell what a document would be: a step behind quality that rewrites
texts or looks at them before personal data is replaced (C4, blocks behind quality, decontamination), or any other
setting that differs. Which of the two it is, and why, is said in a line.

Cost: reading and writing the tables. Memory: a row group of each.
"""

import collections
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caravela import manifest, schema, storage
from caravela.config import build
from caravela.data.columns import strings
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.stages import Shard, ShardOutput, Stage, TableWriter
from filters.quality import QualityConfig, signals_of
from filters.quality_batch import decide_on_stored
from filters.steps import MASKED_BYTES, Quality
from filters.variant import VariantConfig, shipped_model
from filters.variant_batch import VariantFinder

Mask = npt.NDArray[np.bool_]
REMOVAL = tuple(name for name, _ in schema.REMOVED_FIELDS)
MEASURED_ANEW = ("quality.signals.",)
"""Settings of quality that are no limits."""
MOST_NAMES = 3


def decide_again_where_possible(quality: QualityConfig, variant: VariantConfig, stage: Stage) -> Stage:
    """The stage itself, or one that makes the same files from a finished curation under other limits."""
    basis, why_not = basis_of(stage)
    if basis is None:
        if why_not:
            print(f"{stage.name:<12} a full pass: {why_not}", flush=True)
        return stage
    print(f"{stage.name:<12} decides again on the signals in {basis.uri}; no input is read, none measured", flush=True)
    return dataclasses.replace(
        stage,
        plan=functools.partial(_plan, basis),
        make_worker=functools.partial(DecideAgain, quality, variant),
    )


def basis_of(stage: Stage) -> tuple[Manifest | None, str]:
    """The latest finished curation whose signals tell what this one is to decide; or none, and why not.

    No reason is given where nothing comes near: no finished curation of these inputs.
    """
    listed = _listed(stage)
    why_not: list[tuple[int, str]] = []
    fitting: list[Manifest] = []
    for found in _finished_curations(stage, listed):
        others = [name for name in differences(found.config, stage.config) if not is_limit(name)]
        if others:
            named = ", ".join(f"curate.{name}" for name in others[:MOST_NAMES])
            more = f" and {len(others) - MOST_NAMES} more" if len(others) > MOST_NAMES else ""
            why_not.append((len(others), f"{found.uri} differs in {named}{more}, not in quality limits alone"))
        elif _measured(found.config) != _measured(stage.config):
            why_not.append((0, f"{found.uri} did not measure the same signals (curate.quality.portuguese_quality)"))
        elif obstacle := _obstacle(stage.config):
            why_not.append((0, obstacle))
        elif lost := [uri for table in ("documents", "removed") for uri in found.uris(table) if uri not in listed]:
            why_not.append((0, f"{lost[0]} is missing"))
        else:
            fitting.append(found)
    if fitting:
        return max(fitting, key=lambda found: (found.started, found.uri)), ""
    return None, min(why_not, default=(0, ""))[1]


def finished_but_for_limits(stage: Stage) -> Manifest | None:
    """The finished curation of the same inputs and settings, quality limits apart.

    Of several the one that ``run.json`` names, else the latest.
    """
    current = storage.join(stage.root, manifest.read_run_index(stage.root).get(stage.name, ""))
    fitting = [
        found
        for found in _finished_curations(stage, _listed(stage))
        if all(map(is_limit, differences(found.config, stage.config)))
    ]
    return max(fitting, key=lambda found: (found.uri == current, found.started, found.uri), default=None)


def _listed(stage: Stage) -> set[str]:
    """Every file of every directory of the stage."""
    return set(storage.list_files(storage.join(stage.root, stage.name)))


def _finished_curations(stage: Stage, listed: set[str]) -> Iterator[Manifest]:
    """Those of the same inputs by the same version, whatever their settings."""
    folder = storage.join(stage.root, stage.name)
    inputs = [source.fingerprint for source in stage.inputs]
    for uri in sorted(listed):
        directory, _, name = uri.removeprefix(f"{folder}/").partition("/")
        if name != manifest.MANIFEST:
            continue
        try:
            found = manifest.read(storage.join(folder, directory))
        except UserError:  # of another version of the program: no use here, and no harm
            continue
        if found and found.version == stage.version and [each.fingerprint for each in found.inputs] == inputs:
            yield found


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """The dotted names of what differs between two settings."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other})
        inner = [(f"{name}.{key}" if name else key, one.get(key), other.get(key)) for key in keys]
        return [found for place, a, b in inner for found in differences(a, b, place)]
    return [] if one == other else [name]


def is_limit(name: str) -> bool:
    """Whether a setting of curation is a limit of a quality rule, or the like: nothing that a signal depends on."""
    return name.startswith("quality.") and not name.startswith(MEASURED_ANEW)


def _measured(config: Mapping[str, Any]) -> tuple[str, ...]:
    return signals_of(build(QualityConfig, config["quality"], "curate.quality"))


def _obstacle(settings: Mapping[str, Any]) -> str:
    """What of the settings a table of signals cannot stand in for."""
    if settings["c4"]["enabled"]:
        return "curate.c4 rewrites texts behind quality"
    if any(block["place"] == "after_quality" for block in settings["blocks"]):
        return "curate.blocks may rewrite texts behind quality"
    if settings["decontamination"]["enabled"]:
        return "curate.decontamination looks at texts before personal data is replaced in them"
    if settings.get("classifiers"):
        return "curate.classifiers score only what passes quality"
    return ""


def _plan(basis: Manifest) -> Sequence[Shard]:
    shards = zip(basis.shards, basis.uris("documents"), basis.uris("removed"), strict=True)
    return [
        Shard(
            index=shard.index,
            name=shard.name,
            spec={"documents": documents, "removed": removed, "counters": shard.counters},
        )
        for shard, documents, removed in shards
    ]


class DecideAgain:
    """Decides one shard after the other on its stored signals."""

    def __init__(self, quality: QualityConfig, variant: VariantConfig) -> None:
        self.quality = quality
        self.variant = variant
        self.finder = functools.cache(lambda: VariantFinder(shipped_model()))

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        counts = collections.Counter(_untouched(shard.spec["counters"]))
        with storage.open_read(shard.spec["documents"]) as one, storage.open_read(shard.spec["removed"]) as other:
            tables = pq.ParquetFile(one), pq.ParquetFile(other)
            kept_schema, removed_schema = (pa.schema(list(table.schema_arrow)) for table in tables)
            kept, removed = out.table("documents", kept_schema), out.table("removed", removed_schema)
            rows = 0
            for merged in in_order_of_input(*tables):
                first, last = merged["row"][0].as_py(), merged["row"][-1].as_py()
                if first != rows or last - first + 1 != merged.num_rows:
                    raise UserError(
                        f"{shard.spec['documents']}: documents {rows} to {last} of the input are not all in it or in "
                        f"{shard.spec['removed']}; remove that directory, and all is made anew"
                    )
                rows += merged.num_rows
                self._decide(merged, kept, removed, counts)
                out.progress.add(documents=merged.num_rows)
        return dict(counts)

    def _decide(
        self, merged: pa.Table, kept: TableWriter, removed: TableWriter, counts: "collections.Counter[str]"
    ) -> None:
        """The rows of some documents to one of the tables each."""
        decisions = decide_on_stored({name: _floats(merged[name]) for name in signals_of(self.quality)}, self.quality)
        breaks = _mask(merged.num_rows, [*decisions])
        was_in = pc.is_null(merged["stage"]).to_numpy()
        by_quality = pc.equal(merged["stage"], Quality.name).fill_null(False).to_numpy()
        stays_out = ~was_in & ~by_quality
        assert not (breaks & stays_out).any(), "a document was measured, but neither kept nor removed by quality"
        is_in = ~breaks & ~stays_out
        merged = self._with_removals(merged, decisions, breaks, by_quality & is_in)
        merged = self._with_variants(merged, breaks, is_in & ~was_in)
        _write(kept, merged, is_in)
        _write(removed, merged, ~is_in)
        self._count(merged, was_in, is_in, counts)

    def _with_removals(
        self, merged: pa.Table, decisions: Mapping[int, tuple[str, str]], breaks: Mask, cleared: Mask
    ) -> pa.Table:
        """With stage, reason and detail as they are now."""
        reasons, details = zip(*decisions.values(), strict=True) if decisions else ((), ())
        for name, values in zip(REMOVAL, ([Quality.name] * len(decisions), reasons, details), strict=True):
            column = _replaced(merged[name], cleared, pa.nulls(int(cleared.sum()), pa.string()))
            merged = _with_column(merged, name, _replaced(column, breaks, strings(values)))
        return merged

    def _with_variants(self, merged: pa.Table, breaks: Mask, newly_in: Mask) -> pa.Table:
        """A document that goes has no variant; one that comes back gets its own."""
        found: Sequence[tuple[str | None, float | None]] = []
        if self.variant.enabled and newly_in.any():
            texts = merged["text"].filter(pa.array(newly_in)).combine_chunks().cast(pa.large_string())
            found = self.finder().identify(texts, self.variant)
        values = (strings([name for name, _ in found]), pa.array([score for _, score in found], pa.float32()))
        for name, column in zip(("variant", "variant_score"), values, strict=True):
            cleared = _replaced(merged[name], breaks, pa.nulls(int(breaks.sum()), column.type))
            merged = _with_column(merged, name, _replaced(cleared, newly_in, column) if found else cleared)
        return merged

    def _count(self, merged: pa.Table, was_in: Mask, is_in: Mask, counts: "collections.Counter[str]") -> None:
        sizes = pc.binary_length(merged["text"]).to_numpy()
        for place in np.flatnonzero(was_in != is_in).tolist():
            masked = json.loads(merged["metadata"][place].as_py()).get(MASKED_BYTES, 0)
            sign = 1 if is_in[place] else -1
            counts["after.quality.documents"] += sign
            counts["after.quality.bytes"] += sign * (int(sizes[place]) + masked)
        counts["documents_kept"] += int(is_in.sum())
        counts["bytes_kept"] += int(sizes[is_in].sum())
        by_quality = merged.filter(pc.equal(merged["stage"], Quality.name))
        counts.update(f"removed.{Quality.name}.{reason}" for reason in by_quality["reason"].to_pylist())
        if self.variant.enabled:
            variants = merged["variant"].filter(pa.array(is_in)).to_pylist()
            counts.update(f"variant.{variant or 'unsure'}" for variant in variants)


def in_order_of_input(*tables: pq.ParquetFile) -> Iterator[pa.Table]:
    """All rows of tables that are sorted by ``row``, merged by it, some at a time; absent columns are null."""
    fields = {field.name: field for table in tables for field in table.schema_arrow}
    waiting = [_row_groups(table, list(fields.values())) for table in tables]
    heads = [next(groups, None) for groups in waiting]
    while any(head is not None for head in heads):
        # Of what is read so far, rows up to the first end are complete.
        border = min(head["row"][-1].as_py() for head in heads if head is not None)
        parts = []
        for i, head in enumerate(heads):
            if head is not None:
                rows = int(np.searchsorted(head["row"].to_numpy(), border, side="right"))
                parts.append(head.slice(0, rows))
                heads[i] = head.slice(rows) if rows < head.num_rows else next(waiting[i], None)
        yield pa.concat_tables(parts).sort_by("row").combine_chunks()


def _row_groups(table: pq.ParquetFile, fields: Sequence[pa.Field]) -> Iterator[pa.Table]:
    for i in range(table.num_row_groups):
        group = table.read_row_group(i)
        if group.num_rows:
            columns = [
                group[field.name] if field.name in group.column_names else pa.nulls(group.num_rows, field.type)
                for field in fields
            ]
            yield pa.table(columns, schema=pa.schema(fields))


def _untouched(counters: Mapping[str, int]) -> dict[str, int]:
    """What the limits of quality have no part in; what they have is counted anew, or added to and taken from."""
    anew = (f"removed.{Quality.name}.", "variant.")
    kept = {name: value for name, value in counters.items() if not name.startswith(anew)}
    return {**kept, "documents_kept": 0, "bytes_kept": 0}


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """NaN for a document that was never measured, which breaks no rule."""
    return np.asarray(column.to_numpy(), np.float32)


def _mask(length: int, places: Sequence[int]) -> Mask:
    mask = np.zeros(length, np.bool_)
    mask[list(places)] = True
    return mask


def _replaced(column: pa.ChunkedArray, mask: Mask, values: pa.Array) -> pa.ChunkedArray:
    """The column with other values where the mask is set."""
    return pc.replace_with_mask(column, pa.array(mask), values.cast(column.type))


def _with_column(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name), column)


def _write(writer: TableWriter, merged: pa.Table, mask: Mask) -> None:
    for batch in merged.select(writer.schema.names).filter(pa.array(mask)).combine_chunks().to_batches():
        writer.add_columns(batch)
