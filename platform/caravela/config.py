"""Typed settings from TOML, with overrides from the command line.

In: a TOML file (local or S3), ``a.b=value`` overrides, and the frozen dataclass that the file must fit.
Out: an instance of it. Every section of settings is such a dataclass beside the code that uses it; the text under a
field documents it.

A mistake is one line: the file, the key, the value, what was expected, and the nearest valid name.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from caravela import storage
from caravela.errors import UserError

Section = TypeVar("Section")

KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a string"}
FIELD_IN_MESSAGE = re.compile(r"(\w+)( = .*)", re.DOTALL)


class ConfigError(UserError):
    """A setting that is unknown, of the wrong type or out of range."""


def load(cls: type[Section], uri: str, overrides: Sequence[str] = ()) -> Section:
    """Reads ``uri`` and lays ``overrides`` (``a.b=value``, value in TOML or a bare string) over it.

    Raises:
        ConfigError: one line that names file, key, value and what is expected.
    """
    try:
        table = tomllib.loads(storage.read_text(uri))
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such config file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{uri}: not valid TOML: {error}") from error
    origin: dict[str, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise ConfigError(f"--set {override}: expected key.name=value")
        origin[_put(table, key.strip(), _parse_value(value.strip()), override)] = "--set"
    return build(cls, table, uri, origin)


def build(
    cls: type[Section], table: Mapping[str, Any], source: str, origin: Mapping[str, str] | None = None
) -> Section:
    """Fits a nested mapping to a dataclass.

    ``source`` is what errors name; ``origin`` gives another for a dotted key and all below it.
    """
    built: Section = _Builder(source, origin or {}).section(cls, table, "")
    return built


def to_dict(section: Any) -> dict[str, Any]:
    """The resolved settings as plain JSON types, defaults included."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(section)))
    return plain


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Resolved settings as TOML, for ``--dry-run`` and the report. ``None`` is left out, as TOML has no word for it."""
    plain = [f"{_bare_or_quoted(key)} = {_inline(value)}" for key, value in table.items() if _is_plain(value)]
    blocks = ["\n".join(plain)] if plain else []
    for key, value in table.items():
        if isinstance(value, Mapping):
            dotted = f"{prefix}{_bare_or_quoted(key)}"
            only_sections = bool(value) and all(isinstance(inner, Mapping) for inner in value.values())
            inside = to_toml(value, f"{dotted}.")
            blocks.append(inside if only_sections else f"[{dotted}]\n{inside}".rstrip())
    return "\n\n".join(blocks)


def _is_plain(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping)


def _bare_or_quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _inline(key)


def _inline(value: Any) -> str:
    """A value on one line: JSON serves for strings, numbers and booleans, whose TOML form is the same."""
    if isinstance(value, Mapping):
        pairs = (f"{_bare_or_quoted(key)} = {_inline(inner)}" for key, inner in value.items() if inner is not None)
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value, ensure_ascii=False)


def fingerprint(value: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of canonical JSON: equal for equal settings, whatever their order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare string, as in --set root=s3://bucket/run


def _put(table: dict[str, Any], dotted: str, value: Any, override: str) -> str:
    """Lays a value over the table; returns what is new by it: the dotted key, or the first section it had to make."""
    *parents, last = (part.strip() for part in dotted.split("."))
    new = ""
    for depth, name in enumerate(parents):
        if name not in table:
            new = new or ".".join(parents[: depth + 1])
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {name} is a value, not a section")
    table[last] = value
    return new or ".".join([*parents, last])


class _Builder:
    """Fits values to annotations; holds what error messages need."""

    def __init__(self, source: str, origin: Mapping[str, str]) -> None:
        self.source = source
        self.origin = origin

    def fail(self, key: str, message: str) -> ConfigError:
        return ConfigError(f"{self.origin_of(key)}: {key}{message}")

    def origin_of(self, key: str) -> str:
        """Where a key was set; items of a list and members of a section are from where the whole is."""
        parts = re.split(r"(?=[.\[])", key)
        longest_first = ("".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((self.origin[part] for part in longest_first if part in self.origin), self.source)

    def section(self, cls: type[Any], table: Any, prefix: str) -> Any:
        if not isinstance(table, Mapping):
            raise self.fail(prefix.rstrip("."), f" = {table!r}: expected a section")
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in table:
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
                advice = f"did you mean {prefix}{near[0]}?" if near else f"valid here: {', '.join(sorted(fields))}"
                raise self.fail(f"{prefix}{name}", f": unknown key; {advice}")
        values = {}
        for name, field in fields.items():
            if name in table:
                values[name] = self.value(hints[name], table[name], prefix + name)
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                if not dataclasses.is_dataclass(hints[name]):
                    raise self.fail(f"{prefix}{name}", ": missing, and it has no default")
                values[name] = self.section(typing.cast(type, hints[name]), {}, f"{prefix}{name}.")
        try:
            return cls(**values)
        except ValueError as error:  # a check in __post_init__: "<field> = <value>: expected ..."
            if named := FIELD_IN_MESSAGE.fullmatch(str(error)):
                raise self.fail(f"{prefix}{named[1]}", named[2]) from error
            section = prefix.rstrip(".")
            raise self.fail(section, f": {error}" if section else str(error)) from error

    def value(self, kind: Any, value: Any, key: str) -> Any:
        if kind is Any:
            return value
        if dataclasses.is_dataclass(kind):
            return self.section(typing.cast(type, kind), value, f"{key}.")
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return self.either(arguments, value, key)
        if origin is typing.Literal:
            return self.choice(arguments, value, key)
        if origin is tuple:
            return self.items(arguments, value, key)
        if origin in (dict, Mapping):
            if not isinstance(value, Mapping):
                raise self.fail(key, f" = {value!r}: expected a section")
            return {name: self.value(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        misfit = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        if misfit or (kind is float and not math.isfinite(value)):
            raise self.fail(key, f" = {value!r}: expected {KIND_NAMES.get(kind, kind)}")
        return value

    def either(self, kinds: tuple[Any, ...], value: Any, key: str) -> Any:
        """``X | Y``, ``X | None``: None where it is allowed, else the first kind that fits; an error is the last's."""
        if value is None and type(None) in kinds:
            return None
        *others, last = (kind for kind in kinds if kind is not type(None))
        for kind in others:
            try:
                return self.value(kind, value, key)
            except ConfigError:
                continue
        return self.value(last, value, key)

    def items(self, kinds: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise self.fail(key, f" = {value!r}: expected a list")
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(value) != len(kinds):
            raise self.fail(key, f" = {value!r}: expected a list of {len(kinds)}")
        return tuple(
            self.value(kind, item, f"{key}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )

    def choice(self, allowed: tuple[Any, ...], value: Any, key: str) -> Any:
        if any(value == choice and type(value) is type(choice) for choice in allowed):
            return value
        near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        raise self.fail(key, f" = {value!r}: expected one of {', '.join(map(str, allowed))}{advice}")
