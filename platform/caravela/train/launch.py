"""Stage ``pretrain``: starts the workers under Ray Train and sees them through.

In: the rows of one or more pack stages, and the tokenizer they were made with. Out: ``model.safetensors`` and
``model.json`` (model.weights), ``metrics.jsonl`` (train.loop).

Ray Train starts the workers, sets up their process group and starts them again when one is lost; what they resume
from is our own checkpoints' affair (train.checkpoint), so Ray Train is given a folder of no importance to keep its
books in, and nothing is reported to it. The same holds for a driver that was killed: run again, it finds the newest
complete checkpoint. The driver imports no torch before there is something to train.
"""

import dataclasses
import functools
import os
import secrets
import signal
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig

from caravela import cluster, manifest, storage
from caravela.config import build, to_dict
from caravela.data.sources import MixtureConfig, training_order
from caravela.data.tokenizer import tokenizer_sha256
from caravela.errors import UserError
from caravela.manifest import Input, ShardRecord
from caravela.model.config import ModelConfig
from caravela.progress import Poster, StageProgress
from caravela.stages import Shard, Stage, finished
from caravela.train import start
from caravela.train.config import RESULT_FREE, TrainConfig
from caravela.train.sinks import check_tensorboard

# Ray Train looks at its workers this often; with its default of 2 s every loss and every end costs a second more.
HEALTH_CHECK_INTERVAL_S = "0.5"
# Workers import torch and deepspeed before they are there: a minute, Ray Train's default, is short on a busy machine.
WORKER_GROUP_START_TIMEOUT_S = "300"
VERDICTS = "verdicts"


def pretrain_stage(
    root: str,
    config: TrainConfig,
    model: ModelConfig,
    packs: Sequence[Input],
    tokenizer: Input,
    mixture: MixtureConfig | None = None,
) -> Stage:
    """The stage. What does not change the model (workers, cadences ...) is not in its fingerprint.

    Args:
        root: of the run.
        config: settings of training.
        model: with ``vocabulary_size`` and ``max_positions`` filled from the tokenizer and the rows.
        packs: rows with the tables ``train`` and ``validation``, of each source of the mixture.
        tokenizer: that the rows were made with.
        mixture: what is drawn from which source; None for a single one.
    """
    mixture = mixture or MixtureConfig()
    settings = {name: value for name, value in to_dict(config).items() if name not in RESULT_FREE}
    if config.start_from:
        # By its content: the same weights elsewhere are the same run.
        config = dataclasses.replace(config, start_from=storage.absolute(config.start_from))
        settings["start_from"] = start.identity(config.start_from)
        start.check(model, config.start_from)
    return Stage(
        name="pretrain",
        version=2,
        root=root if storage.is_remote(root) else os.path.abspath(root),  # workers have another working directory
        config={"train": settings, "model": to_dict(model), "mixture": mixture_settings(mixture)},
        inputs=(*packs, tokenizer),
        plan=functools.partial(_plan, config, model, packs, tokenizer, mixture),
        make_worker=_no_map,
        execute=functools.partial(_execute, config=config, model=model, packs=packs, mixture=mixture),
        finish=lambda records, uri: dict(records[0].counters),
    )


def mixture_settings(mixture: MixtureConfig) -> Mapping[str, Any]:
    """The mixture without where its runs lie: what they hold is in the fingerprints of the inputs."""
    table = to_dict(mixture)
    return {**table, "sources": [{**source, "root": ""} for source in table["sources"]]}


def _plan(
    config: TrainConfig, model: ModelConfig, packs: Sequence[Input], tokenizer: Input, mixture: MixtureConfig
) -> Sequence[Shard]:
    """One shard, the model; refuses rows that the model or the tokenizer does not fit, and too few of them."""
    digest = tokenizer_sha256(finished(tokenizer))
    manifests = [finished(pack) for pack in packs]
    for found in manifests:
        for field, key in (("vocabulary_size", "vocabulary_size"), ("max_positions", "context")):
            if getattr(model, field) != found.summary[key]:
                raise UserError(
                    f"model.{field} = {getattr(model, field)}: expected {found.summary[key]}, "
                    f"as the packed rows in {found.uri} have it"
                )
        if (packed_with := found.summary.get("tokenizer_sha256")) != digest:
            raise UserError(
                f"{found.uri}: packed with another tokenizer (SHA-256 {packed_with}) than that of {tokenizer.uri} "
                f"({digest}); pack again with this one"
            )
    training_order(mixture, manifests, config)
    return [Shard(index=0, name="model", spec={})]


def _no_map() -> Any:
    raise AssertionError("pretraining is not a map over shards")


