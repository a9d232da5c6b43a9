"""cluster.yaml: Ray accepts it, EC2 launches it, its nodes hold what the jobs ask for and get dependencies only.

EC2 is moto's server with the real table of instance types; validation, resources and scheduling are Ray's own.
"""

import copy
import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest
from ray.core.generated.common_pb2 import LabelSelectorOperator

from caravela import config
from caravela.train.config import TrainConfig
from caravela.train.launch import worker_resources
from filters.language import MODELS, LanguageConfig, cache_folder
from road import RoadConfig, road

REPOSITORY = Path(__file__).parents[1]
CONFIGS = sorted(REPOSITORY.glob("jobs/configs/*.toml"))
ALL_SETUPS = ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
CPU_TYPES, GPU_TYPES = {"curation"}, {"training-rank0", "training"}
LANGUAGE_MODEL = MODELS[LanguageConfig().model].file_name
OF_THE_USER = {"~/.ray/auth_token", f"~/.cache/caravela/{LANGUAGE_MODEL}"}


def cluster() -> dict[str, Any]:
    written: dict[str, Any] = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text("utf-8"))
    return written


@pytest.fixture(scope="module")
def launched(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The config as ``ray up`` completes it: resources by instance type, key, network and security group."""
    for name in ("caravela-head", "caravela-worker"):
        boto3.client("iam").create_instance_profile(InstanceProfileName=name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", os.fspath(tmp_path_factory.mktemp("home")))  # where the key of a new cluster is put
        completed: dict[str, Any] = bootstrap_aws(
            AWSNodeProvider.fillout_available_node_types_resources(prepare_config(cluster()))
        )
    return completed


def test_ray_accepts_it() -> None:
    validate_config(prepare_config(cluster()))


@pytest.mark.parametrize(
    ("path", "value"),
    [("idle_timeout_minute", 5), ("available_node_types.training.max_worker", 3), ("max_workers", "many")],
)
def test_ray_refuses_a_mistake_in_it(path: str, value: Any) -> None:
    """The test above would see one."""
    broken = cluster()
    *parents, last = path.split(".")
    section = broken
    for name in parents:
        section = section[name]
    section[last] = value
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(broken))


@pytest.mark.slow
def test_ec2_launches_every_node_type_as_meant(launched: dict[str, Any]) -> None:
    provider = AWSNodeProvider(launched["provider"], launched["cluster_name"])
    market, profiles = {}, {}
    for name, kind in launched["available_node_types"].items():
        tags = {"ray-node-type": "worker", "ray-user-node-type": name}
        made = provider.create_node_with_resources_and_labels(
            kind["node_config"], tags, 1, kind["resources"], kind["labels"]
        )
        found = boto3.client("ec2").describe_instances(InstanceIds=list(made))["Reservations"][0]["Instances"][0]
        market[name] = found.get("InstanceLifecycle", "on-demand")
        profiles[name] = found["IamInstanceProfile"]["Arn"].rsplit("/", 1)[-1]
        assert kind["labels"]["market"] == market[name]
    assert market == {"head": "on-demand", "curation": "spot", "training-rank0": "on-demand", "training": "spot"}
    assert profiles == {"head": "caravela-head", **dict.fromkeys(CPU_TYPES | GPU_TYPES, "caravela-worker")}


def test_no_key_is_written_down() -> None:
    text = (REPOSITORY / "cluster.yaml").read_text("utf-8")
    assert not re.search(r"AKIA|ASIA|aws_secret|aws_access|RAY_AUTH_TOKEN=", text, re.IGNORECASE)


def test_groups_start_at_none_and_fit_under_the_limit() -> None:
    kinds = cluster()["available_node_types"]
    workers = {name: kind for name, kind in kinds.items() if name != cluster()["head_node_type"]}
    assert set(workers) == CPU_TYPES | GPU_TYPES
    assert all(kind["min_workers"] == 0 for kind in workers.values())
    assert cluster()["max_workers"] >= sum(kind["max_workers"] for kind in workers.values())
    assert kinds["training-rank0"]["max_workers"] == 1
    assert 0 < cluster()["idle_timeout_minutes"] <= 15


def nodes_for(launched: Mapping[str, Any], bundles: Sequence[Mapping[str, float]], rank0: str = "") -> Counter[str]:
    """What Ray's autoscaler would start for bundles that are asked for together; ``rank0``: market of the first one."""
    requests = [ResourceRequestUtil.make(dict(bundle)) for bundle in bundles]
    if rank0:
        selector = [("market", LabelSelectorOperator.LABEL_OPERATOR_IN, [rank0])]
        requests[0] = ResourceRequestUtil.make(dict(bundles[0]), label_selectors=[selector])
    plan = AutoscalingConfig(copy.deepcopy(dict(launched)), skip_content_hash=True)
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=plan.get_node_type_configs(),
            max_num_nodes=plan.get_max_num_nodes(),
            gang_resource_requests=[GangResourceRequest(requests=requests)],
        )
    )
    assert not reply.infeasible_gang_resource_requests, f"no node for {bundles}"
    return Counter({launch.instance_type: launch.count for launch in reply.to_launch})


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_request_of_the_jobs_fits_a_node(launched: dict[str, Any], path: Path) -> None:
    settings = config.load(RoadConfig, str(path), ["root=runs/none", "crawl.enabled=true", "curate.inputs=[]"])
    for name, stage in road(settings).items():
        if stage.in_driver:
            continue
        if name != "pretrain":
            asked = {"CPU": stage.num_cpus, **({"memory": stage.memory_bytes} if stage.memory_bytes else {})}
            nodes = nodes_for(launched, [asked])
        else:
            nodes = nodes_for(launched, [worker_resources(settings.train)] * settings.train.num_workers)
        allowed = GPU_TYPES if name == "pretrain" and settings.train.use_gpu else CPU_TYPES
        assert nodes, name
        assert set(nodes) <= allowed, f"{path.name}: {name} would start {dict(nodes)}"


