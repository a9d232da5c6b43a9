"""What training costs on a CPU, beside a plain PyTorch loop over Hugging Face's model and beside their Trainer.

``python benchmarks/train_cpu.py --out FOLDER [--shape 10m] [--batch-rows 4] [--threads 2] [--peer-python PYTHON]``

Five trainings of the same model from the same weights with the same rows, settings and threads, each in a process of
its own:

* plain: our model, AdamW and nothing else;
* engine: our engine (DeepSpeed, ZeRO 1, one process, no Ray);
* stage: the stage ``pretrain`` as a job runs it: Ray Train, DeepSpeed, packed rows from disk;
* hugging_face: the loop of ``plain`` over transformers' model;
* trainer: Hugging Face's Trainer. It needs the package ``accelerate``, which this project does not; ``--peer-python``
  names an interpreter that has torch, transformers and accelerate.

They take turns: after each block of ``--block`` steps a process stops itself and the next goes on, so that all see the
same machine at about the same time. The first step of a block does not count. Tokens/s are the median over steps;
ratios are taken within a round of turns and their median is given. On a busy machine processor time, with one thread,
says more than the clock. Losses of all are compared step by step.

Of the stage also: the share of a step that waits for data, the processor time of Ray's own processes, and the seconds
from the start of the driver to the end of the first step in their parts. Prints Markdown; ``--out`` gets
``train_cpu.json`` too.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from train_turns import TURNS, Noted, go_on, wait_until_stopped, write_json

KINDS = ("plain", "engine", "stage", "hugging_face", "trainer")
MARKS = "marks.json"
TURN_OPTIONS = ("rounds", "block", "warm_up")
PARTS = {
    "imports": "imports of the driver",
    "ray": "Ray starts",
    "worker": "a worker process starts",
    "torch": "it imports torch, its group starts",
    "engine_import": "it imports DeepSpeed and the loop",
    "weights": "initial weights, order of rows",
    "engine": "the engine is made",
    "data": "checkpoint looked for, data opened, first rows",
    "first_step": "the first step",
}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--shape", default="10m")
    parser.add_argument("--batch-rows", type=int, default=4, help="rows of a step, passed through the model at once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--block", type=int, default=4, help="steps of a turn")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the first turn")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of the Trainer")
    parser.add_argument("--one", choices=KINDS, help="trains one of them; used by itself")
    options = parser.parse_args()
    if options.one:
        train_one(options)
        return
    missing = lacks(options.peer_python) if "trainer" in options.kinds else ""
    if missing:
        options.kinds.remove("trainer")
    os.makedirs(options.out, exist_ok=True)
    prepare(options)
    from loader import machine

    figures = {"machine": machine(), "options": {**vars(options), "out": "", "peer_python": ""}, **measured(options)}
    Path(options.out, "train_cpu.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(as_markdown(figures))
    if missing:
        print(f"\nThe Trainer was not measured: {options.peer_python} lacks {missing} (--peer-python names another)")


def steps(options: argparse.Namespace) -> int:
    return int(options.warm_up + options.rounds * options.block)


def train_config(options: argparse.Namespace) -> Any:
    from train_shapes import BETAS, CLIP, EPSILON, LEARNING_RATE, WEIGHT_DECAY

    from caravela.train.config import TrainConfig

    return TrainConfig(
        steps=steps(options),
        batch_rows=options.batch_rows,
        micro_batch_rows=options.batch_rows,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        weight_decay=WEIGHT_DECAY,
        beta1=BETAS[0],
        beta2=BETAS[1],
        epsilon=EPSILON,
        clip=CLIP,
        precision="fp32",
        num_cpus_per_worker=options.threads,
        checkpoint_every_steps=1 << 30,
        validate_every_steps=0,
        max_failures=0,
    )


def prepare(options: argparse.Namespace) -> None:
    """Packed rows, the same rows as an array in the order in which they are drawn, and Hugging Face's model."""
    import torch
    from loader import write_pack
    from train_shapes import shapes

    from caravela import manifest
    from caravela.data.loader import Loader
    from caravela.data.sources import MixtureConfig, training_order
    from caravela.model.hugging_face import write_model
    from caravela.model.transformer import Decoder

    model = shapes()[options.shape].model
    shutil.rmtree(f"{options.out}/pretrain", ignore_errors=True)  # of a run before, which would be found to be finished
    Path(options.out, MARKS).unlink(missing_ok=True)
    write_pack(
        f"{options.out}/pack", 8 * steps(options) * options.batch_rows, model.max_positions, model.vocabulary_size
    )
    pack = manifest.read(f"{options.out}/pack")
    assert pack is not None, "just written"
    with Loader(training_order(MixtureConfig(), [pack], train_config(options)), 0, 1) as loader:
        np.save(f"{options.out}/rows.npy", np.stack([batch.tokens for batch in loader.batches(1)]))
    os.makedirs(f"{options.out}/hugging_face", exist_ok=True)
    decoder = Decoder(model).initialize(torch.Generator().manual_seed(0))
    write_model(decoder, "float32", {}, f"{options.out}/hugging_face")


