"""The shape of the repository, as rules that a test keeps: the tables come first, then the checks, then the tests.

A check takes a root and returns complaints. Each is run on this repository, and on a small clean tree in which one
violation was planted, so that a check that sees nothing is noticed.
"""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]

# Inside caravela: a module imports from its own entry and from those above it. `command` stands at the end because jobs
# alone are to use it; entries of one line are neighbours that do not know one another.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("web",),
    ("hub",),
    ("storage", "schema"),
    ("config", "outage"),
    ("manifest",),
    ("ray_start",),
    ("cluster", "progress"),
    ("stages",),
    ("data", "sample"),
    ("model",),
    ("train",),
    ("reporting",),
    ("evaluate", "export", "report"),
    ("command",),
)
# Across packages: who may import whom. Tests and benchmarks see everything, and nobody sees them.
PACKAGES = {"caravela": {"caravela"}, "filters": {"caravela", "filters"}, "jobs": {"caravela", "filters", "jobs"}}
# Where a library may be imported; a folder ends with a slash. torch is the extra [train]: a node that curates can live
# without it. S3 has one client in the project; jobs/with_local_s3.py starts a server and makes a bucket in it.
FENCES: dict[str, tuple[str, ...]] = {
    "deepspeed": ("caravela/train/engine.py",),
    "torch": ("caravela/model/", "caravela/train/"),
    "safetensors": ("caravela/model/", "caravela/train/"),
    "transformers": ("caravela/model/hugging_face.py", "jobs/generate.py"),
    "tokenizers": ("caravela/model/hugging_face.py", "caravela/data/peer_tokenizers.py"),
    "ray": (
        "caravela/cluster.py",
        "caravela/ray_start.py",
        "caravela/command.py",
        "caravela/progress.py",
        "caravela/stages.py",
        "caravela/train/launch.py",
        "caravela/train/sinks.py",
    ),
    "fsspec": ("caravela/storage.py",),
    "s3fs": ("caravela/storage.py",),
    "aiobotocore": ("caravela/storage.py",),
    "botocore": ("caravela/storage.py", "jobs/with_local_s3.py"),
    "boto3": ("jobs/with_local_s3.py",),
    "pyarrow.fs": ("caravela/storage.py",),
    "requests": ("caravela/web.py",),
    "urllib3": ("caravela/web.py",),
    "huggingface_hub": ("caravela/hub.py",),
}
# What a driver must not load before there is work for it, and the jobs that are free of this.
HEAVY = ("torch", "deepspeed", "transformers")
FREE_TO_LOAD = ("jobs/generate.py",)
# Nowhere, tests included.
FORBIDDEN = ("unittest.mock", "mock", "pytest_mock")
SOURCES = ("platform/caravela", "filters", "jobs", "benchmarks", "tests")
NO_JOBS = ("road.py", "forecast.py")
# May catch everything: runs what others wrote, and whatever that raises is one document's affair.
STRANGERS_CODE = ("filters/datatrove_blocks.py",)
MAX_LINES, MAX_JOB_LINES, LINES_WITHOUT_DOCSTRING = 500, 80, 30
VAGUE = {"utils", "util", "common", "helper", "helpers", "misc", "manager", "stuff"}
TEXTS = (".py", ".toml", ".yaml", ".yml", ".md", ".cfg", ".sh", ".html", ".css", ".lock", "")
# With a mark inside, so that this file does not hold them itself.
NOT_IN_TEXTS = tuple(word.replace("|", "") for word in ("/wo|rk/", "../sha|red", "TO|DO", "FIX|ME"))


class Import(NamedTuple):
    """One imported name: ``from a.b import c`` is ``a.b`` and, as c may be a module, ``a.b.c``."""

    names: tuple[str, ...]
    line: int
    eager: bool
    """Whether it runs when the module is loaded."""


