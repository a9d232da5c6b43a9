"""By how much a checkpoint holds training up: ``python benchmarks/checkpoint_stall.py [--shapes 10m] [--out F.json]``.

For each shape, in one process on the CPU: the time of a step, and around checkpoints that are written beside training
to ``--root`` (a local folder or ``s3://``), the time for which training stands still (the snapshot), the time
until the checkpoint is complete, and the steps meanwhile beside those with nothing to write. Medians of ``--rounds``.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [os.fspath(Path(__file__).parents[1] / "platform"), os.fspath(Path(__file__).parents[1])]

from benchmarks.train_shapes import EngineLoop, Settings, loop_of, random_rows, shapes
from caravela.model.config import num_parameters
from caravela.progress import table
from caravela.train.checkpoint import Progress
from caravela.train.checkpoint_writer import Writer
from caravela.train.retention import Rules


def measured(name: str, root: str, rows: int, context: int, rounds: int) -> dict[str, Any]:
    """Figures of one shape, in seconds; a step is of ``rows`` rows of ``context`` tokens."""
    shape = shapes()[name]._replace(batch_rows=rows, micro_batch_rows=rows)
    loop = loop_of("engine", shape, Settings(micro_batch_rows=rows))
    assert isinstance(loop, EngineLoop)
    batch_BT = random_rows(shape.model, rows, 0)[:, : context + 1]
    writer = Writer(f"{root}/{name}", "bench", 0, 1, Rules(newest=1), print)
    quiet, beside, stalls, writing = [], [], [], []
    size = 0
    loop.step(batch_BT)
    for _ in range(rounds):
        clock = time.perf_counter()
        loop.step(batch_BT)
        quiet.append(time.perf_counter() - clock)
        clock = time.perf_counter()
        fragments = loop.engine.fragments()
        progress = Progress(step=loop.steps, tokens=0, adam_step=loop.steps, loader={}, fingerprint="bench")
        writer.start(progress, fragments, {})
        stalls.append(time.perf_counter() - clock)
        size = sum(array.nbytes for fragment in fragments for array in fragment.arrays.values())
        del fragments
        while writer.committed_step < progress.step and not writer.failures:
            clock = time.perf_counter()
            loop.step(batch_BT)
            beside.append(time.perf_counter() - clock)
        writer.wait()
        writing.append(writer.seconds)
    writer.close()
    medians = {"step": quiet, "step_beside": beside, "stall": stalls, "writing": writing}
    return {
        "shape": name,
        "parameters": num_parameters(shape.model),
        "bytes": size,
        **{key: statistics.median(values) if values else 0.0 for key, values in medians.items()},
    }


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """The table."""
    headings = ("shape", "parameters", "state", "step", "stall", "of a step", "until complete", "step meanwhile")
    lines = [
        (
            row["shape"],
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['bytes'] / 1e6:,.0f} MB",
            f"{row['step']:.2f} s",
            f"{row['stall']:.3f} s",
            f"{row['stall'] / row['step']:.2f}",
            f"{row['writing']:.1f} s",
            f"{row['step_beside']:.2f} s",
        )
        for row in rows
    ]
    return table(headings, lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["6m", "10m", "160m"], choices=sorted(shapes()))
    parser.add_argument("--root", help="where checkpoints go; a temporary folder unless given")
    parser.add_argument("--rows", type=int, default=4, help="of a step")
    parser.add_argument("--context", type=int, default=128, help="tokens of a row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", help="JSON")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        sizes = (options.rows, options.context, options.rounds)
        rows = [measured(name, options.root or folder, *sizes) for name in options.shapes]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(as_text(rows))
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
