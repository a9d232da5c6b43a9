"""Whether our engine learns what a plain PyTorch loop over Hugging Face's model learns, on real documents.

``python benchmarks/learning.py DOCUMENTS.jsonl.gz --out FOLDER [--field text] [--shape 6m] [--steps 150]``

A BPE vocabulary is learnt from the documents, which are then shuffled and packed one after the other; some rows are
held out. Both loops begin with the same weights and are given the same rows in the same order: AdamW, warm-up and
cosine, clipping, in float32. They take each step in turn. ``--out`` gets ``learning.csv`` (loss of both at each step,
before the update), ``learning.svg`` and ``learning.json``; differences and the losses on held-out rows are printed. The
run fails where the losses of a step, or those held out, are more than 1 % apart.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import sentencepiece
import torch
from loader import machine
from torch import Tensor
from train_shapes import Settings, Shape, loop_of, shapes

from caravela.data import readers
from caravela.model.config import num_parameters
from caravela.reporting.markup import Html, element, joined
from caravela.train.config import TrainConfig
from caravela.train.schedule import learning_rate
from tests.toy_run import sentencepiece_model

OURS, THEIRS = "engine", "hugging_face"
ALLOWED = 0.01
HELD_OUT_ROWS = 64
TOKENIZER_CHARACTERS = 4_000_000
WIDTH, HEIGHT, LEFT, TOP = 640, 320, 50, 60
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; dominant-baseline: middle }
.title { font-weight: 600 } .tick { fill: #6e7781; font-size: 11px } .paper { fill: #ffffff } .grid { stroke: #d8dee4 }
polyline { fill: none } .t0 { stroke: #0969da; stroke-width: 4; opacity: 0.45 } .t1 { stroke: #bc4c00 }
"""