def python_files(root: Path, folders: tuple[str, ...] = SOURCES) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def short(root: Path, path: Path) -> str:
    """``platform/caravela/x.py`` is ``caravela/x.py``, as it is imported."""
    return path.relative_to(root).as_posix().removeprefix("platform/")


def module_name(root: Path, path: Path) -> str:
    parts = list(Path(short(root, path)).with_suffix("").parts)
    if parts[0] in ("jobs", "benchmarks"):  # run as scripts: their folder is on the path
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root: Path, path: Path) -> Iterator[Import]:
    """Every import of a file, wherever it stands, and ``importlib.import_module`` of a literal."""
    tree = ast.parse(path.read_text("utf-8"))
    package = module_name(root, path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    lazy = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _only_for_types(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import((alias.name,), node.lineno, node not in lazy)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import((source, f"{source}.{alias.name}"), node.lineno, node not in lazy)
        elif isinstance(node, ast.Call) and (name := _named_by_call(node)) is not None:
            yield Import((name,), node.lineno, node not in lazy)


def _named_by_call(call: ast.Call) -> str | None:
    """What ``importlib.import_module("x")`` and ``__import__("x")`` import."""
    first = call.args[0] if call.args else None
    imports_it = ast.unparse(call.func) in ("importlib.import_module", "__import__")
    return first.value if imports_it and isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def package_of(root: Path, name: str) -> str | None:
    """Which of our packages an imported name belongs to; the modules in jobs/ have bare names."""
    head = name.split(".")[0]
    if head in ("caravela", "filters", "tests", "benchmarks"):
        return head
    return "jobs" if (root / "jobs" / f"{head}.py").is_file() or head == "jobs" else None


def wrong_directions(root: Path) -> list[str]:
    """Imports against the order of packages, or against the layers of caravela."""
    place = {unit: level for level, units in enumerate(LAYERS) for unit in units}
    complaints = []
    for path in python_files(root, ("platform/caravela", "filters", "jobs")):
        own = short(root, path).split("/")
        unit = Path(own[1]).stem if own[0] == "caravela" else ""
        if own[0] == "caravela" and unit not in place and unit != "__init__":
            complaints.append(f"{short(root, path)}: has no place in LAYERS")
            continue
        for found in imports(root, path):
            for name in found.names:
                where = f"{short(root, path)}:{found.line}"
                package = package_of(root, name)
                if package is not None and package not in PACKAGES[own[0]]:
                    complaints.append(f"{where}: {own[0]} imports {name}")
                other = name.split(".")[1] if is_in(name, "caravela") and "." in name else ""
                if own[0] == "caravela" and other in place and other != unit and place[other] >= place.get(unit, -1):
                    complaints.append(f"{where}: {unit} imports {name}, which is not below it")
    return complaints


def broken_fences(root: Path) -> list[str]:
    """Libraries imported where they must not be."""
    complaints = []
    for path in python_files(root):
        own = short(root, path)
        for found in imports(root, path):
            for library in FORBIDDEN:
                if any(is_in(name, library) for name in found.names):
                    complaints.append(f"{own}:{found.line}: {library} is not used here")
            for library, places in FENCES.items() if not own.startswith(("tests/", "benchmarks/")) else ():
                if any(is_in(name, library) for name in found.names) and not any(
                    own.startswith(place) if place.endswith("/") else own == place for place in places
                ):
                    complaints.append(f"{own}:{found.line}: {library} belongs in {', '.join(places)}")
    return sorted(set(complaints))


def heavy_starts(root: Path) -> list[str]:
    """Jobs that load a heavy library merely by being started, with the chain of modules that does it."""
    files = {module_name(root, path): path for path in python_files(root, ("platform/caravela", "filters", "jobs"))}
    eager = {
        module: [name for found in imports(root, path) if found.eager for name in found.names]
        for module, path in files.items()
    }
    complaints = []
    for job in sorted((root / "jobs").glob("*.py")):
        chains = {job.stem: [job.stem]}
        waiting = [] if short(root, job) in FREE_TO_LOAD else [job.stem]
        while waiting:
            module = waiting.pop()
            for name in eager[module]:
                if any(is_in(name, library) for library in HEAVY):
                    complaints.append(f"jobs/{job.name}: loads {name} by {' -> '.join(chains[module])}")
                parents = [name.rsplit(".", cut)[0] for cut in range(name.count(".") + 1)]
                for ours in (parent for parent in parents if parent in eager and parent not in chains):
                    chains[ours] = [*chains[module], ours]
                    waiting.append(ours)
    return complaints


def shadowed_names(root: Path) -> list[str]:
    """Modules that Python would find in place of the standard library's or a dependency's.

    A job's own folder is first on its path, and the root is in a submitted job; so are benchmarks/ and platform/.
    """
    installed = {name for name, owners in importlib.metadata.packages_distributions().items() if owners != ["caravela"]}
    complaints = []
    for folder in ("jobs", "benchmarks", "platform", ""):
        for path in sorted((root / folder).iterdir()) if (root / folder).is_dir() else ():
            loads = path.suffix == ".py" or (path / "__init__.py").is_file()
            if not loads or path.stem in ("platform", "tests"):
                continue
            for owner, names in (("the standard library", sys.stdlib_module_names), ("a dependency", installed)):
                if path.stem in names:
                    complaints.append(f"{path.relative_to(root)}: has the name of a module of {owner}")
    return complaints


def platform_complaints(root: Path) -> list[str]:
    """Whether ``import platform`` is the standard library's with the root first on the path, and holds one package."""
    complaints = []
    if (root / "platform" / "__init__.py").exists():
        complaints.append("platform/__init__.py: makes platform/ a package, which hides the standard library's module")
    if others := sorted(set(os.listdir(root / "platform")) - {"caravela", "__pycache__"}):
        complaints.append(f"platform/: holds {', '.join(others)} beside caravela")
    code = "import sys; sys.path.insert(0, ''); import platform, uuid; print(platform.__file__); platform.system()"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.startswith(sysconfig.get_path("stdlib")):
        complaints.append(f"import platform, from the root: {done.stdout}{done.stderr.strip().splitlines()[-1:]}")
    return complaints


def misshapen_modules(root: Path) -> list[str]:
    """Files that are too long, say nothing of what they are for, or have a name that says nothing."""
    complaints = []
    for path in python_files(root):
        text = path.read_text("utf-8")
        lines = text.count("\n")
        if lines > MAX_LINES:
            complaints.append(f"{short(root, path)}: {lines} lines, over {MAX_LINES}")
        if lines > LINES_WITHOUT_DOCSTRING and not ast.get_docstring(ast.parse(text)):
            complaints.append(f"{short(root, path)}: {lines} lines without a docstring")
        if VAGUE & {path.stem, path.parent.name}:
            complaints.append(f"{short(root, path)}: a name that does not say what is in it")
    return complaints


def misshapen_jobs(root: Path) -> list[str]:
    """Jobs that are too long, or cannot be started both from the command line and from a test."""
    complaints = []
    for path in sorted((root / "jobs").glob("*.py")):
        text = path.read_text("utf-8")
        if text.count("\n") >= MAX_JOB_LINES:
            complaints.append(f"jobs/{path.name}: {text.count(chr(10))} lines, not under {MAX_JOB_LINES}")
        functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        arguments = [argument.arg for argument in functions["main"].args.args] if "main" in functions else []
        if path.name not in NO_JOBS and (arguments != ["argv"] or 'if __name__ == "__main__":' not in text):
            complaints.append(f"jobs/{path.name}: has no main(argv) that is called when the job is run")
    return complaints


def swallowed_errors(root: Path) -> list[str]:
    """Handlers of every exception that do not raise it again."""
    complaints = []
    for path in python_files(root):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler) and short(root, path) not in STRANGERS_CODE:
                broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
                if broad and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                    complaints.append(f"{short(root, path)}:{node.lineno}: catches everything")
    return complaints


def texts_out_of_place(root: Path) -> list[str]:
    """Texts that name a place outside of the repository, or work that is left undone."""
    complaints = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not re.match(r"\.(?!ci$)|runs$|dist$|__pycache__$", name)]
        for path in (Path(folder, name) for name in names):
            if path.suffix in TEXTS and path.name != ".git":
                text = path.read_text("utf-8")
                complaints += [f"{path.relative_to(root)}: holds {word}" for word in NOT_IN_TEXTS if word in text]
    return complaints


