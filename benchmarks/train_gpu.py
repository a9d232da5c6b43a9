"""What training gives on one GPU, beside a plain PyTorch loop over Hugging Face's model. One command on a bare machine:

``PYTHONPATH=platform python3 benchmarks/train_gpu.py --out FOLDER --minutes 9``

It needs torch alone. Our engine is measured where deepspeed and the libraries of object storage can be imported, the
Hugging Face loop where transformers can; what is missing is named in the table. No Ray, no network, no data: rows are
random tokens, which costs the same. ``--device cpu --toy`` takes every path at toy size.

For each shape and kind (engine: ours on DeepSpeed, ZeRO 1; plain: our model and AdamW, nothing else; hugging_face: the
same loop over transformers' model), each in a process of its own, in bfloat16 with float32 master weights, fused AdamW,
torch.compile (the engine by its own setting, which is on for a GPU), no document masks, 131,072 tokens a step:

* tokens/s and the median step; MFU by 6 N + 12 L d T operations a token (attention in full) over ``--peak-tflops``; the
  share of the matmul rate that was measured just before; the peak of memory;
* the seconds from the start of the process to the end of the first step, in parts; the first row is measured once
  more, with torch.compile's cache warm;
* of the engine: how long a checkpoint's snapshot stops training, and its size.

``--out`` gets ``train_gpu.json`` after each row and ``train_gpu.md`` at the end. A kind that fails is a line in the
table. What does not begin within ``--minutes`` is left out, and said.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KINDS = ("engine", "hugging_face", "plain")
SHAPES = ("160m", "345m", "460m", "1.1b")
H200_PEAK_TFLOPS = 989.0
"""Dense bfloat16, by NVIDIA's data sheet; the H100 SXM's is the same."""
STARTED = "CARAVELA_BENCHMARK_STARTED"
PARTS = ("imports", "built", "first_step")
WARM_UP = 3


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="one shape of toy size")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of measured steps in each process")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which nothing more is begun")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the GPU; 989 unless told, none for a CPU")
    parser.add_argument("--no-compile", action="store_true", help="plain and hugging_face without torch.compile")
    parser.add_argument("--one", nargs=2, metavar=("SHAPE", "KIND"), help="measures one row; used by itself")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options, *options.one)))
        return
    os.makedirs(options.out, exist_ok=True)
    cases = [(shape, kind) for shape in (["toy"] if options.toy else options.shapes) for kind in options.kinds]
    rows: list[dict[str, Any]] = []
    clock = time.monotonic()
    for shape, kind in (cases[0], *cases):
        name = {"shape": shape, "kind": kind, "compile_cache": "warm" if len(rows) == 1 else "cold"}
        if time.monotonic() - clock < 60 * options.minutes:
            found = in_a_process(options, shape, kind)
        else:
            found = {"error": f"not begun within {options.minutes:g} minutes"}
        rows.append({**name, **found})
        figures = {"machine": platform.processor() or platform.machine(), "peak_tflops": peak(options), "rows": rows}
        Path(options.out, "train_gpu.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
        print(rows[-1], file=sys.stderr, flush=True)
    text = as_markdown(rows, options)
    Path(options.out, "train_gpu.md").write_text(text + "\n", "utf-8")
    print(text)


def peak(options: argparse.Namespace) -> float:
    return float(options.peak_tflops or (H200_PEAK_TFLOPS if options.device == "cuda" else 0.0))


def in_a_process(options: argparse.Namespace, shape: str, kind: str) -> dict[str, Any]:
    """One row, or the last line of what went wrong."""
    caches = dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"), f"{options.out}/compiled/{shape}-{kind}")
    command = [sys.executable, __file__, "--out", options.out, "--device", options.device, "--one", shape, kind]
    command += ["--seconds", str(options.seconds), *(["--no-compile"] if options.no_compile else [])]
    environment = {**os.environ, **caches, STARTED: repr(time.time())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        Path(options.out, f"{shape}-{kind}.log").write_text(done.stderr, "utf-8")
        return {"error": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:300]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def measured(options: argparse.Namespace, shape_name: str, kind: str) -> dict[str, Any]:
    """One row."""
    started = float(os.environ[STARTED])
    import torch
    from train_shapes import EngineLoop, Settings, loop_of, random_rows, shapes

    from caravela.model.config import num_parameters
    from caravela.train.metrics import flops_per_token

    if kind == "engine":
        pass
    shape, on_gpu = shapes()[shape_name], options.device == "cuda"
    settings = Settings(
        device=options.device,
        precision="bf16",
        micro_batch_rows=shape.micro_batch_rows,
        compile=on_gpu and not options.no_compile,
    )
    marks = {"imports": time.time() - started}
    rate = matmul_flops(options.device)  # also wakes the GPU up, which the next mark would pay for
    begun = time.time()
    loop = loop_of(kind, shape, settings)
    marks["built"] = time.time() - begun
    batches = [random_rows(shape.model, shape.batch_rows, seed) for seed in range(4)]
    begun = time.time()
    losses = [loop.step(batches[0])]
    marks["first_step"] = time.time() - begun
    losses += [loop.step(batch) for batch in batches[1:WARM_UP]]
    seconds: list[float] = []
    while sum(seconds) < options.seconds or len(seconds) < 3:
        clock = time.perf_counter()
        losses.append(loop.step(batches[len(losses) % len(batches)]))  # reads the loss, so it waits for the GPU
        seconds.append(time.perf_counter() - clock)
    row: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "parameters": num_parameters(shape.model),
        "context": shape.model.max_positions,
        "tokens_per_step": shape.tokens_per_step,
        "micro_batch_rows": shape.micro_batch_rows,
        "step_s": statistics.median(seconds),
        "steps": len(seconds),
        "tokens_per_second": shape.tokens_per_step / statistics.median(seconds),
        "flops_per_token": flops_per_token(shape.model, shape.model.max_positions),
        "matmul_flops": rate,
        "memory_bytes": torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        "start_s": marks,
        "losses": [losses[0], losses[-1]],
    }
    return row | (snapshot(loop) if isinstance(loop, EngineLoop) else {})


def peak_memory(on_gpu: bool) -> int:
    """Bytes: of the GPU what PyTorch held at most, of the CPU the whole process."""
    import torch

    return torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def matmul_flops(device: str) -> float:
    """Operations a second of a large product in bfloat16, the best of five; on a CPU of a small one in float32."""
    import torch

    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    best = 0.0
    for _ in range(5):
        clock = time.perf_counter()
        float((a @ b)[0, 0])
        best = max(best, 2 * size**3 / (time.perf_counter() - clock))
    return best


def snapshot(loop: Any) -> dict[str, float]:
    """What a checkpoint costs: training stands while weights and moments are copied; they are written beside it."""
    seconds, size = [], 0
    for _ in range(3):
        clock = time.perf_counter()
        fragments = loop.engine.fragments()
        seconds.append(time.perf_counter() - clock)
        size = sum(array.nbytes for fragment in fragments for array in fragment.arrays.values())
    return {"checkpoint_stall_s": statistics.median(seconds), "checkpoint_bytes": size}


def as_markdown(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> str:
    """The tables."""
    good = [row for row in rows if "error" not in row]
    peak_flops = peak(options) * 1e12
    named = f"; peak {peak(options):g} TFLOP/s" if peak_flops else "; no peak is named, so no MFU"
    lines = [
        f"{good[0]['device']}, torch {good[0]['torch']}{named}" if good else "nothing could be measured",
        "",
        "| shape | kind | tokens/s | step, s | MFU | of measured matmul | memory, GB | checkpoint stall, s (GB) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"| {row['shape']} | {row['kind']} |"
        if "error" in row:
            lines.append(f"{name} {row['error'].replace('|', '/')} | | | | | |")
            continue
        flops = row["tokens_per_second"] * row["flops_per_token"]
        mfu = f"{flops / peak_flops:.1%}" if peak_flops else "–"
        stall = "–"
        if "checkpoint_stall_s" in row:
            stall = f"{row['checkpoint_stall_s']:.2f} ({row['checkpoint_bytes'] / 1e9:.2f})"
        lines.append(
            f"{name} {row['tokens_per_second']:,.0f} | {row['step_s']:.3f} | {mfu} | "
            f"{flops / row['matmul_flops']:.1%} | {row['memory_bytes'] / 1e9:.1f} | {stall} |"
        )
    lines += [
        "",
        "| shape | kind | compiled before | imports, s | model and loop, s | first step, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in good:
        cache = "yes" if row["compile_cache"] == "warm" else "no"
        parts = " | ".join(f"{row['start_s'][part]:.1f}" for part in PARTS)
        lines.append(f"| {row['shape']} | {row['kind']} | {cache} | {parts} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
