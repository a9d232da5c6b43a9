"""Checkpoints that any number of workers can read, whatever number wrote them: what they are, and reading them.

On storage, below ``{stage}/checkpoints/step_00000020-<attempt>/``:

* ``rank-00000.safetensors`` ...: what each rank holds of every parameter: pieces of the flattened parameter, float32,
  under ``weight/<name>/<start>``, ``exp_avg/...`` and ``exp_avg_sq/...``.
* ``rank-00000.json`` ...: size, SHA-256 and pieces of that file, written after it.
* ``checkpoint.json``: all of those, the step, Adam's step and the position in the data; written last, by rank 0, when
  every rank's record is there. A directory without it does not exist for readers.

Decisions, with their price:

* Directories are named for the attempt (one start of the workers), so that what a killed attempt left is never mixed
  with what comes after.
* numpy and safetensors only: nothing is unpickled, and looking at checkpoints needs no torch.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from caravela import storage
from caravela.config import build
from caravela.errors import UserError
from caravela.outage import outlasting
from caravela.train.retention import Stored

FOLDER = "checkpoints"
METADATA = "checkpoint.json"
KINDS = ("weight", "exp_avg", "exp_avg_sq")

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Fragment:
    """A contiguous piece of a flattened parameter and its optimizer state; one array for each of ``KINDS``."""

    name: str
    start: int
    arrays: Arrays
    shape: tuple[int, ...] = ()
    """Of the whole parameter."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Where a fragment lies: elements ``[start, start + numel)`` of the flattened parameter."""

    name: str
    start: int
    numel: int
    shape: tuple[int, ...] = ()
    """Of the whole parameter; empty in checkpoints from before it was written down."""


@dataclass(frozen=True, kw_only=True)
class RankFile:
    """What one rank wrote."""

    path: str
    bytes: int
    sha256: str
    pieces: tuple[Piece, ...]
    error: str = ""
    """Why there is no file, if the rank could not write it."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training stands, apart from weights and moments. No state of random generators: training draws nothing."""

    step: int
    """Updates made."""
    tokens: int
    """Targets trained on."""
    adam_step: int
    """What Adam's bias correction counts."""
    loader: dict[str, Any]
    """The next batch, and of what data and order."""
    fingerprint: str
    """Of the pretrain stage."""
    model: dict[str, Any] = field(default_factory=dict)
    """Settings of the model; empty in checkpoints from before they were written down."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint, as its metadata tells it."""

    progress: Progress
    attempt: str
    num_ranks: int
    files: tuple[RankFile, ...]
    created: str
    """UTC, ISO 8601."""
    uri: str
    """Where it was read from; not written."""


def directory(stage_uri: str, step: int, attempt: str) -> str:
    return storage.join(stage_uri, FOLDER, f"step_{step:08d}-{attempt}")


def read(uri: str) -> Checkpoint:
    """The metadata of a complete checkpoint."""
    where = storage.join(uri, METADATA)
    return build(Checkpoint, {**json.loads(storage.read_text(where)), "uri": uri}, where)


def latest(stage_uri: str) -> Checkpoint | None:
    """The newest complete checkpoint whose files are there in their full size."""
    for uri in reversed(directories(stage_uri, complete=True)):
        found = read(uri)
        if is_whole(found):
            return found
    return None


def is_whole(found: Checkpoint) -> bool:
    """Whether all files are there in their full size."""
    return all(size_of(storage.join(found.uri, file.path)) == file.bytes for file in found.files)


def sizes(found: Checkpoint) -> dict[str, int]:
    """Elements of each parameter."""
    total: dict[str, int] = {}
    for piece in (piece for file in found.files for piece in file.pieces):
        total[piece.name] = total.get(piece.name, 0) + piece.numel
    return total


