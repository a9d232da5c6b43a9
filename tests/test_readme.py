"""README and the jobs agree: every command it shows names files, targets and settings that exist."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

import train_classifier
import train_language_id
from caravela import config
from road import RoadConfig
from tests.running import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
# Jobs that are no stages of the road.
OWN_SETTINGS: dict[str, type[Any]] = {
    "train_classifier": train_classifier.ClassifierJob,
    "train_language_id": train_language_id.LanguageIdJob,
}
COMMANDS = [line.strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def test_readme_paths_exist() -> None:
    paths = set(re.findall(r"\b((?:jobs|tests|benchmarks|filters)/[\w./-]+\.\w+)", README))
    paths |= {f"jobs/{name}" for name in re.findall(r"^\| `(\w+\.py)`", README, re.MULTILINE)}
    assert len(paths) > 12
    assert [path for path in sorted(paths) if not (REPOSITORY / path).exists()] == []


def test_readme_make_targets_exist() -> None:
    targets = set(re.findall(r"^make ([\w-]+)", "\n".join(COMMANDS), re.MULTILINE))
    assert {"demo", "test", "demo-s3"} <= targets
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, check=True, capture_output=True)


def test_readme_settings_are_valid() -> None:
    checked = 0
    for command in COMMANDS:
        if not (found := re.search(r"--config (jobs/\S+\.toml)", command)):
            continue
        settings = re.findall(r"--set (?:'([^']+)'|\"([^\"]+)\"|(\S+))", command)
        kind = next((own for job, own in OWN_SETTINGS.items() if f"jobs/{job}.py" in command), RoadConfig)
        config.load(kind, str(REPOSITORY / found[1]), ["".join(s).replace('"$PWD', "").strip('"') for s in settings])
        checked += 1
    assert checked >= 4


@pytest.mark.parametrize("path", sorted((REPOSITORY / "jobs" / "configs").glob("*.toml")), ids=lambda path: path.name)
def test_shipped_configs_load(path: Path) -> None:
    assert config.load(RoadConfig, str(path)).train.steps > 0
