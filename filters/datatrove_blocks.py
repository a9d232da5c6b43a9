"""Any filter or formatter of datatrove, or of one's own in its form, by name: run unchanged inside the same pass.

In: a list of ``BlockConfig`` (a class by its short name or its import path, and its arguments), and documents.
Out: per document an ``Outcome``: the text as the block left it, what it added to the metadata, or the reason why it
removed the document. C4, which no preset uses, is switched on so::

    [[curate.blocks]]
    name = "C4QualityFilter"
    arguments = {min_num_sentences = 3, language = "por"}

Decisions, with their price:

* A config is checked where it is read: the class is imported there (0.7 s, and no spaCy) and its arguments are fitted
  to its signature, so that a slip is one line at the start and not a failed job on a node. Nothing is constructed.
* Blocks are made anew for each shard (``load_blocks``). Some carry state from text to text: PIIFormatter goes round in
  its replacements, samplers draw. Kept over shards it would make the output depend on which worker did what. A block
  that loads a model when it is first used loads it once a shard.
* What a block raises sets that document aside as ``error:<class>``; ``Outcome.broken`` lets curation count it as
  damage, so that a block which fails everywhere ends the job by the share of broken input.

Cost: the block's own (C4QualityFilter 0.5 MB/s, FTFYFormatter 3 MB/s); the kernels of ``filters.quality`` are the
fast road for the standard set.
"""

import difflib
import importlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from datatrove.data import Document

from caravela.config import ConfigError
from caravela.errors import UserError

PACKAGES = ("datatrove.pipeline.filters", "datatrove.pipeline.formatters")
WRITER = "exclusion_writer"
SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
CONTAINERS = (list, tuple, set, frozenset)


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """One block: which class, and what it is made with."""

    name: str
    """A class of datatrove ("C4QualityFilter", "FTFYFormatter") or a full import path ("my.module.MyFilter")."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What its constructor takes, by name; what is left out has the class's own default."""
    place: Literal["before_quality", "after_quality"] = "after_quality"
    """Whether it sees the text before quality is measured (formatters mostly), or what quality let through."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a block made of a document; ``reason`` is empty where it stays."""

    text: str
    metadata: Mapping[str, Any]
    reason: str = ""
    """``<class>.<the block's own reason>``, ``<class>`` where it gives none, ``error:<class>`` where it raised."""
    detail: str = ""

    @property
    def broken(self) -> bool:
        """Whether the block failed, rather than decided."""
        return self.reason.startswith("error:")


@dataclass(frozen=True, slots=True)
class Block:
    """A constructed filter or formatter. It may hold state: use one per shard, in document order."""

    name: str
    """The class's name, without its module."""
    place: str
    step: Any
    is_filter: bool


def check(config: BlockConfig) -> None:
    """Looks for every mistake that can be seen without constructing the block.

    Raises:
        ConfigError: names the class, the argument and what it takes.
    """
    cls = _class_of(config.name)
    parameters = _parameters(cls)
    for argument, value in config.arguments.items():
        if argument not in parameters:
            near = difflib.get_close_matches(argument, parameters, n=1, cutoff=0.5)
            advice = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"arguments.{argument} = {value!r}: {cls.__name__} has no such argument; {advice}it takes {_shown(cls)}"
            )
        expected = parameters[argument].annotation
        if not _fits(value, expected):
            raise ConfigError(
                f"arguments.{argument} = {value!r}: expected {_described(expected)} for "
                f"{cls.__name__}.{argument}; it takes {_shown(cls)}"
            )
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in config.arguments]
    if missing:
        raise ConfigError(f"arguments.{missing[0]} = : expected a value for {cls.__name__}; it takes {_shown(cls)}")
    if "seed" in parameters and parameters["seed"].default is None and config.arguments.get("seed") is None:
        raise ConfigError(
            f"arguments.seed = : expected a whole number for {cls.__name__}, or each run gives another output"
        )
    if absent := _absent_packages(cls):
        raise ConfigError(
            f"name = {config.name!r}: expected {cls.__name__} to have what it needs: pip install {' '.join(absent)}"
        )


def load_blocks(configs: Sequence[BlockConfig]) -> list[Block]:
    """The blocks in their order, fresh; call it for each shard.

    Raises:
        UserError: a class refuses its arguments, or a library that it needs is not installed.
    """
    blocks = []
    for config in configs:
        cls = _class_of(config.name)
        parameters = _parameters(cls)
        arguments = {n: _as_annotated(v, parameters[n].annotation) for n, v in config.arguments.items()}
        try:
            step = cls(**arguments)
        except (TypeError, ValueError, KeyError, ImportError, OSError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"blocks: {config.name}: {reason}; it takes {_shown(cls)}") from error
        blocks.append(Block(cls.__name__, config.place, step, isinstance(step, _bases()[0])))
    return blocks