def train_one(options: argparse.Namespace) -> None:
    """A training in this process."""
    if options.one == "stage":
        train_stage(options)
        return
    import torch
    from train_shapes import Settings, Shape, loop_of, shapes

    torch.set_num_threads(options.threads)
    turns = Noted(options.warm_up, options.block)
    shape = Shape(shapes()[options.shape].model, options.batch_rows, options.batch_rows)
    loop = loop_of(options.one, shape, Settings(micro_batch_rows=options.batch_rows))
    for batch in torch.from_numpy(np.load(f"{options.out}/rows.npy")):
        turns.before_step()
        turns.after_step(loop.step(batch))
    write_json(turns.figures(), f"{options.out}/{options.one}.json")


def train_stage(options: argparse.Namespace) -> None:
    """The driver of the stage ``pretrain``; its worker notes where it stands and takes turns."""
    marks = {"process": psutil.Process().create_time()}
    import ray
    from train_shapes import shapes  # imports torch, so it stands behind what a driver needs

    from caravela import stages
    from caravela.cluster import ClusterConfig
    from caravela.manifest import Input
    from caravela.ray_start import agents_at_known_ports
    from caravela.train.launch import pretrain_stage
    from tests.packed_rows import write_tokenizer

    marks_file = f"{options.out}/{MARKS}"
    os.environ[TURNS] = f"{options.warm_up},{options.block},{marks_file}"
    os.environ["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    inputs = [Input(name=name, fingerprint="f", uri=f"{options.out}/{name}") for name in ("pack", "tokenizer")]
    write_tokenizer(inputs[1].uri, sha256="")  # rows of random tokens have none
    stage = pretrain_stage(options.out, train_config(options), shapes()[options.shape].model, inputs[:1], inputs[1])
    marks["imports"] = time.time()
    with agents_at_known_ports():
        ray.init(
            address="local",
            num_cpus=options.threads,
            include_dashboard=True,
            log_to_driver=False,
            runtime_env={"worker_process_setup_hook": "train_turns.watch_engine"},
        )
    marks["ray"] = time.time()
    done = stages.run(stage, ClusterConfig())
    ray.shutdown()
    rows = [json.loads(line) for line in Path(done.uri, "metrics.jsonl").read_text("utf-8").splitlines()]
    worker = json.loads(Path(marks_file).read_text("utf-8"))
    found = {
        "seconds": [row["seconds"] for row in rows],
        "processor_seconds": worker.pop("processor_seconds"),
        "losses": [row["loss"] for row in rows],
        "data": [row["seconds_data"] for row in rows],
        "marks": {**marks, **worker},
    }
    write_json(found, f"{options.out}/stage.json")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Lets all take turns; their times, losses and, of Ray, processor time."""
    running: dict[str, psutil.Popen] = {}
    try:
        ray_cores = take_turns(options, running)
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()  # stopped, so that nothing else reaches it
    found = {kind: json.loads(Path(options.out, f"{kind}.json").read_text("utf-8")) for kind in running}
    rows, length = np.load(f"{options.out}/rows.npy").shape[1:]
    return {"tokens_per_step": rows * (length - 1), "ray_cores": ray_cores, "found": found}


def take_turns(options: argparse.Namespace, running: dict[str, psutil.Popen]) -> float:
    """Starts all, lets them go on in turn to their ends; the cores that Ray takes meanwhile."""
    workers: dict[str, psutil.Process] = {}
    for kinds in ([kind for kind in options.kinds if kind != "stage"], ["stage"] if "stage" in options.kinds else []):
        running |= {kind: start(options, kind) for kind in kinds}  # the stage by itself, as its start is measured
        for kind in kinds:
            workers[kind] = worker_of(options, kind, running[kind])
            wait_until_stopped(workers[kind])
            print(f"{kind} is ready", file=sys.stderr, flush=True)
    clock, before, ray_cores = time.monotonic(), ray_seconds(running, workers), 0.0
    for turn in range(options.rounds):
        if turn and turn == options.rounds - 1:  # in the last turn the stage ends, and Ray with it
            ray_cores = (ray_seconds(running, workers) - before) / (time.monotonic() - clock)
        for kind in options.kinds:
            go_on(workers[kind])
    for kind, process in running.items():
        code = process.wait()
        assert code == 0, f"{kind}: ended with {code}"
    return ray_cores


def start(options: argparse.Namespace, kind: str) -> psutil.Popen:
    settings = {name: str(getattr(options, name)) for name in ("out", "shape", "batch_rows", "threads", *TURN_OPTIONS)}
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    command = [sys.executable, __file__, *words, "--one", kind]
    if kind == "trainer":
        command = [options.peer_python, os.path.join(os.path.dirname(__file__), "train_peer.py"), *words]
    threads = {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    return psutil.Popen(command, env={**os.environ, **threads}, stdout=sys.stderr)


def lacks(python: str) -> str:
    """What an interpreter misses for the Trainer; empty if nothing."""
    code = (
        "import importlib.util as u; print(*(n for n in ('torch','transformers','accelerate') if not u.find_spec(n)))"
    )
    return subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def worker_of(options: argparse.Namespace, kind: str, process: psutil.Popen) -> psutil.Process:
    """The process that computes: Ray's worker in the case of the stage."""
    marks = Path(options.out, MARKS)
    while kind == "stage" and not marks.exists():
        assert process.poll() is None, f"the stage ended with {process.returncode}"
        time.sleep(0.1)
    return psutil.Process(int(json.loads(marks.read_text("utf-8"))["pid"])) if kind == "stage" else process


def ray_seconds(running: Mapping[str, psutil.Popen], workers: Mapping[str, psutil.Process]) -> float:
    """Processor time so far of the driver and of Ray's processes, but not of the worker that trains."""
    if "stage" not in running:
        return 0.0
    total = 0.0
    for process in (running["stage"], *running["stage"].children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid != workers["stage"].pid:
                spent = process.cpu_times()
                total += spent.user + spent.system
    return total


def by_round(seconds: Sequence[float], options: Mapping[str, Any]) -> list[float]:
    """Median step of each round, without the first step of a turn."""
    warm_up, block = options["warm_up"], options["block"]
    return [
        statistics.median(seconds[start + 1 : start + block])
        for start in range(warm_up, len(seconds) - block + 1, block)
    ]


def as_markdown(figures: Mapping[str, Any]) -> str:
    """The tables."""
    options, found, tokens = figures["options"], figures["found"], figures["tokens_per_step"]
    about = figures["machine"]
    rounds = {kind: by_round(of["seconds"], options) for kind, of in found.items()}
    busy = {kind: by_round(of["processor_seconds"], options) for kind, of in found.items()}
    lines = [
        f"{about['cpu']}, {about['cores']} cores, {options['threads']} threads; {options['shape']}, {tokens:,} tokens "
        f"a step, {options['rounds']} rounds of {options['block']} steps",
        "",
        "| | tokens/s | step, s | over plain | processor time of a step, s | over plain | loss, at most apart |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in rounds:
        step, spent = statistics.median(rounds[kind]), statistics.median(busy[kind])
        losses = zip(found[kind]["losses"], found.get("plain", found[kind])["losses"], strict=True)
        apart = max(abs(own - plain) for own, plain in losses)
        lines.append(
            f"| {kind} | {tokens / step:,.0f} | {step:.3f} | {over_plain(rounds, kind):.3f} | {spent:.3f} | "
            f"{over_plain(busy, kind):.3f} | {apart:.1e} |"
        )
    if "stage" in found:
        lines += ["", *about_stage(found["stage"], figures["ray_cores"], options)]
    return "\n".join(lines)


def over_plain(rounds: Mapping[str, Sequence[float]], kind: str) -> float:
    """Median of the ratios of the same round."""
    pairs = zip(rounds[kind], rounds.get("plain", rounds[kind]), strict=True)
    return statistics.median(own / plain for own, plain in pairs)


def about_stage(stage: Mapping[str, Any], ray_cores: float, options: Mapping[str, Any]) -> list[str]:
    """Waiting, Ray's own work, and the start in its parts."""
    counted = [
        i for i in range(options["warm_up"], len(stage["seconds"])) if (i - options["warm_up"]) % options["block"]
    ]
    waited = sum(stage["data"][i] for i in counted) / sum(stage["seconds"][i] for i in counted)
    marks = stage["marks"]
    lines = [
        f"The stage waits for data in {waited:.2%} of its time. Ray and the driver take {ray_cores:.3f} of a core.",
        "",
        "| from the start of the driver to the end of the first step | s |",
        "|---|---|",
    ]
    last = marks["process"]
    for name, words in PARTS.items():
        lines.append(f"| {words} | {marks[name] - last:.1f} |")
        last = marks[name]
    return [*lines, f"| all | {last - marks['process']:.1f} |"]


if __name__ == "__main__":
    main()