def check(found: Checkpoint, shapes: Mapping[str, tuple[int, ...]], model: Mapping[str, Any], seed: int) -> None:
    """Compares a checkpoint with the model and the order that it is to go on with.

    Args:
        found: the checkpoint.
        shapes: of the model's parameters, by name.
        model: settings of the model.
        seed: of the order of rows.

    Raises:
        UserError: naming the first setting that contradicts it, or weight that is missing, unknown or of another shape.
    """
    was = found.progress.model
    for name in model if was else ():
        if was.get(name, model[name]) != model[name]:
            raise UserError(f"model.{name} = {model[name]}: expected {was[name]}, as {found.uri} was trained with")
    if (trained_with := found.progress.loader.get("seed", seed)) != seed:
        raise UserError(f"train.seed = {seed}: expected {trained_with}, as {found.uri} was trained with")
    held: dict[str, tuple[int, tuple[int, ...]]] = {}
    for piece in (piece for file in found.files for piece in file.pieces):
        held[piece.name] = (held.get(piece.name, (0, ()))[0] + piece.numel, piece.shape)
    for name, shape in shapes.items():
        if name not in held:
            raise UserError(f"{found.uri}: weight {name} {list(shape)} is missing")
        numel, stored = held[name]
        if stored and stored != shape:
            raise UserError(f"{found.uri}: weight {name} is {list(stored)}, but the model's is {list(shape)}")
        if numel != math.prod(shape):
            raise UserError(
                f"{found.uri}: holds {numel} elements of weight {name} {list(shape)}: expected {math.prod(shape)}"
            )
    if unknown := sorted(held.keys() - shapes.keys()):
        raise UserError(f"{found.uri}: weight {unknown[0]} is unknown to the model (and {len(unknown) - 1} more)")


def size_of(uri: str) -> int | None:
    try:
        return int(storage.stat(uri)["size"])
    except FileNotFoundError:
        return None


def directories(stage_uri: str, complete: bool) -> list[str]:
    """Directories with metadata, or those without, by step."""
    found: dict[str, set[str]] = {}
    for uri in storage.list_files(storage.join(stage_uri, FOLDER)):
        parent, _, name = uri.rpartition("/")
        found.setdefault(parent, set()).add(name)
    return sorted(uri for uri, names in found.items() if (METADATA in names) == complete)


def stored(stage_uri: str) -> list[Stored]:
    """The complete checkpoints, as rules of retention look at them."""
    found = map(read, directories(stage_uri, complete=True))
    return [Stored(each.uri, each.progress.step, each.created) for each in found]


def remove(uri: str) -> None:
    """Removes a checkpoint, its metadata first, so that no reader trusts the rest."""
    storage.delete_tree(storage.join(uri, METADATA))
    storage.delete_tree(uri)


def key(kind: str, name: str, start: int) -> str:
    return f"{kind}/{name}/{start}"


def record_uri(uri: str, rank: int) -> str:
    return storage.join(uri, f"rank-{rank:05d}.json")


class Reader:
    """Pieces of a checkpoint in any cut; fetches the files that hold them, and checks each against its SHA-256."""

    def __init__(self, checkpoint: Checkpoint, folder: str) -> None:
        """Indexes the pieces; ``folder`` is a local one for the fetched files, and outlives the reader."""
        self.checkpoint = checkpoint
        self.folder = folder
        self._holders: dict[str, list[tuple[Piece, RankFile]]] = {}
        for file in checkpoint.files:
            for piece in file.pieces:
                self._holders.setdefault(piece.name, []).append((piece, file))
        self._open: dict[str, Any] = {}

    def read(self, name: str, start: int, numel: int) -> Arrays:
        """Elements ``[start, start + numel)`` of a flattened parameter and of its moments.

        Raises:
            UserError: the checkpoint does not hold all of them, or a file is corrupt.
        """
        arrays = {kind: np.empty(numel, np.float32) for kind in KINDS}
        filled = 0
        for piece, file in self._holders.get(name, []):
            low, high = max(start, piece.start), min(start + numel, piece.start + piece.numel)
            if low >= high:
                continue
            for kind in KINDS:
                stored = self._file(file).get_slice(key(kind, name, piece.start))
                arrays[kind][low - start : high - start] = stored[low - piece.start : high - piece.start]
            filled += high - low
        if filled != numel:
            raise UserError(
                f"{self.checkpoint.uri}: holds {filled} of elements {start} to {start + numel} of {name}; "
                "it is of another model, or its metadata is wrong"
            )
        return arrays

    def _file(self, file: RankFile) -> Any:
        if file.path not in self._open:
            uri, local = storage.join(self.checkpoint.uri, file.path), os.path.join(self.folder, file.path)
            outlasting(lambda: storage.fetch(uri, local))
            if (found := storage.sha256_of(local)) != file.sha256:
                raise UserError(
                    f"{uri}: SHA-256 is {found}, but {METADATA} says {file.sha256}; "
                    f"remove {self.checkpoint.uri} to go on from the checkpoint before"
                )
            self._open[file.path] = safetensors.safe_open(local, framework="numpy")
        return self._open[file.path]