def apply(block: Block, text: str, document_id: str = "", metadata: Mapping[str, Any] | None = None) -> Outcome:
    """Takes one document through one block; never raises what the block raises.

    ``metadata`` is what blocks look for: ``url`` for URLFilter, ``language`` for C4BadWordsFilter.
    """
    document = Document(text=text, id=document_id, metadata=dict(metadata or {}))
    try:
        if block.is_filter:
            # By way of filter_batch, which a class may override instead of filter.
            (result,) = block.step.filter_batch([document])
        else:
            document.text = block.step.format(document.text)
            result = True
    except Exception as error:  # a stranger's code: whatever it raises is this document's reason, not the job's end
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        return Outcome(text, dict(metadata or {}), f"error:{block.name}", detail)
    if not isinstance(document.text, str):
        detail = f"made {type(document.text).__name__} of the text"
        return Outcome(text, dict(metadata or {}), f"error:{block.name}", detail)
    keep, why = result if isinstance(result, tuple) else (result, None)
    if keep:
        return Outcome(document.text, document.metadata)
    return Outcome(document.text, document.metadata, f"{block.name}.{why}" if why else block.name)


def apply_all(blocks: Sequence[Block], text: str, document_id: str, metadata: Mapping[str, Any]) -> Outcome:
    """Takes one document through all blocks; stops at the first that removes it."""
    outcome = Outcome(text, dict(metadata))
    for block in blocks:
        outcome = apply(block, outcome.text, document_id, outcome.metadata)
        if outcome.reason:
            break
    return outcome


def _class_of(name: str) -> type[Any]:
    """The class that a short name or an import path means.

    Raises:
        ConfigError: no such module or class, or not a filter or formatter; with the nearest names.
    """
    module_name, dot, class_name = name.rpartition(".")
    if not dot:
        known = {found: module for module in PACKAGES for found in _block_names(module)}
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            advice = f"did you mean {' or '.join(near)}?" if near else f"datatrove has {', '.join(sorted(known))}"
            raise ConfigError(
                f"name = {name!r}: expected a filter or formatter of datatrove, or my.module.MyFilter; {advice}"
            )
        module_name, class_name = known[name], name
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"name = {name!r}: expected an importable module: {error}") from error
    found = getattr(module, class_name, None)
    if found is None:
        near = difflib.get_close_matches(class_name, _block_names(module_name), n=3, cutoff=0.4)
        advice = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"name = {name!r}: expected a class of {module_name}{advice}")
    if not _is_block(found):
        raise ConfigError(
            f"name = {name!r}: expected a subclass of datatrove's BaseFilter or BaseFormatter that is whole"
        )
    cls: type[Any] = found
    return cls


def _block_names(module_name: str) -> list[str]:
    return [name for name, found in vars(importlib.import_module(module_name)).items() if _is_block(found)]


def _bases() -> tuple[type[Any], type[Any]]:
    """The base classes of datatrove's filters and of formatters; imported here, as their package takes 0.6 s."""
    return (
        importlib.import_module("datatrove.pipeline.filters.base_filter").BaseFilter,
        importlib.import_module("datatrove.pipeline.formatters.base").BaseFormatter,
    )


def _is_block(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, _bases()) and not inspect.isabstract(found)


def _absent_packages(cls: type[Any]) -> list[str]:
    """What datatrove would refuse the class for: as pip calls it."""
    needed = [package for base in cls.mro() for package in getattr(base, "_requires_dependencies", ())]
    pairs = [package if isinstance(package, tuple) else (package, package) for package in needed]
    return sorted({pip_name for module, pip_name in pairs if importlib.util.find_spec(module) is None})


def _parameters(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """What can be set in a config: the constructor's arguments by name, but for the writer of removed documents."""
    signature = inspect.signature(cls)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in signature.parameters.items() if p.kind in by_name and name != WRITER}


def _shown(cls: type[Any]) -> str:
    """The signature as a person writes it: ``(min_doc_words: int | None = 50, ...)``."""
    shown = ", ".join(str(parameter) for parameter in _parameters(cls).values())
    return f"({shown})" if shown else "no arguments"


def _alternatives(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for kind in typing.get_args(annotation) for part in _alternatives(kind)]
    return [annotation]


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value from a config can be what the annotation says; what cannot be judged from plain types fits."""
    for kind in _alternatives(annotation):
        origin = typing.get_origin(kind) or kind
        if origin is Literal:
            fits = value in typing.get_args(kind)
        elif kind in (None, type(None)):
            fits = value is None
        elif origin in SCALARS:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            fits = number if origin is float else isinstance(value, origin) and (number or origin is not int)
        elif origin in CONTAINERS:
            fits = isinstance(value, list | tuple)
        elif origin is dict:
            fits = isinstance(value, Mapping)
        else:
            fits = True
        if fits:
            return True
    return False


def _described(annotation: Any) -> str:
    return " or ".join(_kind_name(kind) for kind in _alternatives(annotation))


def _kind_name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    if kind in (None, type(None)):
        return "nothing"
    if (typing.get_origin(kind) or kind) in CONTAINERS:
        return "a list"
    return SCALARS.get(kind, str(kind))


def _as_annotated(value: Any, annotation: Any) -> Any:
    """A list from TOML as the tuple or set that the class names."""
    kinds = {typing.get_origin(kind) or kind for kind in _alternatives(annotation)}
    if not isinstance(value, list | tuple) or list in kinds:
        return value
    if tuple in kinds:
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    return set(value) if kinds & {set, frozenset} else value
