"""Language identification with fastText: lid.176 by default, or any fastText model, GlotLID among them.

In: a text. Out: ``LanguageIdentifier.identify`` gives the likeliest labels with their scores, best first; ``decide``
says whether the text is in one of the languages that the config keeps.

lid.176.ftz (176 languages, CC BY-SA 3.0) is pinned by its SHA-256 and lies in a cache folder, ``CARAVELA_CACHE`` or
``~/.cache/caravela``, where ``python jobs/fetch_models.py`` puts it. Workers on other nodes can fetch a model of any
name themselves: ``model_uri`` may be an s3:// URI.

What it costs: about 5 MB/s per core, 20 MB of memory. What it gets wrong: see ``LanguageConfig.threshold``.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import fasttext

from caravela import storage
from caravela.config import fingerprint
from caravela.errors import UserError

FETCH_COMMAND = "python jobs/fetch_models.py"
UNDETERMINED = ("und", 0.0)
LABEL_PREFIX = "__label__"


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
    """Another fastText model, local or s3://; with GlotLID set languages to ["por_Latn"] and threshold to 0.799."""
    model_sha256: str = ""
    """What the file behind ``model_uri`` must be; empty: not checked."""
    languages: tuple[str, ...] = ("pt",)
    """Labels to keep, as the model spells them."""
    threshold: float = 0.65
    """The least score of the best label. For lid.176 and texts of 50 words or more, 0.65 keeps 99.9 % of Portuguese and
    takes 1 of 3,998 others for it (0.5: 5, all Galician); 0.799, FineWeb-2's for GlotLID, loses 0.6 % (3 % of manuals).
    Single sentences are harder: 0.65 loses 7 % of Portuguese and takes 5 % of Galician."""
    candidates: int = 3
    """How many labels are kept with the document, the best one included."""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model = {self.model!r}: expected one of {', '.join(MODELS)}; or set model_uri")
        if not self.languages:
            raise ValueError("languages = []: expected at least one label")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold = {self.threshold}: expected between 0 and 1")
        if self.candidates < 1:
            raise ValueError(f"candidates = {self.candidates}: expected 1 or more")


class LanguageIdentifier:
    """Holds one model; make one per process."""

    def __init__(self, path: str, candidates: int = 3) -> None:
        self._candidates = candidates
        try:
            self._model = fasttext.load_model(path)
        except ValueError as error:
            raise UserError(f"{path}: not a fastText model: {error}") from error

    @classmethod
    def from_config(cls, config: LanguageConfig) -> Self:
        """With the model that the config names, fetched to this node if it lies in S3."""
        path = fetched_model(config.model_uri, config.model_sha256) if config.model_uri else model_path(config.model)
        return cls(path, config.candidates)

    def identify(self, text: str) -> list[tuple[str, float]]:
        """The likeliest labels, best first, with scores from 0 to 1; ``[("und", 0.0)]`` where there is no word."""
        if not text or text.isspace():
            return [UNDETERMINED]
        labels, scores = self._model.predict(text.replace("\n", " "), k=self._candidates)
        # fastText adds 1e-5 to every probability on its path, so that sure ones come out above 1.
        ranking = [
            (label.removeprefix(LABEL_PREFIX), min(float(score), 1.0))
            for label, score in zip(labels, scores, strict=True)
        ]
        return ranking or [UNDETERMINED]


def decide(ranking: Sequence[tuple[str, float]], config: LanguageConfig) -> tuple[str, str] | None:
    """Why a text with this ranking goes, as (reason, detail); None for a text to keep."""
    label, score = ranking[0]
    if label not in config.languages:
        return "other_language", f"{label} {score:.3f}"
    if score < config.threshold:
        return "unsure", f"{label} {score:.3f} is below {config.threshold:g}"
    return None


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
