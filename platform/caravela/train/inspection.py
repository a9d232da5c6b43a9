"""Looks after the checkpoints of a run from storage alone: lists, verifies, compares, prunes.

In: the root of a run, or the directory of one checkpoint. It needs no config, no cluster and no torch, so it works
beside a run that is training and on one whose machines are gone. Every pretrain stage below the root is looked at,
finished or not. Memory: one parameter with its moments; disk: one checkpoint, two when comparing.
"""

import datetime
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from caravela import storage
from caravela.errors import UserError
from caravela.progress import table
from caravela.train import checkpoint, journal
from caravela.train.checkpoint import Reader
from caravela.train.retention import Rules, superfluous

STAGE = "pretrain"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A checkpoint, complete or not."""

    uri: str
    step: int
    state: str
    """complete, incomplete (no metadata: being written, or left by an attempt that died) or damaged (a file is missing
    or has another size)."""
    tokens: int | None = None
    """Targets trained on; None where there is no metadata, as for the next two."""
    num_ranks: int | None = None
    created: str = ""
    loss: float | None = None
    """Of the step, where its metrics are there."""
    bytes: int = 0
    """Of all files that are there."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of one parameter between two checkpoints: the largest absolute difference of each of ``checkpoint.KINDS``."""

    name: str
    largest: dict[str, float]


def stages_of(root: str) -> list[str]:
    """Directories of the pretrain stages below a run's root that have checkpoints.

    Raises:
        UserError: there is none.
    """
    prefix = storage.join(root, STAGE)
    inside = [uri.removeprefix(prefix).strip("/").split("/") for uri in storage.list_files(prefix)]
    names = sorted({parts[0] for parts in inside if len(parts) > 2 and parts[1] == checkpoint.FOLDER})
    if not names:
        raise UserError(f"{root}: no checkpoints below {prefix}; expected the root of a run that has trained")
    return [storage.join(prefix, name) for name in names]


def listed(stage_uri: str) -> list[Listed]:
    """All checkpoints of a stage, by step."""
    sizes: dict[str, int] = {}
    for uri in storage.list_files(storage.join(stage_uri, checkpoint.FOLDER)):
        parent = uri.rpartition("/")[0]
        sizes[parent] = sizes.get(parent, 0) + (checkpoint.size_of(uri) or 0)
    complete = set(checkpoint.directories(stage_uri, complete=True))
    return [_look_at(stage_uri, uri, sizes[uri], uri in complete) for uri in sorted(sizes)]


def _look_at(stage_uri: str, uri: str, size: int, is_complete: bool) -> Listed:
    step = int(storage.name_of(uri).removeprefix("step_").partition("-")[0])
    if not is_complete:
        return Listed(uri=uri, step=step, state="incomplete", bytes=size)
    found = checkpoint.read(uri)
    return Listed(
        uri=uri,
        step=step,
        state="complete" if checkpoint.is_whole(found) else "damaged",
        tokens=found.progress.tokens,
        num_ranks=found.num_ranks,
        created=found.created,
        loss=journal.stored_row(stage_uri, step).get("loss"),
        bytes=size,
    )


def as_text(checkpoints: Sequence[Listed]) -> str:
    """A table, one line a checkpoint."""
    rows = [
        (
            storage.name_of(one.uri),
            one.state,
            f"{one.step:,}",
            "" if one.tokens is None else f"{one.tokens:,}",
            "" if one.loss is None else f"{one.loss:.4f}",
            f"{one.bytes / 1e6:,.1f} MB",
            "" if one.num_ranks is None else str(one.num_ranks),
            one.created,
        )
        for one in checkpoints
    ]
    return table(("checkpoint", "state", "step", "tokens", "loss", "size", "ranks", "made"), rows)


def mistakes(uri: str) -> Iterator[str]:
    """What is wrong with the files of a complete checkpoint, one line each: all of them are read and hashed."""
    found = checkpoint.read(uri)
    for file in found.files:
        where = storage.join(uri, file.path)
        with tempfile.TemporaryDirectory(prefix="caravela-verify-") as folder:
            local = os.path.join(folder, "file")
            try:
                storage.fetch(where, local)
            except FileNotFoundError:
                yield f"{where}: missing"
                continue
            size, digest = os.path.getsize(local), storage.sha256_of(local)
        if size != file.bytes:
            yield f"{where}: {size:,} bytes, expected {file.bytes:,}"
        elif digest != file.sha256:
            yield f"{where}: SHA-256 is {digest}, expected {file.sha256}"


def differences(one: str, other: str) -> list[Difference]:
    """Parameter by parameter; in what number of ranks either was written does not matter.

    Raises:
        UserError: they are not of one model, or a file is corrupt.
    """
    first, second = checkpoint.read(one), checkpoint.read(other)
    sizes, other_sizes = checkpoint.sizes(first), checkpoint.sizes(second)
    if odd := sorted({name for name, _ in sizes.items() ^ other_sizes.items()}):
        raise UserError(f"{one} and {other} are of different models: {odd[0]} is not in both, or not of one size")
    with (
        tempfile.TemporaryDirectory(prefix="caravela-compare-") as folder,
        tempfile.TemporaryDirectory(prefix="caravela-compare-") as other_folder,
    ):
        readers = Reader(first, folder), Reader(second, other_folder)
        found = []
        for name, size in sorted(sizes.items()):
            a, b = (reader.read(name, 0, size) for reader in readers)
            largest = {kind: float(np.abs(a[kind] - b[kind]).max(initial=0.0)) for kind in checkpoint.KINDS}
            found.append(Difference(name=name, largest=largest))
    return found


def differences_as_text(found: Sequence[Difference], limit: int = 20) -> str:
    """The parameters that differ most, and in how many nothing does."""
    differing = [each for each in found if any(each.largest.values())]
    differing.sort(key=lambda each: -each.largest["weight"])
    rows = [(each.name, *(f"{each.largest[kind]:.3e}" for kind in checkpoint.KINDS)) for each in differing[:limit]]
    lines = [f"{len(found) - len(differing)} of {len(found)} parameters are equal, with their moments"]
    if rows:
        lines += [table(("largest difference", *checkpoint.KINDS), rows)]
    return "\n".join(lines)


def prune(stage_uri: str, rules: Rules, now: datetime.datetime) -> list[str]:
    """Removes the complete checkpoints that no rule keeps; returns their URIs.

    Those without metadata stay: a run may be writing them; the next one that it completes clears what was left.
    """
    gone = [each.uri for each in superfluous(rules, checkpoint.stored(stage_uri), now)]
    for uri in gone:
        checkpoint.remove(uri)
    return gone