@pytest.mark.slow
@pytest.mark.parametrize("rank0", ["", "on-demand"])
def test_training_on_all_gpus_fills_the_group_and_the_node_of_rank_0(launched: dict[str, Any], rank0: str) -> None:
    train = TrainConfig(steps=1, batch_rows=32, learning_rate=1.0, use_gpu=True, num_workers=32, num_cpus_per_worker=16)
    bundles = [worker_resources(train)] * train.num_workers
    assert nodes_for(launched, bundles, rank0) == {"training-rank0": 1, "training": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank0", "node"), [("", "training-rank0"), ("on-demand", "training-rank0"), ("spot", "training")]
)
def test_training_on_one_gpu_comes_to_the_node_of_rank_0_unless_told_otherwise(
    launched: dict[str, Any], rank0: str, node: str
) -> None:
    assert nodes_for(launched, [{"CPU": 4, "GPU": 1}], rank0) == {node: 1}


@pytest.mark.slow
def test_curation_of_many_shards_uses_the_whole_group_and_nothing_else(launched: dict[str, Any]) -> None:
    kind = launched["available_node_types"]["curation"]
    cores = kind["resources"]["CPU"] * kind["max_workers"]
    assert nodes_for(launched, [{"CPU": 1}] * int(cores)) == {"curation": kind["max_workers"]}


@pytest.mark.slow
@pytest.mark.parametrize("asked", [{"CPU": 500}, {"CPU": 1, "GPU": 9}, {"CPU": 1, "memory": 1 << 42}])
def test_request_that_fits_no_node_is_seen(launched: dict[str, Any], asked: dict[str, float]) -> None:
    """The tests above would see one."""
    with pytest.raises(AssertionError, match="no node for"):
        nodes_for(launched, [asked])


