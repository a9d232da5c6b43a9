"""Settings: what is accepted, and that every mistake is one line with file, key, value and the way out."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from caravela import config
from caravela.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class Signal:
    name: str
    low: float = 0.0
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    kind: Literal["cosine", "linear"] = "cosine"
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps = {self.warmup_steps}: expected 0 or more")
        if self.betas[0] >= self.betas[1]:
            raise ConfigError("the first beta must be below the second")


@dataclass(frozen=True, kw_only=True)
class Training:
    steps: int
    learning_rate: float = 1e-3
    stage: Literal[1, 2] = 1
    resume: bool = True
    schedule: Schedule = field(default_factory=Schedule)


@dataclass(frozen=True, kw_only=True)
class Run:
    root: str
    train: Training
    signals: tuple[Signal, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    limit: int | str | None = None
    extra: Any = None

    def __post_init__(self) -> None:
        if not self.root:
            raise ConfigError('root = "": expected a folder or s3://bucket/prefix')


PLAIN = """
root = "runs/x"
[train]
steps = 10
"""


def load(tmp_path: Path, text: str, *overrides: str) -> Run:
    path = tmp_path / "run.toml"
    path.write_text(text, "utf-8")
    return config.load(Run, str(path), overrides)


def mistake(tmp_path: Path, text: str, *overrides: str) -> str:
    """The error of a config, with the file's folder taken off."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{tmp_path}/", "")


def test_load_leaves_out_become_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, PLAIN) == Run(root="runs/x", train=Training(steps=10))


def test_load_fits_every_kind_of_value(tmp_path: Path) -> None:
    text = """
    root = "s3://bucket/run"
    limit = "none"
    extra = {a = [1, "b"]}
    thresholds = {short = 1, "pt-BR" = 0.5}
    [train]
    steps = 3
    learning_rate = 1
    stage = 2
    resume = false
    [train.schedule]
    kind = "linear"
    betas = [0, 0.5]
    [[signals]]
    name = "mean_word_length"
    high = 9
    """
    got = load(tmp_path, text)
    schedule = Schedule(kind="linear", betas=(0.0, 0.5))
    assert got == Run(
        root="s3://bucket/run",
        limit="none",
        extra={"a": [1, "b"]},
        thresholds={"short": 1.0, "pt-BR": 0.5},
        train=Training(steps=3, learning_rate=1.0, stage=2, resume=False, schedule=schedule),
        signals=(Signal(name="mean_word_length", high=9.0),),
    )
    assert isinstance(got.train.learning_rate, float)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.steps=7", "train.steps", 7),
        ("train.learning_rate = 3e-4", "train.learning_rate", 3e-4),
        ("train.resume=false", "train.resume", False),
        ("root=s3://bucket/a=b", "root", "s3://bucket/a=b"),
        ('root="with space"', "root", "with space"),
        ("train.schedule.kind=linear", "train.schedule.kind", "linear"),
        ("train.schedule.betas=[0.1, 0.2]", "train.schedule.betas", (0.1, 0.2)),
        ("signals=[{name = 'short'}]", "signals", (Signal(name="short"),)),
        ("limit=5", "limit", 5),
        ("limit=all", "limit", "all"),
    ],
)
def test_set_overrides_the_file(tmp_path: Path, override: str, path: str, value: Any) -> None:
    got: Any = load(tmp_path, PLAIN, override)
    for name in path.split("."):
        got = getattr(got, name)
    assert got == value
    assert type(got) is type(value)


