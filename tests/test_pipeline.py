"""The whole road in processes of its own: from WARC to model, on disk and on S3, killed, interrupted and resumed."""

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from caravela import manifest, storage
from tests.running import HANG_S, TINY, command, end, run, start, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(5 * HANG_S)]

STAGES = (
    "crawl", "curate", "signatures", "duplicates", "components", "members", "clusters", "dedup", "browse",
    "tokenizer", "tokenizer_report", "pack", "pretrain", "evaluate", "export", "report",
)  # fmt: skip


def data_shards(root: str) -> dict[str, str]:
    """Path → SHA-256 of every data file of the run, from the manifests."""
    found = {}
    for stage, directory in manifest.read_run_index(root).items():
        done = manifest.read(storage.join(root, directory))
        assert done is not None
        manifest.verify(done)
        if stage in STAGES[: STAGES.index("pretrain")]:
            found |= {f"{directory}/{f.path}": f.sha256 for shard in done.shards for f in shard.files}
    return found


def losses(root: str) -> dict[int, float]:
    """Step → training loss."""
    directory = storage.join(root, manifest.read_run_index(root)["pretrain"])
    lines = storage.read_text(storage.join(directory, "metrics.jsonl")).splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, lines) if "loss" in row}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The root of a run that nothing disturbed."""
    root = str(tmp_path_factory.mktemp("quiet") / "run")
    done = run(command("pipeline", f"root={root}", *TINY))
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.fixture
def start_up(tmp_path: Path) -> float:
    """Seconds that a job takes here to do nothing: its imports, the config, the plan."""
    clock = time.monotonic()
    assert run([*command("pipeline", f"root={tmp_path}/never", *TINY), "--dry-run"]).returncode == 0
    return time.monotonic() - clock


def test_pipeline_makes_every_stage_and_conserves_documents(quiet: str) -> None:
    index = manifest.read_run_index(quiet)
    assert set(index) == set(STAGES)
    curate = manifest.read(storage.join(quiet, index["curate"]))
    dedup = manifest.read(storage.join(quiet, index["dedup"]))
    assert curate is not None
    assert dedup is not None
    for done in (curate, dedup):
        assert done.counters["documents_in"] == done.rows("documents") + done.rows("removed")
    assert dedup.counters["documents_in"] == curate.rows("documents")
    assert curate.rows("documents") > 150


def test_pipeline_model_loads_in_transformers(quiet: str) -> None:
    folder = storage.join(quiet, manifest.read_run_index(quiet)["export"])
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    inputs = tokenizer("A praça", return_tensors="pt")
    assert model(**inputs).logits.shape[-1] == len(tokenizer) == 1024


def test_generate_continues_a_prompt_with_the_exported_model(quiet: str, tmp_path: Path) -> None:
    folder = storage.join(quiet, manifest.read_run_index(quiet)["export"])
    generate = [
        sys.executable,
        "jobs/generate.py",
        "--prompt",
        "A praça",
        "--max-new-tokens",
        "4",
        "--temperature",
        "0",
    ]
    done = run([*generate, "--model", folder])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("A praça")
    assert "no exported model here" in one_error_line(run([*generate, "--model", str(tmp_path)]))


def test_with_local_s3_gives_the_command_a_bucket_and_its_status() -> None:
    code = "import boto3; boto3.client('s3').put_object(Bucket='box', Key='k', Body=b'123'); raise SystemExit(7)"
    wrapped = [sys.executable, "jobs/with_local_s3.py", "--bucket", "box", "--", sys.executable, "-c", code]
    done = run(wrapped)
    assert done.returncode == 7, done.stderr
    assert "1 objects in s3://box" in done.stdout


def test_pipeline_again_does_nothing_and_is_quick(quiet: str, start_up: float) -> None:
    before = {str(p): p.stat().st_mtime_ns for p in Path(quiet).rglob("*") if p.is_file()}
    clock = time.monotonic()
    done = run(command("pipeline", f"root={quiet}", *TINY))
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - clock < 5 * start_up
    assert {str(p): p.stat().st_mtime_ns for p in Path(quiet).rglob("*") if p.is_file()} == before


def test_pipeline_killed_in_curation_dedup_and_training_ends_as_the_quiet_run(quiet: str, tmp_path: Path) -> None:
    root = tmp_path / "run"
    moments = {
        "curation": lambda: any(root.glob("curate/*/_records/*.json")),
        "deduplication": lambda: any(root.glob("signatures/*/_records/*.json")),
        "training": lambda: any(root.glob("pretrain/*/checkpoints/*/checkpoint.json")),
    }
    for moment, reached in moments.items():
        driver = start(command("pipeline", f"root={root}", *TINY))
        wait_until(reached, f"{moment} or its first record")
        assert driver.poll() is None, f"the run was over before it could be killed in {moment}: {driver.stdout}"
        end(driver, signal.SIGKILL)
        assert not any(root.glob("export/*/manifest.json"))
    done = run(command("pipeline", f"root={root}", *TINY))
    assert done.returncode == 0, done.stdout + done.stderr
    assert data_shards(str(root)) == data_shards(quiet)
    assert losses(str(root)) == losses(quiet)


def test_pipeline_interrupted_ends_within_seconds_and_resumes(quiet: str, tmp_path: Path, start_up: float) -> None:
    root = tmp_path / "run"
    driver = start(command("curate", f"root={root}", *TINY))
    sample = run(command("sample_crawl", f"root={root}", *TINY))
    driver.communicate(timeout=HANG_S)
    assert sample.returncode == 0, sample.stderr
    driver = start(command("curate", f"root={root}", *TINY))
    wait_until(lambda: any(root.glob("curate/*/_records/*.json")), "the first record")
    clock = time.monotonic()
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=HANG_S)
    assert time.monotonic() - clock < 10 * start_up
    assert driver.returncode in (0, 130), output
    assert run(command("curate", f"root={root}", *TINY)).returncode == 0
    mine, theirs = data_shards(str(root)), data_shards(quiet)
    assert mine == {path: theirs[path] for path in mine}


def test_pipeline_on_s3_gives_the_same_data_and_losses(quiet: str, s3_bucket: str) -> None:
    root = f"{s3_bucket}/road"
    done = run(command("pipeline", f"root={root}", *TINY))
    assert done.returncode == 0, done.stdout + done.stderr
    assert data_shards(root) == data_shards(quiet)
    assert losses(root) == losses(quiet)
    assert any(uri.endswith("checkpoint.json") for uri in storage.list_files(storage.join(root, "pretrain")))


def test_dry_run_prints_the_plan_and_touches_nothing(tmp_path: Path) -> None:
    root = tmp_path / "run"
    done = run([*command("pipeline", f"root={root}", *TINY), "--dry-run"])
    assert done.returncode == 0, done.stderr
    assert "vocabulary_size = 1024" in done.stdout
    assert "curate" in done.stdout
    assert "after crawl" in done.stdout
    assert not root.exists()


def one_error_line(done: object) -> str:
    output = done.stderr.strip().splitlines()  # type: ignore[attr-defined]
    assert done.returncode == 1, done.stdout + done.stderr  # type: ignore[attr-defined]
    errors = [line for line in output if line.startswith("error: ")]
    assert len(errors) == 1, output
    assert "Traceback" not in done.stderr  # type: ignore[attr-defined]
    return errors[0]


def test_fault_corrupt_warc_is_one_line_and_leaves_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "bad.warc.gz").write_bytes(b"\x1f\x8b\x08\x00" + b"damaged" * 50)
    inputs = f'curate.inputs=["{tmp_path}/bad.warc.gz"]'
    line = one_error_line(run(command("curate", f"root={tmp_path}/run", inputs, *TINY)))
    assert "bad.warc.gz" in line
    assert not list((tmp_path / "run").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["train.stepz=3"], ["train.stepz", "did you mean train.steps"]),
        (["train.steps=many"], ["train.steps", "'many'", "whole number"]),
        (['curate.inputs=["missing/*.warc.gz"]'], ["missing/*.warc.gz", "no such input"]),
        (["root=/proc/caravela"], ["/proc/caravela", "write"]),
    ],
)
def test_fault_in_the_settings_is_one_line(tmp_path: Path, settings: list[str], words: list[str]) -> None:
    line = one_error_line(run(command("pipeline", f"root={tmp_path}/run", *TINY, *settings)))
    for word in words:
        assert word in line


def test_fault_unreachable_endpoint_is_one_line(tmp_path: Path, start_up: float) -> None:
    environment = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    clock = time.monotonic()
    line = one_error_line(run(command("pipeline", "root=s3://bucket/run", *TINY), environment))
    assert "s3://bucket/run" in line
    assert time.monotonic() - clock < 45 + 5 * start_up  # the retries' pauses, and what is done between them


def test_lost_shard_is_found_by_verify(quiet: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(quiet, copy)
    done = manifest.read(storage.join(str(copy), manifest.read_run_index(str(copy))["dedup"]))
    assert done is not None
    Path(done.uris("documents")[0]).unlink()
    with pytest.raises(ValueError, match="missing"):
        manifest.verify(done)
