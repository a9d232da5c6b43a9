"""jobs/runtime_env.yaml: what a submitted job takes along is all the code that it needs and little else."""

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.runtime_env import RuntimeEnv

REPOSITORY = Path(__file__).parents[1]
MOST_BYTES = 8 << 20


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((REPOSITORY / "jobs/runtime_env.yaml").read_text("utf-8"))
    return read


@pytest.fixture(scope="module")
def unpacked(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory as a node unpacks it: packed by Ray itself, .gitignore left out of account."""
    folder = tmp_path_factory.mktemp("job")
    create_package(str(REPOSITORY), folder / "job.zip", include_gitignore=False, excludes=settings["excludes"])
    assert (folder / "job.zip").stat().st_size < MOST_BYTES
    with zipfile.ZipFile(folder / "job.zip") as package:
        package.extractall(folder / "code")
    return folder / "code"


def test_ray_accepts_it(settings: dict[str, Any]) -> None:
    RuntimeEnv(**settings)
    assert settings["working_dir"] == "."


def test_package_holds_code_and_nothing_that_was_made(unpacked: Path) -> None:
    expected = {"platform", "filters", "jobs"}
    assert expected <= set(os.listdir(unpacked))
    assert not {".git", ".venv", "runs", "dist", "tests", "benchmarks", ".ci"} & set(os.listdir(unpacked))
    assert [path for path in unpacked.rglob("*") if path.name.endswith(("_cache", "__pycache__", ".pyc"))] == []
    for folder in expected:
        sources = {path.relative_to(REPOSITORY) for path in (REPOSITORY / folder).rglob("*.py")}
        assert sources == {path.relative_to(unpacked) for path in (unpacked / folder).rglob("*.py")}


def test_driver_and_worker_find_both_packages_in_the_working_directory(
    unpacked: Path, settings: dict[str, Any]
) -> None:
    """Plain Python in that directory, without site-packages: only the package can answer."""
    code = "import caravela, filters; print(caravela.__file__, filters.__file__)"
    # A job's script stands in jobs/, which is then first on the path; Ray adds the working directory itself.
    environment = {**settings["env_vars"], "PATH": os.environ["PATH"]}
    environment["PYTHONPATH"] = f".{os.pathsep}{environment['PYTHONPATH']}"
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=unpacked, env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == [
        str(unpacked / "platform/caravela/__init__.py"),
        str(unpacked / "filters/__init__.py"),
    ]


def test_package_data_comes_along(unpacked: Path) -> None:
    sample = Path(importlib.import_module("caravela.sample").__file__ or "").parent
    data = {path.relative_to(sample) for path in sample.rglob("*") if path.suffix in (".txt", ".toml", ".html")}
    assert data
    missing = [path for path in data if not (unpacked / "platform/caravela/sample" / path).is_file()]
    assert missing == []
