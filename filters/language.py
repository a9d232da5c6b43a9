"""Language identification with fastText: lid.176 by default, or any fastText model, GlotLID among them.

In: an Arrow array of texts, or one text. Out: ``LanguageIdentifier.identify_batch`` and ``identify`` give the likeliest
labels with their scores, best first; ``decide_batch`` and ``decide`` say which texts are in one of the languages that
the config keeps. Scores are float32, as the documents' table stores them, and are compared as float32: to decide again
on stored scores gives the same.

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
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela import storage
from caravela.config import fingerprint
from caravela.errors import UserError
from filters.byte_kernels import I64, U8
from filters.fasttext_file import frozen
from filters.fasttext_kernels import blank_texts
from filters.fasttext_model import FastTextModel, Predictions, utf8_buffers

FETCH_COMMAND = "python jobs/fetch_models.py"
UNDETERMINED = ("und", 0.0)
LABEL_PREFIX = "__label__"


class LabelScheme(NamedTuple):
    """How a model spells languages, and what a config that says nothing of them means then."""

    languages: tuple[str, ...]
    threshold: float


TWO_LETTERS = LabelScheme(("pt",), 0.65)
"""lid.176's: ISO 639-1, and three letters where there are no two."""
WITH_SCRIPT = LabelScheme(("por_Latn",), 0.799)
"""GlotLID's: ISO 639-3 and ISO 15924. The threshold is FineWeb-2's for Portuguese."""


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
    languages: tuple[str, ...] | None = None
    """Labels to keep, as the model spells them; none given: pt, or por_Latn where the model's labels look like that."""
    threshold: float | None = None
    """The least score of the best label; none given: 0.65, or 0.799 where labels look like por_Latn (FineWeb-2's, for
    GlotLID). For lid.176 and texts of 50 words or more, 0.65 keeps 99.9 % of Portuguese and takes 1 of 3,998 others for
    it (0.5: 5, all Galician); 0.799 loses 0.6 % (3 % of manuals). Single sentences are harder: 0.65 loses 7 % of
    Portuguese and takes 5 % of Galician."""
    candidates: int = 3
    """How many labels are kept with the document, the best one included."""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model = {self.model!r}: expected one of {', '.join(MODELS)}; or set model_uri")
        if self.languages is not None and not self.languages:
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
        """What the numbers of ``identify_batch`` stand for."""

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

    def identify_batch(self, text: pa.Array) -> Predictions:
        """The likeliest labels of each text, best first: (texts, candidates) numbers in ``labels``, -1 for none, and
        scores from 0 to 1, 0 for none. A text without a word, and a null, have no label.
        """
        return self._identify(*utf8_buffers(text))

    def identify(self, text: str) -> list[tuple[str, float]]:
        """The same for one text, with labels by name; ``[("und", 0.0)]`` where there is none."""
        data = text.encode("utf-8", "replace")
        return self.ranking(self._identify(np.frombuffer(data, np.uint8), np.array([0, len(data)], np.int64)), 0)

    def ranking(self, found: Predictions, text: int) -> list[tuple[str, float]]:
        """What was found for text number ``text``, with labels by name."""
        pairs = zip(found.labels[text].tolist(), found.scores[text].tolist(), strict=True)
        return [(self.labels[label], score) for label, score in pairs if label >= 0] or [UNDETERMINED]

    def decide_batch(self, found: Predictions, config: LanguageConfig) -> list[tuple[str, str] | None]:
        """``decide`` for each text."""
        schemes = [_scheme(label, config) for label in self.labels]
        wanted = np.array([label in scheme.languages for label, scheme in zip(self.labels, schemes, strict=True)])
        least = np.array([scheme.threshold for scheme in schemes], np.float32)
        best = found.labels[:, 0]
        kept = (best >= 0) & wanted[best] & (found.scores[:, 0] >= least[best])
        decisions: list[tuple[str, str] | None] = [None] * len(kept)
        for text in np.flatnonzero(~kept).tolist():
            decisions[text] = decide(self.ranking(found, text), config)
        return decisions

    def _identify(self, data: U8, borders: I64) -> Predictions:
        found = self._model.predict_buffers(data, borders, self._candidates)
        # fastText adds 1e-5 to every probability on its path, so that sure ones come out above 1.
        np.minimum(found.scores, np.float32(1), out=found.scores)
        blank: npt.NDArray[np.bool_] = np.zeros(len(borders) - 1, np.bool_)
        blank_texts(frozen(data), np.array(borders), blank)
        found.labels[blank], found.scores[blank] = -1, 0
        return found


def decide(ranking: Sequence[tuple[str, float]], config: LanguageConfig) -> tuple[str, str] | None:
    """Why a text with this ranking goes, as (reason, detail); None for a text to keep."""
    label, score = ranking[0]
    scheme = _scheme(label, config)
    if label not in scheme.languages:
        return "other_language", f"{label} {score:.3f}"
    if np.float32(score) < np.float32(scheme.threshold):
        return "unsure", f"{label} {score:.3f} is below {scheme.threshold:g}"
    return None


def check_languages(config: LanguageConfig, labels: Sequence[str], path: str) -> None:
    """Whether a model can find what the config keeps.

    Raises:
        UserError: none of the languages is among its labels; names the nearest.
    """
    languages = config.languages or tuple(language for label in labels for language in _scheme(label, config).languages)
    if set(languages) & set(labels):
        return
    wanted = list(dict.fromkeys(languages))
    spellings = [spelling for language in wanted for spelling in (language, language[:3])]
    near = [match for spelling in spellings for match in difflib.get_close_matches(spelling, labels, n=3, cutoff=0.5)]
    shown = ", ".join(dict.fromkeys(near)) or ", ".join(sorted(labels)[:5])
    raise UserError(
        f"language.languages = {wanted}: none is among the {len(labels)} labels of {path}; "
        f"expected at least one of them, for example {shown}"
    )


def _scheme(label: str, config: LanguageConfig) -> LabelScheme:
    """What a config means for labels that are spelled like this one."""
    default = WITH_SCRIPT if re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", label) else TWO_LETTERS
    languages = default.languages if config.languages is None else config.languages
    return LabelScheme(languages, default.threshold if config.threshold is None else config.threshold)


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


def fetched_model(uri: str, sha256: str) -> str:
    """The local file of a model of one's own; a copy in the cache if it lies in S3, made once per version and node.

    Raises:
        UserError: no such file, or not the one that ``sha256`` names.
    """
    way_out = "correct language.model_uri or language.model_sha256"
    try:
        version = storage.stat(uri)
    except FileNotFoundError:
        raise UserError(f"{uri}: no such language model; {way_out}") from None
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