@pytest.mark.slow
def test_object_store_fits_shared_memory_and_leaves_what_workers_may_ask_for(launched: dict[str, Any]) -> None:
    types = {name: kind["node_config"]["InstanceType"] for name, kind in launched["available_node_types"].items()}
    described = boto3.client("ec2").describe_instance_types(InstanceTypes=sorted(set(types.values())))["InstanceTypes"]
    memory = {entry["InstanceType"]: entry["MemoryInfo"]["SizeInMiB"] << 20 for entry in described}
    for name, kind in launched["available_node_types"].items():
        commands = " ; ".join(launched[f"{'head' if name == 'head' else 'worker'}_start_ray_commands"])
        share, store = re.search(r"size=(\d+)% /dev/shm", commands), re.search(r"object-store-memory=(\d+)", commands)
        assert share, name
        assert store, name
        assert int(store[1]) <= memory[types[name]] * int(share[1]) / 100
        assert int(store[1]) + kind["resources"].get("memory", 0) <= memory[types[name]]


def installs_the_project(commands: Sequence[str]) -> list[str]:
    """The commands that would put this repository, and not only what it depends on, on a node."""
    found = []
    for command in commands:
        words = shlex.split(command)
        installs = "install" in words
        local = any(word.startswith((".", "/", "git+", "caravela")) or word in ("-e", "--editable") for word in words)
        if (installs and local) or re.search(r"\bgit clone\b|rsync|setup\.py", command):
            found.append(command)
    return found


def all_commands(written: Mapping[str, Any]) -> list[str]:
    sections = [written, *written["available_node_types"].values()]
    return [command for section in sections for name in ALL_SETUPS for command in section.get(name, [])]


def test_setup_commands_install_dependencies_only() -> None:
    commands = all_commands(prepare_config(cluster()))
    assert any("install" in command for command in commands)
    assert installs_the_project(commands) == []


@pytest.mark.parametrize(
    "command",
    [
        "pip install -e .",
        "pip install .",
        "uv pip install --python ~/venv '.[train]'",
        "pip install caravela==0.1.0",
        "pip install /home/ubuntu/caravela",
        "pip install git+https://github.com/x/caravela",
        "git clone https://github.com/x/caravela",
    ],
)
def test_setup_command_that_installs_the_project_is_seen(command: str) -> None:
    assert installs_the_project(["pip install -r ~/requirements.lock", command]) == [command]


def test_lock_holds_what_nodes_need_and_not_the_project() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {"ray", "torch", "deepspeed", "boto3", "s3fs", "sentencepiece"} <= set(pins)  # boto3: the autoscaler's
    assert "caravela" not in pins


def test_every_file_that_goes_to_the_nodes_is_there_or_is_the_users_own() -> None:
    mounts = cluster()["file_mounts"]
    ours = {path for path in mounts.values() if path not in OF_THE_USER}
    assert set(mounts.values()) > OF_THE_USER
    assert [path for path in ours if not (REPOSITORY / path).is_file()] == []
    for command in cluster()["setup_commands"]:
        for needed in re.findall(r"-r ~/(\S+)", command):
            assert f"/home/ubuntu/{needed}" in mounts


def test_language_model_lies_on_nodes_where_the_jobs_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CARAVELA_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/ubuntu")
    assert os.path.join(cache_folder(), LANGUAGE_MODEL) in cluster()["file_mounts"]


def test_environment_of_nodes_is_set_once_and_holds_token_mode_and_path(tmp_path: Path) -> None:
    """The command that writes it, run twice as ``ray up`` would, and a shell as Ray opens it afterwards."""
    command = next(command for command in cluster()["setup_commands"] if ".bashrc" in command)
    (tmp_path / ".bashrc").write_text("case $- in *i*) ;; *) return;; esac\n", "utf-8")  # as on Ubuntu
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for _ in range(2):
        subprocess.run(["bash", "-c", command], env=environment, check=True)
    assert (tmp_path / ".bashrc").read_text("utf-8").count("PYTHONPATH") == 1
    shell = ["bash", "--login", "-c", "-i", "source ~/.bashrc; env"]
    shown = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"PYTHONPATH=platform", "RAY_AUTH_MODE=token"} <= set(shown)
    assert f"PATH={tmp_path}/venv/bin:" in "\n".join(shown)


def test_every_start_command_is_valid_shell() -> None:
    written = prepare_config(cluster())
    for command in [*all_commands(written), *written["head_start_ray_commands"], *written["worker_start_ray_commands"]]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
