"""Stage ``tokenizer_report``: how well the run's tokenizer fits text it has not learnt from, beside other tokenizers.

In: the documents that the tokenizer was to leave out (tokenizer.held_out), the tokenizer, and any others by path. Out:
``figures.json``: for all documents and for each value of the fields in ``by``, and for each tokenizer, counts of words,
bytes and tokens, and what follows from them. ``jobs/train_tokenizer.py`` prints them, and the report shows them.

A stage of its own, so that to compare with one more tokenizer does not train anything again. Whole documents are
encoded, as packing does. Words are what white space separates, so that fertility is comparable across tokenizers. A
tokenizer that changes the text looks better than it is: the share of documents that come back as they were is beside
its figures. Memory: one document, and one bit a piece for each of at most 25 groups a field and tokenizer, times eight.
"""

import functools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caravela import storage
from caravela.config import ConfigError
from caravela.data import peer_tokenizers, sampling, tokenizer
from caravela.data.peer_tokenizers import Encoder
from caravela.data.sampling import Sample, SampleOf
from caravela.data.tokenizer import TokenizerConfig
from caravela.manifest import Input, ShardRecord
from caravela.progress import table
from caravela.stages import Shard, ShardOutput, Stage, finished

FIGURES_FILE = "figures.json"
OWN = "this run"
MOST_GROUPS = 24
"""Values of a field that are shown on their own, those with most text; the others are one group."""
OTHERS = "others"
NOT_KNOWN = "not known"
COMPARE, BY = "tokenizer_report.compare", "tokenizer_report.by"


@dataclass(frozen=True, kw_only=True)
class TokenizerReportConfig:
    """What the tokenizer is measured on, and against what."""

    compare: tuple[str, ...] = ()
    """Other tokenizers: paths, local or s3://, of SentencePiece models or ``tokenizer.json`` files."""
    by: tuple[str, ...] = ("variant", "metadata.register")
    """Fields whose values are measured apart: columns of the documents, or fields of the metadata; one that no
    document has is left out."""
    text_mb: float = 10.0
    """Text to measure on; held-out documents with more are sampled, in proportion to what each group has."""

    def __post_init__(self) -> None:
        if not self.text_mb > 0:
            raise ConfigError(f"text_mb = {self.text_mb}: expected more than 0")
        for name, values in (("compare", self.compare), ("by", self.by)):
            for value in values:
                if not value or values.count(value) > 1:
                    raise ConfigError(f"{name} = {list(values)}: expected each once, and none empty")


def tokenizer_report_stage(
    root: str, config: TokenizerReportConfig, learnt: TokenizerConfig, documents: Input, own: Input
) -> Stage:
    """The stage that measures the tokenizer ``own``, which was made of ``documents`` as ``learnt`` says.

    Raises:
        UserError: one of the others is not there.
    """
    paths = [storage.absolute(path) for path in config.compare]
    names = peer_tokenizers.names_of(paths)
    contents = [peer_tokenizers.content_of(path, COMPARE) for path in paths]
    compared = [
        Input(name=f"tokenizer {name}", fingerprint=content, uri=path)
        for name, content, path in zip(names, contents, paths, strict=True)
    ]

    def plan() -> list[Shard]:
        uris = finished(documents).uris("documents")
        finished(own)
        spec = {"uris": uris, "own": own.uri, "compare": paths, "names": names}
        return [Shard(index=0, name="tokenizer report", spec=spec)]

    return Stage(
        name="tokenizer_report",
        version=1,
        root=root,
        # The paths of the others are inputs, known by their content.
        config={"compare": names, "by": list(config.by), "text_mb": config.text_mb},
        inputs=(documents, own, *compared),
        plan=plan,
        make_worker=functools.partial(TokenizerReportWorker, config, learnt.held_out_share),
        finish=_figures,
    )


class TokenizerReportWorker:
    """Samples what was held out and encodes it with each tokenizer."""

    def __init__(self, config: TokenizerReportConfig, held_out_share: float) -> None:
        self.config = config
        self.held_out_share = held_out_share

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        spec = shard.spec
        encoders = [tokenizer.as_peer(spec["own"])]
        encoders += [peer_tokenizers.load(path, COMPARE) for path in spec["compare"]]
        share = self.held_out_share
        sample = self._sample(spec["uris"], out, share)
        held_out = len(sample) > 0
        # Too few documents for one to be held out: better measured on known text than not at all.
        texts = sample if held_out else self._sample(spec["uris"], out, 1.0)
        groups = measure(encoders, texts, self.config.by, out)
        result = {
            "held_out": held_out,
            "held_out_share": share,
            "tokenizers": [
                {"name": name, "path": storage.shown(path), "kind": encoder.kind, "pieces": encoder.pieces}
                for name, path, encoder in zip(
                    [OWN, *spec["names"]], [tokenizer.file_name(spec["own"]), *spec["compare"]], encoders, strict=True
                )
            ],
            "groups": [_row(group, encoders) for group in groups],
        }
        with open(out.local_path(FIGURES_FILE), "w", encoding="utf-8") as file:
            json.dump(result, file, ensure_ascii=False, indent=1)
        return {"documents": len(texts), "bytes": texts.bytes, "tokenizers": len(encoders)}

    def _sample(self, uris: Sequence[str], out: ShardOutput, share: float) -> Sample:
        what = SampleOf(
            uris=uris,
            fields=self.config.by,
            setting=BY,
            size=round(self.config.text_mb * 1e6),
            temper=1.0,
            seed=0,
            wanted=lambda identifier: share >= 1 or tokenizer.held_out(identifier, share),
        )
        return sampling.take(what, os.path.join(out.folder, "sample"))