def main() -> None:
    """Trains both and prints how far they are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents")
    parser.add_argument("--out", required=True)
    parser.add_argument("--field", default="text")
    parser.add_argument("--shape", default="6m")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.makedirs(options.out, exist_ok=True)
    shape = shapes()[options.shape]
    rows = packed(texts(options), shape, options.steps * shape.batch_rows + HELD_OUT_ROWS)
    found, held_out = train_both(shape, rows[HELD_OUT_ROWS:], rows[:HELD_OUT_ROWS], options)
    write(options, shape, found, held_out)


def texts(options: argparse.Namespace) -> list[str]:
    """All documents, shuffled."""
    shards = readers.plan_shards([options.documents], 1 << 40)
    rows = (row for shard in shards for row in readers.read(shard.spec, readers.FieldNames(text=options.field)))
    found = [row.text for row in rows if row.text]
    random.Random(options.seed).shuffle(found)
    return found


def packed(documents: Sequence[str], shape: Shape, count: int) -> Tensor:
    """Rows [count, context + 1]: documents one after the other, each begun and ended by its token."""
    sample, size = [], 0
    for text in documents:
        sample.append(text)
        size += len(text)
        if size > TOKENIZER_CHARACTERS:
            break
    model = sentencepiece_model(sample, vocab_size=shape.model.vocabulary_size)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    length = shape.model.max_positions + 1
    stream: list[int] = []
    for text in documents:
        stream += [processor.bos_id(), *processor.encode(text), processor.eos_id()]
        if len(stream) >= count * length:
            return torch.tensor(stream[: count * length]).view(count, length)
    raise SystemExit(f"the documents have {len(stream):,} tokens: expected {count * length:,}; lower --steps")


def train_both(
    shape: Shape, rows: Tensor, held_out: Tensor, options: argparse.Namespace
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Losses by step, and at the end on rows held out."""
    config = TrainConfig(
        steps=options.steps,
        batch_rows=shape.batch_rows,
        learning_rate=options.learning_rate,
        warmup_steps=max(1, options.steps // 10),
    )
    settings = Settings(micro_batch_rows=shape.micro_batch_rows)
    loops = {kind: loop_of(kind, shape, settings) for kind in (OURS, THEIRS)}
    found, clock = list[dict[str, float]](), time.monotonic()
    for step, batch in enumerate(rows.split(shape.batch_rows), start=1):
        rate = learning_rate(config, step)
        losses = {kind: loop.step(batch, rate) for kind, loop in loops.items()}
        found.append({"step": step, "tokens": step * shape.tokens_per_step, "learning_rate": rate, **losses})
        if step % 10 == 0:
            print(f"step {step}: {losses}, {time.monotonic() - clock:.0f} s", flush=True)
    return found, {kind: loop.held_out_loss(held_out) for kind, loop in loops.items()}


def write(
    options: argparse.Namespace, shape: Shape, found: Sequence[dict[str, float]], held_out: dict[str, float]
) -> None:
    """The files, and the verdict."""
    apart = max(abs(row[OURS] / row[THEIRS] - 1) for row in found)
    apart_held_out = abs(held_out[OURS] / held_out[THEIRS] - 1)
    columns = list(found[0])
    lines = [",".join(columns), *(",".join(f"{row[name]:.9g}" for name in columns) for row in found)]
    Path(options.out, "learning.csv").write_text("\n".join(lines) + "\n", "utf-8")
    Path(options.out, "learning.svg").write_text(plot(found), "utf-8")
    figures = {
        "machine": machine(),
        "parameters": num_parameters(shape.model),
        "tokens_per_step": shape.tokens_per_step,
        "steps": len(found),
        "held_out_loss": held_out,
        "largest_relative_difference": {"training": apart, "held_out": apart_held_out},
    }
    Path(options.out, "learning.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(f"{num_parameters(shape.model):,} parameters, {len(found)} steps of {shape.tokens_per_step:,} tokens")
    print(f"loss {found[0][OURS]:.4f} -> {found[-1][OURS]:.4f}; held out {held_out}")
    print(f"largest relative difference: {apart:.1e} in training, {apart_held_out:.1e} held out")
    assert max(apart, apart_held_out) <= ALLOWED, "the losses are too far apart"


def plot(found: Sequence[dict[str, float]]) -> str:
    """Both curves: ours wide and pale, theirs thin and on top of it."""
    high = max(row[kind] for row in found for kind in (OURS, THEIRS))
    low = min(row[kind] for row in found for kind in (OURS, THEIRS))
    title = "Loss in nats per token, of training, before each update"
    parts: list[Html] = [element("text", title, x=LEFT, y=18, class_="title")]
    parts += grid(low, high, found[-1]["tokens"])
    for i, (kind, name) in enumerate(((OURS, "our engine"), (THEIRS, "plain PyTorch loop, Hugging Face's model"))):
        at = LEFT + 130 * i
        parts.append(element("polyline", points=f"{at},42 {at + 24},42", class_=f"t{i}"))
        parts.append(element("text", name, x=at + 30, y=42))
        heights = (TOP + HEIGHT * (high - row[kind]) / (high - low) for row in found)
        across = (LEFT + WIDTH * row["tokens"] / found[-1]["tokens"] for row in found)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, heights, strict=True))
        parts.append(element("polyline", points=points, class_=f"t{i}"))
    width, height = LEFT + WIDTH + 40, TOP + HEIGHT + 40
    paper = element("rect", width=width, height=height, class_="paper")
    size = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    style = Html(f"<style>{STYLE}</style>")
    drawing = element("svg", style, paper, *parts, xmlns="http://www.w3.org/2000/svg", **size)
    return str(joined([drawing])) + "\n"


def grid(low: float, high: float, tokens: float) -> Iterator[Html]:
    """Lines and figures."""
    for quarter in range(5):
        y, x = TOP + HEIGHT * quarter / 4, LEFT + WIDTH * quarter / 4
        yield element("line", x1=LEFT, x2=LEFT + WIDTH, y1=y, y2=y, class_="grid")
        value = high - (high - low) * quarter / 4
        yield element("text", f"{value:.2f}", x=LEFT - 8, y=y, text_anchor="end", class_="tick")
        thousands = f"{tokens * quarter / 4 / 1000:,.0f} k tokens"
        yield element("text", thousands, x=x, y=TOP + HEIGHT + 16, text_anchor="middle", class_="tick")


if __name__ == "__main__":
    main()