CHECKS: tuple[Callable[[Path], list[str]], ...] = (
    wrong_directions,
    broken_fences,
    heavy_starts,
    shadowed_names,
    platform_complaints,
    misshapen_modules,
    misshapen_jobs,
    swallowed_errors,
    texts_out_of_place,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_repository_keeps_the_rule(check: Callable[[Path], list[str]]) -> None:
    assert check(REPOSITORY) == []


CLEAN = {
    "platform/caravela/__init__.py": '"""The package."""\n\n__version__ = "1"\n',
    "platform/caravela/errors.py": "class UserError(ValueError): ...\n",
    "platform/caravela/storage.py": "import fsspec\nfrom caravela.errors import UserError\n",
    "platform/caravela/config.py": "from caravela import __version__, storage\n",
    "platform/caravela/stages.py": "import ray\nfrom caravela.config import load\n",
    "platform/caravela/data/__init__.py": "",
    "platform/caravela/data/warc.py": "from . import charset\n",
    "platform/caravela/data/charset.py": "import codecs\n",
    "platform/caravela/model/__init__.py": "",
    "platform/caravela/model/transformer.py": "import torch\n",
    "platform/caravela/evaluate.py": "def f():\n    from caravela.model import transformer\n",
    "filters/__init__.py": "",
    "filters/curate.py": "from caravela.data import warc\n",
    "jobs/road.py": "from caravela.evaluate import f\nfrom filters import curate\n",
    "jobs/curate.py": (
        "import sys\nfrom road import f\n\ndef main(argv=None):\n    return 0\n\n"
        'if __name__ == "__main__":\n    sys.exit(main())\n'
    ),
    "benchmarks/speed.py": "import torch\n",
    "tests/test_curate.py": "import boto3\n",
    "README.md": "# A clean tree\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in CLEAN.items():
        plant(tmp_path, name, text)
    return tmp_path


def plant(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, "utf-8")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_clean_tree_gives_no_complaint(tree: Path, check: Callable[[Path], list[str]]) -> None:
    assert check(tree) == []


LONG = "x = 1\n" * 31
VIOLATIONS = [
    (
        wrong_directions,
        "platform/caravela/storage.py",
        "from caravela import config\n",
        "storage imports caravela.config",
    ),
    (wrong_directions, "platform/caravela/storage.py", "from caravela.config import load\n", "which is not below it"),
    (wrong_directions, "platform/caravela/storage.py", "import caravela.stages\n", "storage imports caravela.stages"),
    (wrong_directions, "platform/caravela/storage.py", "import caravela.schema\n", "storage imports caravela.schema"),
    (
        wrong_directions,
        "platform/caravela/storage.py",
        "def f():\n    from . import stages\n",
        "imports caravela.stages",
    ),
    (wrong_directions, "platform/caravela/data/warc.py", "from ..model import x\n", "data imports caravela.model"),
    (wrong_directions, "platform/caravela/stages.py", "from filters import curate\n", "caravela imports filters"),
    (wrong_directions, "platform/caravela/stages.py", "import road\n", "caravela imports road"),
    (wrong_directions, "platform/caravela/novelty.py", "", "has no place in LAYERS"),
    (wrong_directions, "filters/language.py", "from road import f\n", "filters imports road"),
    (wrong_directions, "filters/language.py", "from tests import x\n", "filters imports tests"),
    (wrong_directions, "jobs/pack.py", "import benchmarks.speed\n", "jobs imports benchmarks.speed"),
    (broken_fences, "platform/caravela/data/warc.py", "def f():\n    import torch.nn\n", "torch belongs in"),
    (broken_fences, "platform/caravela/model/loss.py", "from deepspeed import x\n", "deepspeed belongs in"),
    (broken_fences, "filters/language.py", "from pyarrow import fs\n", "pyarrow.fs belongs in"),
    (broken_fences, "filters/language.py", "import pyarrow.fs as p\n", "pyarrow.fs belongs in"),
    (broken_fences, "jobs/pack.py", "import importlib\nimportlib.import_module('s3fs.core')\n", "s3fs belongs in"),
    (broken_fences, "platform/caravela/data/loader.py", "from ray import train\n", "ray belongs in"),
    (broken_fences, "tests/test_pack.py", "from unittest import mock\n", "unittest.mock is not used here"),
    (
        heavy_starts,
        "platform/caravela/evaluate.py",
        "from caravela.model import transformer\n",
        "jobs/curate.py: loads torch",
    ),
    (heavy_starts, "jobs/pack.py", "import torch\n", "jobs/pack.py: loads torch by pack"),
    (heavy_starts, "filters/__init__.py", "import deepspeed\n", "loads deepspeed by curate -> road -> filters"),
    (shadowed_names, "jobs/tokenize.py", "", "jobs/tokenize.py: has the name of a module of the standard library"),
    (shadowed_names, "jobs/datatrove.py", "", "jobs/datatrove.py: has the name of a module of a dependency"),
    (shadowed_names, "benchmarks/profile.py", "", "benchmarks/profile.py"),
    (shadowed_names, "statistics/__init__.py", "", "statistics"),
    (platform_complaints, "platform/__init__.py", "", "platform/__init__.py"),
    (platform_complaints, "platform/other/x.py", "", "holds other beside caravela"),
    (platform_complaints, "platform.py", "", "import platform, from the root"),
    (misshapen_modules, "filters/long.py", '"""Long."""\n' + "x = 1\n" * MAX_LINES, "501 lines"),
    (misshapen_modules, "filters/silent.py", LONG, "31 lines without a docstring"),
    (misshapen_modules, "tests/test_silent.py", LONG, "31 lines without a docstring"),
    (misshapen_modules, "filters/utils.py", "", "a name that does not say"),
    (misshapen_modules, "filters/common/words.py", "", "a name that does not say"),
    (misshapen_jobs, "jobs/pack.py", CLEAN["jobs/curate.py"] + "x = 1\n" * MAX_JOB_LINES, "not under 80"),
    (misshapen_jobs, "jobs/pack.py", CLEAN["jobs/curate.py"].replace("argv=None", ""), "has no main(argv)"),
    (misshapen_jobs, "jobs/pack.py", "def main(argv):\n    return 0\n", "has no main(argv)"),
    (
        swallowed_errors,
        "filters/x.py",
        "try:\n    f()\nexcept Exception:\n    pass\n",
        "filters/x.py:3: catches everything",
    ),
    (swallowed_errors, "filters/x.py", "try:\n    f()\nexcept:\n    pass\n", "filters/x.py:3: catches everything"),
    (texts_out_of_place, "docs.md", f"see {NOT_IN_TEXTS[1]}/DESIGN.md\n", "docs.md: holds"),
    (texts_out_of_place, ".ci/run", f"cd {NOT_IN_TEXTS[0]}main\n", ".ci/run: holds"),
    (texts_out_of_place, "filters/x.py", f"# {NOT_IN_TEXTS[2]}: later\n", "filters/x.py: holds"),
]


@pytest.mark.parametrize(("check", "name", "text", "complaint"), VIOLATIONS)
def test_planted_violation_is_seen(
    tree: Path, check: Callable[[Path], list[str]], name: str, text: str, complaint: str
) -> None:
    plant(tree, name, text)
    assert any(complaint in line for line in check(tree)), check(tree)