@dataclass
class Tally:
    """One tokenizer on one group."""

    used: npt.NDArray[np.bool_]
    tokens: int = 0
    byte_tokens: int = 0
    unknown_tokens: int = 0
    documents_back: int = 0


@dataclass
class Group:
    """All documents (no field), or those with one value of a field."""

    field: str
    value: str
    tallies: list[Tally]
    documents: int = 0
    words: int = 0
    bytes: int = 0


def measure(encoders: Sequence[Encoder], sample: Sample, by: Sequence[str], out: ShardOutput) -> list[Group]:
    """Counts over the texts of a sample whose strata are the values of the fields ``by``; all of them come first."""

    def group(name: str, value: str) -> Group:
        return Group(name, value, [Tally(np.zeros(len(encoder.byte_pieces), bool)) for encoder in encoders])

    everything = group("", "all")
    places = [_places(sample, i) for i in range(len(by))]
    groups = [
        {value: group(name, value) for value in dict.fromkeys(place.values())}
        for name, place in zip(by, places, strict=True)
    ]
    for stratum, text in sample:
        own = [everything, *(groups[i][places[i][value]] for i, value in enumerate(stratum) if places[i])]
        words, size = len(text.split()), len(text.encode("utf-8"))
        for one in own:
            one.documents, one.words, one.bytes = one.documents + 1, one.words + words, one.bytes + size
        for number, encoder in enumerate(encoders):
            _add(encoder, text, [one.tallies[number] for one in own])
        out.progress.add(documents=1, bytes=size)
    return [everything, *(one for each in groups for one in each.values())]


def _places(sample: Sample, place: int) -> dict[str | None, str]:
    """Under which name each value of a field is measured, the largest first; nothing where no document has a value."""
    sizes: Counter[str | None] = Counter()
    for stratum, counts in sample.strata.items():
        if counts.taken_documents:
            sizes[stratum[place]] += counts.taken_bytes
    if set(sizes) <= {None}:
        return {}
    order = sorted(sizes, key=lambda value: (value is None, -sizes[value], value or ""))
    most = MOST_GROUPS if len(order) > MOST_GROUPS + 1 else len(order)
    return {value: (NOT_KNOWN if value is None else value) if i < most else OTHERS for i, value in enumerate(order)}


def _add(encoder: Encoder, text: str, tallies: Sequence[Tally]) -> None:
    ids = encoder.encode(text)
    array = np.array(ids, np.int64)
    byte_tokens = int(encoder.byte_pieces[array].sum())
    unknown = 0 if encoder.unknown is None else int((array == encoder.unknown).sum())
    back = encoder.decode(ids) == text
    for tally in tallies:
        tally.tokens += len(ids)
        tally.byte_tokens += byte_tokens
        tally.unknown_tokens += unknown
        tally.documents_back += back
        tally.used[array] = True


def _row(group: Group, encoders: Sequence[Encoder]) -> dict[str, Any]:
    """A group's counts, and for each tokenizer its own with the ratios."""
    figures = []
    for tally, encoder in zip(group.tallies, encoders, strict=True):
        used = int(tally.used.sum())
        figures.append(
            {
                "tokens": tally.tokens,
                "byte_tokens": tally.byte_tokens,
                "unknown_tokens": tally.unknown_tokens,
                "pieces_used": used,
                "documents_back": tally.documents_back,
                "tokens_per_word": round(tally.tokens / max(1, group.words), 4),
                "bytes_per_token": round(group.bytes / max(1, tally.tokens), 4),
                "byte_fallback_share": round(tally.byte_tokens / max(1, tally.tokens), 6),
                "unknown_share": round(tally.unknown_tokens / max(1, tally.tokens), 6),
                "unused_pieces_share": round(1 - used / max(1, encoder.pieces), 4),
                "back_share": round(tally.documents_back / max(1, group.documents), 4),
            }
        )
    counts = {"documents": group.documents, "words": group.words, "bytes": group.bytes}
    return {"field": group.field, "value": group.value, **counts, "figures": figures}


def _figures(records: Sequence[ShardRecord], uri: str) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(storage.read_text(storage.join(uri, FIGURES_FILE)))
    return found


def as_text(figures: Mapping[str, Any]) -> str:
    """The figures as a table for a terminal: all documents, then each group, with every tokenizer."""
    names = [each["name"] for each in figures["tokenizers"]]
    rows = []
    for group in figures["groups"]:
        label = " ".join(part for part in (group["field"].removeprefix("metadata."), group["value"]) if part)
        for name, found in zip(names, group["figures"], strict=True):
            rows.append(
                (
                    label,
                    f"{group['documents']:,}",
                    name,
                    f"{found['tokens_per_word']:.3f}",
                    f"{found['bytes_per_token']:.3f}",
                    f"{found['byte_fallback_share']:.3%}",
                    f"{found['unused_pieces_share']:.1%}",
                    f"{found['back_share']:.1%}",
                )
            )
    headings = ("text", "documents", "tokenizer", "tokens/word", "bytes/token", "byte fallback", "unused", "comes back")
    return table(headings, rows)