def test_set_last_of_a_key_wins(tmp_path: Path) -> None:
    assert load(tmp_path, PLAIN, "train.steps=2", "train.steps=3").train.steps == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rooot = "x"\n[train]\nsteps = 1', "run.toml: rooot: unknown key; did you mean root?"),
        ("root = 'x'\n[train]\nstep = 1", "run.toml: train.step: unknown key; did you mean train.steps?"),
        (
            "root = 'x'\n[train]\nsteps = 1\n[train.schedule]\nwarmup = 5",
            "run.toml: train.schedule.warmup: unknown key; did you mean train.schedule.warmup_steps?",
        ),
        (
            "root = 'x'\n[train]\nqqq = 1",
            "run.toml: train.qqq: unknown key; valid here: learning_rate, resume, schedule, stage, steps",
        ),
        ("[train]\nsteps = 1", "run.toml: root: missing, and it has no default"),
        ("root = 'x'", "run.toml: train.steps: missing, and it has no default"),
        ("root = 'x'\ntrain = 3", "run.toml: train = 3: expected a section"),
        ("root = 3\n[train]\nsteps = 1", "run.toml: root = 3: expected a string"),
        ("root = 'x'\n[train]\nsteps = '1'", "run.toml: train.steps = '1': expected a whole number"),
        ("root = 'x'\n[train]\nsteps = 1.0", "run.toml: train.steps = 1.0: expected a whole number"),
        ("root = 'x'\n[train]\nsteps = true", "run.toml: train.steps = True: expected a whole number"),
        (
            "root = 'x'\n[train]\nsteps = 1\nlearning_rate = true",
            "run.toml: train.learning_rate = True: expected a finite number",
        ),
        (
            "root = 'x'\n[train]\nsteps = 1\nlearning_rate = nan",
            "run.toml: train.learning_rate = nan: expected a finite number",
        ),
        ("root = 'x'\n[train]\nsteps = 1\nresume = 1", "run.toml: train.resume = 1: expected true or false"),
        (
            "root = 'x'\n[train]\nsteps = 1\n[train.schedule]\nkind = 'cosin'",
            "run.toml: train.schedule.kind = 'cosin': expected one of cosine, linear; did you mean 'cosine'?",
        ),
        ("root = 'x'\n[train]\nsteps = 1\nstage = true", "run.toml: train.stage = True: expected one of 1, 2"),
        (
            "root = 'x'\n[train]\nsteps = 1\n[train.schedule]\nbetas = [0.5]",
            "run.toml: train.schedule.betas = [0.5]: expected a list of 2",
        ),
        (
            "root = 'x'\n[train]\nsteps = 1\n[train.schedule]\nbetas = 0.5",
            "run.toml: train.schedule.betas = 0.5: expected a list",
        ),
        (
            "root = 'x'\nsignals = [{name = 'a'}, {nam = 'b'}]\n[train]\nsteps = 1",
            "run.toml: signals[1].nam: unknown key; did you mean signals[1].name?",
        ),
        (
            "root = 'x'\nthresholds = {short = 'long'}\n[train]\nsteps = 1",
            "run.toml: thresholds.short = 'long': expected a finite number",
        ),
        ("root = 'x'\nlimit = 1.5\n[train]\nsteps = 1", "run.toml: limit = 1.5: expected a string"),
        ("root = ''\n[train]\nsteps = 1", 'run.toml: root = "": expected a folder or s3://bucket/prefix'),
        (
            "root = 'x'\n[train]\nsteps = 1\n[train.schedule]\nwarmup_steps = -1",
            "run.toml: train.schedule.warmup_steps = -1: expected 0 or more",
        ),
        (
            "root = 'x'\n[train]\nsteps = 1\n[train.schedule]\nbetas = [0.9, 0.8]",
            "run.toml: train.schedule: the first beta must be below the second",
        ),
    ],
)
def test_load_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert mistake(tmp_path, text) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "--set train.steps: expected key.name=value"),
        ("=3", "--set =3: expected key.name=value"),
        ("train..steps=3", "--set train..steps=3: expected key.name=value"),
        ("root.name=3", "--set root.name=3: root is a value, not a section"),
        ("train.stepz=3", "--set: train.stepz: unknown key; did you mean train.steps?"),
        ("trian.steps=3", "--set: trian: unknown key; did you mean train?"),
        ("train.steps=many", "--set: train.steps = 'many': expected a whole number"),
        ("train.steps=", "--set: train.steps = '': expected a whole number"),
        (
            "train.schedule.kind=linea",
            "--set: train.schedule.kind = 'linea': expected one of cosine, linear; did you mean 'linear'?",
        ),
        ("train.schedule.warmup_steps=-3", "--set: train.schedule.warmup_steps = -3: expected 0 or more"),
        ("signals=[{name = 'a', low = 'b'}]", "--set: signals[0].low = 'b': expected a finite number"),
        ("root=", '--set: root = "": expected a folder or s3://bucket/prefix'),
    ],
)
def test_load_mistake_on_the_command_line_is_named(tmp_path: Path, override: str, message: str) -> None:
    assert mistake(tmp_path, PLAIN, override) == message


