"""MinHash deduplication of other tools, in virtual environments of their own: what they take, from Parquet to files.

``python -m venv V && V/bin/pip install text-dedup``; ``W/bin/pip install py-data-juicer "ray[default]"``

Set as ours: 14 bands of 8, 5 words, one process. Both write what they keep in their own way: text-dedup as an Arrow
data set, Data-Juicer as JSONL.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

PACKAGES = {"text-dedup": "text_dedup", "py-data-juicer": "data_juicer"}
INTERVAL = 0.1
TIMEOUT = 1500
_VERSIONS = """
import importlib.metadata, json
found = {}
for name in %r:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def peers_of(python: str) -> Mapping[str, str]:
    """Name and version of the peers that a Python has."""
    asked = subprocess.run([python, "-c", _VERSIONS % list(PACKAGES)], capture_output=True, text=True, check=True)
    found: Mapping[str, str] = json.loads(asked.stdout)
    return found


def run_peer(name: str, python: str, path: str, out: str) -> tuple[tuple[float, float] | str, int]:
    """Seconds of processor time and on the clock, or the error; and how many documents are kept, if it says so."""
    os.makedirs(out, exist_ok=True)
    command = _COMMANDS[name](python, path, out)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "RAY_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{out}/cache", "OMP_NUM_THREADS": "1"}
    # Data-Juicer's actors take two of Ray's CPUs; on two cores none is left for its map, which then waits for ever.
    # These are logical: what is measured is processor time.
    environment["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": 8})
    log = Path(f"{out}/log.txt")
    with log.open("w") as file:
        clock = time.perf_counter()
        process = psutil.Popen(command, cwd=out, stdout=file, stderr=subprocess.STDOUT, env=environment)
        seconds = _processor_time(process)
        clock = time.perf_counter() - clock
    if process.returncode != 0:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return f"ended with {process.returncode}: {said[-1][:200] if said else ''}", 0
    return (seconds, clock), _KEPT[name](out)


def _processor_time(process: psutil.Popen) -> float:
    """Of a process and all that it started, until it ends."""
    taken: dict[int, float] = {}
    end = time.monotonic() + TIMEOUT
    while process.poll() is None:
        if time.monotonic() > end:
            process.kill()
        for each in _family(process):
            try:
                times = each.cpu_times()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            taken[each.pid] = times.user + times.system
        time.sleep(INTERVAL)
    return sum(taken.values())


def _family(process: psutil.Popen) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _text_dedup(python: str, path: str, out: str) -> list[str]:
    options = {
        "path": "parquet", "data_files": path, "split": "train", "cache_dir": f"{out}/cache", "output": f"{out}/kept",
        "column": "text", "num_perm": "112", "b": "14", "r": "8", "ngram": "5", "threshold": "0.72", "num_proc": "1",
        "hash_func": "xxh3",
    }  # fmt: skip
    return [python, "-m", "text_dedup.minhash", *(x for k, v in options.items() for x in (f"--{k}", v))]


def _data_juicer(python: str, path: str, out: str) -> list[str]:
    config = {
        "project_name": "dedup", "executor_type": "ray", "ray_address": "local", "dataset_path": path,
        "export_path": f"{out}/kept", "work_dir": f"{out}/work", "np": 1, "process": [
            {"ray_bts_minhash_deduplicator": {
                "tokenization": "space", "window_size": 5, "lowercase": True, "num_permutations": 112, "num_bands": 14,
                "num_rows_per_band": 8, "jaccard_threshold": 0.72, "union_find_parallel_num": 1,
                "work_dir": f"{out}/work",
            }}],
    }  # fmt: skip
    Path(f"{out}/config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    return [f"{Path(python).parent}/dj-process", "--config", f"{out}/config.yaml"]


def _kept_by_text_dedup(out: str) -> int:
    said = re.search(r"After\s+:[^\n]*\n\s+(\d+)", Path(f"{out}/log.txt").read_text(errors="replace"))
    return int(said[1]) if said else 0


def _kept_by_data_juicer(out: str) -> int:
    return sum(len(p.read_bytes().splitlines()) for p in Path(f"{out}/kept").rglob("*.json*"))


_COMMANDS = {"text-dedup": _text_dedup, "py-data-juicer": _data_juicer}
_KEPT = {"text-dedup": _kept_by_text_dedup, "py-data-juicer": _kept_by_data_juicer}
