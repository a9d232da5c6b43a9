"""Language identification with fastText: lid.176 by default, or any fastText model, GlotLID among them.

In: an Arrow column of texts, or one text. Out: ``LanguageIdentifier.identify_batch`` and ``identify`` give the labels
that are likeliest with their scores, best first; ``decide`` says whether a text is in one of the languages that the
config keeps. Labels and scores are those of fastText's own ``predict``, computed by ``filters.fasttext_model``.

lid.176.ftz (176 languages, CC BY-SA 3.0) is pinned by its SHA-256 and lies in a cache folder, ``CARAVELA_CACHE`` or
``~/.cache/caravela``, where ``python jobs/fetch_models.py`` puts it. Workers on other nodes can fetch a model of any
name themselves: ``model_uri`` may be an s3:// URI.

What it costs: see ``filters.fasttext_model``. What it gets wrong: see ``LanguageConfig.threshold``.
"""

import difflib
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from caravela import storage
from caravela.config import fingerprint
from caravela.data.columns import strings
from caravela.errors import UserError
from filters.clean_text import blank
from filters.fasttext_model import FastTextModel
from filters.near_languages import GLOTLID

FETCH_COMMAND = "python jobs/fetch_models.py"
UNDETERMINED = ("und", 0.0)
LABEL_PREFIX = "__label__"
THRESHOLD = 0.65
"""For labels spelled as lid.176 spells them: ISO 639-1, and three letters where there are no two."""
THRESHOLD_WITH_SCRIPT = 0.799
"""For labels spelled as GlotLID spells them, ISO 639-3 and ISO 15924: FineWeb-2's for Portuguese."""
_WITH_SCRIPT = re.compile("[a-z]{3}_[A-Z][a-z]{3}")


@dataclass(frozen=True)
class ModelFile:
    """A published model: its file, where its publisher has it, and what the file must be."""

    file_name: str
    url: str
    sha256: str


MODELS = {
    "lid.176": ModelFile(
        "lid.176.ftz",
        "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.ftz",
        "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
    )
}


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """Which model names the language, and which languages stay."""

    model: str = "lid.176"
    """A model that ``fetch_models.py`` knows; ``model_uri`` goes before it."""
    model_uri: str = ""
    """Another fastText model, local or s3://, for example GlotLID's."""
    model_sha256: str = ""
    """What the file behind ``model_uri`` must be; empty: not checked."""
    languages: tuple[str, ...] = ("pt",)
    """Labels to keep, as the model spells them; pt stands for GlotLID's por_Latn too, and so for languages near it."""
    threshold: float | None = None
    """The least score of the best label; none given: 0.65, or 0.799 where it is spelled like por_Latn (FineWeb-2's, for
    GlotLID). For lid.176 and texts of 50 words or more, 0.65 keeps 99.9 % of Portuguese and takes 1 of 3,998 others for
    it (0.5: 5, all Galician); 0.799 loses 0.6 % (3 % of manuals). Single sentences are harder: 0.65 loses 7 % of
    Portuguese and takes 5 % of Galician."""
    candidates: int = 3
    """How many labels are kept with the document, the best one included."""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model = {self.model!r}: expected one of {', '.join(MODELS)}; or set model_uri")
        if not self.languages:
            raise ValueError("languages = []: expected at least one label")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold = {self.threshold}: expected between 0 and 1")
        if self.candidates < 1:
            raise ValueError(f"candidates = {self.candidates}: expected 1 or more")


class LanguageIdentifier:
    """Holds one model and what it has learned of words; make one per process.

    Args:
        path: the model's file on this machine.
        candidates: how many labels it names for a text.
    """

    def __init__(self, path: str, candidates: int = 3) -> None:
        self._candidates = candidates
        self._model = FastTextModel(path)
        self.labels = tuple(label.removeprefix(LABEL_PREFIX) for label in self._model.labels)

    @classmethod
    def from_config(cls, config: LanguageConfig) -> Self:
        """With the model that the config names, fetched to this node if it lies in S3.

        Raises:
            UserError: there is no such model, or it knows none of the languages to keep.
        """
        path = fetched_model(config.model_uri, config.model_sha256) if config.model_uri else model_path(config.model)
        identifier = cls(path, config.candidates)
        check_languages(config, identifier.labels, path)
        return identifier

    def identify_batch(self, text: pa.Array) -> list[list[tuple[str, float]]]:
        """Of each text of a string column the likeliest labels, best first, with scores from 0 to 1.

        ``[("und", 0.0)]`` where there is no word, and for a null. Line breaks count as blanks.
        """
        found = self._model.predict(text, self._candidates)
        found.labels[blank(text)] = -1
        # fastText adds 1e-5 to every probability on its path, so that sure ones come out above 1.
        all_scores = np.minimum(found.scores, np.float32(1)).tolist()
        return [
            [(self.labels[label], score) for label, score in zip(labels, scores, strict=True) if label >= 0]
            or [UNDETERMINED]
            for labels, scores in zip(found.labels.tolist(), all_scores, strict=True)
        ]

    def identify(self, text: str) -> list[tuple[str, float]]:
        """The same for one text; a batch costs much less for each."""
        return self.identify_batch(strings([text], pa.large_string()))[0]