def test_load_mistake_in_the_file_is_not_blamed_on_an_override_beside_it(tmp_path: Path) -> None:
    assert mistake(tmp_path, PLAIN + "learning_rate = 'fast'", "train.steps=5").startswith("run.toml: train.learning")


def test_load_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: no such config file$"):
        config.load(Run, str(tmp_path / "absent.toml"))


def test_load_broken_toml_is_named_with_its_line(tmp_path: Path) -> None:
    assert mistake(tmp_path, "root = 'x'\n[train\n").startswith("run.toml: not valid TOML: ")
    assert "line 2" in mistake(tmp_path, "root = 'x'\n[train\n")


def test_load_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes("root = 'São'".encode("iso-8859-1"))
    with pytest.raises(ConfigError, match=r"run\.toml: not valid TOML: "):
        config.load(Run, str(tmp_path / "run.toml"))


def test_build_null_in_json_passes_only_where_none_is_allowed() -> None:
    table = {"root": "x", "train": {"steps": 1}, "limit": None, "signals": [{"name": "a", "high": None}]}
    assert config.build(Run, table, "a.json").signals == (Signal(name="a"),)
    with pytest.raises(ConfigError, match=r"^a\.json: train\.steps = None: expected a whole number$"):
        config.build(Run, {"root": "x", "train": {"steps": None}}, "a.json")
    with pytest.raises(ConfigError, match=r"^a\.json: signals\[0\]\.name = None: expected a string$"):
        config.build(Run, {**table, "signals": [{"name": None}]}, "a.json")


def everything() -> Run:
    """A config whose values are hard to write down."""
    return Run(
        root='C:\\runs\\"São João"\tfim',
        train=Training(steps=2**40, learning_rate=1e-05, schedule=Schedule(kind="linear", betas=(0.0, 1e22))),
        signals=(Signal(name="a b", low=-0.5), Signal(name="\u2028", high=1.0)),
        thresholds={"pt-BR": 1.0, "with space": 2.0, "a.b": 3.0, "": 4.0},
        limit="7",
        extra={"nested": {"deep": [1, {"x": "y"}]}, "only": {"sections": {"here": {}}}},
    )


def test_to_toml_reads_back_as_the_same_config(tmp_path: Path) -> None:
    assert load(tmp_path, config.to_toml(config.to_dict(everything()))) == everything()


def test_to_toml_leaves_none_out_and_nothing_else() -> None:
    table = config.to_dict(everything())
    read = tomllib.loads(config.to_toml(table))
    table["signals"][0].pop("high")  # the only None
    assert read == table


def test_to_dict_is_plain_json_and_builds_the_same_config() -> None:
    table = config.to_dict(everything())
    assert json.loads(json.dumps(table)) == table
    assert config.build(Run, table, "json") == everything()


def test_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert config.fingerprint({"a": 1, "b": [1, 2]}) == config.fingerprint({"b": [1, 2], "a": 1})
    assert config.fingerprint({"a": 1, "b": [1, 2]}) != config.fingerprint({"a": 1, "b": [2, 1]})


def test_fingerprint_is_the_published_one() -> None:
    """sha256 of ``{"a":"ç","b":1}`` in UTF-8: a change of the canonical form would orphan every finished run."""
    assert config.fingerprint({"b": 1, "a": "ç"}) == "d403dbf6a96d24af"