def _execute(
    stage: Stage,
    shards: Sequence[Shard],
    progress: StageProgress,
    *,
    config: TrainConfig,
    model: ModelConfig,
    packs: Sequence[Input],
    mixture: MixtureConfig,
) -> Iterable[ShardRecord]:
    """Trains in a group of workers; the record is written by rank 0 when the model is in place."""
    check_resources(config, progress)
    if config.tensorboard:
        check_tensorboard()
    launch = secrets.token_hex(4)
    verdict_uri = storage.join(stage.uri, VERDICTS, f"{launch}.txt")
    task = {
        "launch": launch,
        "stage_uri": stage.uri,
        "fingerprint": stage.fingerprint,
        "train": to_dict(config),
        "model": to_dict(model),
        "packs": [dataclasses.asdict(pack) for pack in packs],
        "mixture": to_dict(mixture),
        "verdict_uri": verdict_uri,
        "board": progress.board,
    }
    try:
        _fit(task, config)
    finally:
        mistake = _take(verdict_uri)
        if mistake:
            raise UserError(mistake)
    yield manifest.read_records(stage.uri)[0]


def worker_resources(config: TrainConfig) -> Mapping[str, int]:
    """What each worker asks of Ray."""
    return {"CPU": config.num_cpus_per_worker, **({"GPU": 1} if config.use_gpu else {})}


def check_resources(config: TrainConfig, progress: StageProgress) -> None:
    """Compares what the workers ask for with the nodes that are there.

    Raises:
        UserError: a Ray of our own on this machine can never start them. A standing cluster may still grow.
    """
    wanted = worker_resources(config)
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    labels = dict(config.rank0_labels)
    if not any(labels.items() <= node["Labels"].items() for node in alive) and not cluster.on_standing_cluster():
        raise UserError(f"train.rank0_labels = {labels}: no node has these labels")
    nodes = [node["Resources"] for node in alive]
    room = sum(min(int(node.get(kind, 0) // amount) for kind, amount in wanted.items()) for node in nodes)
    if room >= config.num_workers:
        return
    asked = " and ".join(f"{amount} {kind}" for kind, amount in wanted.items())
    message = (
        f"train.num_workers = {config.num_workers}: there is room for {room} workers with {asked} each "
        f"(train.num_cpus_per_worker, train.use_gpu) on {len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    )
    if not cluster.on_standing_cluster():
        raise UserError(message)
    progress.board.say.remote(f"{message}; waiting for the cluster to grow")


def _take(uri: str) -> str:
    """The text of an object that is then removed; empty if there is none."""
    try:
        text = storage.read_text(uri)
    except FileNotFoundError:
        return ""
    storage.delete_tree(uri)
    return text


def _fit(task: Mapping[str, Any], config: TrainConfig) -> None:
    # Imports torch, which a driver that finds everything done must not wait for.
    from ray.train.torch import TorchConfig, TorchTrainer

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", HEALTH_CHECK_INTERVAL_S)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", WORKER_GROUP_START_TIMEOUT_S)
    interrupt = signal.getsignal(signal.SIGINT)
    # Ray Train gives rank 0 to the node of the first worker.
    first = [dict(config.rank0_labels), *({} for _ in range(config.num_workers - 1))]
    with tempfile.TemporaryDirectory(prefix="caravela-ray-train-", ignore_cleanup_errors=True) as folder:
        trainer = TorchTrainer(
            _worker,
            train_loop_config=dict(task),
            torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.num_workers,
                use_gpu=config.use_gpu,
                resources_per_worker=dict(worker_resources(config)),
                label_selector=first if config.rank0_labels else None,  # type: ignore[call-arg]
            ),
            run_config=RunConfig(
                name="pretrain",
                storage_path=folder,
                failure_config=FailureConfig(max_failures=config.max_failures),
            ),
        )
        try:
            trainer.fit()
        except SystemExit:  # what Ray Train makes of Ctrl-C, once its workers are gone
            raise KeyboardInterrupt from None
        finally:
            signal.signal(signal.SIGINT, interrupt)


def _worker(task: Mapping[str, Any]) -> None:
    """Runs in every worker process.

    A mistake of the user is left as a verdict, so that workers that are started again after it end at once instead of
    meeting it anew.
    """
    if not task["train"]["use_gpu"]:
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is imported, which is why that comes after it
    from caravela.train import loop
    from caravela.train.faults import NonFiniteError

    if storage.exists(task["verdict_uri"]):
        return
    settings = loop.Task(
        stage_uri=task["stage_uri"],
        fingerprint=task["fingerprint"],
        train=build(TrainConfig, task["train"], "train"),
        model=build(ModelConfig, task["model"], "model"),
        packs=tuple(Input(**pack) for pack in task["packs"]),
        mixture=build(MixtureConfig, task["mixture"], "mixture"),
        launch=task["launch"],
    )
    try:
        loop.train(settings, Poster(task["board"], "training"))
    except NonFiniteError as error:  # on all workers alike: nobody is left waiting
        storage.write_text(task["verdict_uri"], str(error))
    except UserError as error:
        storage.write_text(task["verdict_uri"], str(error))
        raise