def decide(ranking: Sequence[tuple[str, float]], config: LanguageConfig) -> tuple[str, str] | None:
    """Why a text with this ranking goes, as (reason, detail); None for a text to keep."""
    label, score = ranking[0]
    if not is_kept(label, config):
        return "other_language", f"{label} {score:.3f}"
    if score < (threshold := threshold_for(label, config)):
        return "unsure", f"{label} {score:.3f} is below {threshold:g}"
    return None


def is_kept(label: str, config: LanguageConfig) -> bool:
    """Whether a label names one of the languages to keep."""
    return label in config.languages or GLOTLID.get(label) in config.languages


def threshold_for(label: str, config: LanguageConfig) -> float:
    """The least score with which a text of this label stays."""
    if config.threshold is not None:
        return config.threshold
    return THRESHOLD_WITH_SCRIPT if _WITH_SCRIPT.fullmatch(label) else THRESHOLD


def check_languages(config: LanguageConfig, labels: Sequence[str], path: str) -> None:
    """Whether a model can find what the config keeps.

    Raises:
        UserError: none of the languages is among its labels; names the nearest.
    """
    if any(is_kept(label, config) for label in labels):
        return
    spellings = [spelling for each in config.languages for spelling in (GLOTLID.get(each, each), each, each[:3])]
    near = [match for spelling in spellings for match in difflib.get_close_matches(spelling, labels, n=3, cutoff=0.5)]
    raise UserError(
        f"language.languages = {list(config.languages)}: none is among the {len(labels)} labels of {path}; "
        f"expected at least one of them, for example {', '.join(list(dict.fromkeys([*near, *sorted(labels)]))[:5])}"
    )


def cache_folder() -> str:
    """Where models lie on this machine."""
    return os.environ.get("CARAVELA_CACHE") or os.path.expanduser("~/.cache/caravela")


def model_path(name: str) -> str:
    """The local file of a published model.

    Raises:
        UserError: it was not fetched, or is not the file that was pinned; says which command mends it.
    """
    model = MODELS[name]
    path = os.path.join(cache_folder(), model.file_name)
    if not os.path.isfile(path):
        raise UserError(f"{path}: the language model {name} is not there; fetch it with: {FETCH_COMMAND}")
    check_sha256(path, model.sha256, f"fetch it again with: {FETCH_COMMAND}")
    return path


def fetched_model(uri: str, sha256: str, section: str = "language") -> str:
    """The local file of a model of one's own; a copy in the cache if it lies in S3, made once per version and node.

    Raises:
        UserError: no such file, or not the one that ``sha256`` names; says which settings of ``section`` to correct.
    """
    way_out = f"correct {section}.model_uri or {section}.model_sha256"
    try:
        version = storage.stat(uri)
    except FileNotFoundError:
        what = "language model" if section == "language" else "model"
        raise UserError(f"{uri}: no such {what}; {way_out}") from None
    if not storage.is_remote(uri):
        path = os.path.abspath(os.path.expanduser(uri))
        check_sha256(path, sha256, way_out)
        return path
    cache = cache_folder()
    path = os.path.join(cache, f"{fingerprint([uri, version, sha256])}-{storage.name_of(uri)}")
    if not os.path.isfile(path):
        os.makedirs(cache, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            part = os.path.join(folder, "model")
            storage.fetch(uri, part)
            check_sha256(part, sha256, way_out, shown=uri)
            os.replace(part, path)
    return path


def check_sha256(path: str, expected: str, way_out: str, shown: str = "") -> None:
    """Compares a file with its pin; an empty pin fits every file.

    Raises:
        UserError: names the file (as ``shown``, if given), both sums and the way out.
    """
    if expected and (found := storage.sha256_of(path)) != expected:
        raise UserError(f"{shown or path}: SHA-256 is {found}, expected {expected}; {way_out}")
