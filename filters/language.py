"""Which language a text is in, by fastText; and whether it is one that is wanted.

In: a text. Out: the most likely languages with their scores, best first; a decision with its reason.

The model file is pinned by its SHA-256 and lies in a cache that ``jobs/fetch_models.py`` fills. On a cluster
``model_uri`` names a copy in storage, which each node fetches once. fastText's own predict runs at 5 MB/s on one core.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from fasttext.FastText import _FastText

from caravela import storage
from caravela.config import ConfigError
from caravela.errors import UserError

LID_176 = "lid.176.ftz"
MODELS = {LID_176: "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"}
"""File name → SHA-256."""
LABEL_PREFIX = "__label__"


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """Which languages are kept, and how sure the model must be."""

    languages: tuple[str, ...] = ("pt",)
    """Labels of the model that are kept: ISO 639-1 for lid.176."""
    threshold: float = 0.65
    """Least score of the best label. On labelled text lid.176.ftz at 0.65 keeps 99.8 % of Portuguese documents and
    99.0 % of paragraphs, and takes 0.5 % of Galician paragraphs for Portuguese; 0.8 loses 2.3 % of paragraphs."""
    runners_up: int = 3
    """How many labels are stored with each document."""
    model_uri: str = ""
    """A fastText model, local or s3://; lid.176.ftz from the cache by default."""
    model_sha256: str = MODELS[LID_176]
    """What the model file must hash to; part of a run's identity. Empty: not checked (only with ``model_uri``)."""

    def __post_init__(self) -> None:
        if not self.languages:
            raise ConfigError("languages = []: expected at least one label of the model")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold = {self.threshold}: expected between 0 and 1")
        if self.runners_up < 1:
            raise ConfigError(f"runners_up = {self.runners_up}: expected 1 or more")
        if not self.model_uri and self.model_sha256 not in MODELS.values():
            raise ConfigError(f"model_sha256 = {self.model_sha256!r}: expected a model_uri with it")


class LanguageIdentifier:
    """Holds a model; 2 MB for lid.176.ftz, a gigabyte for one that is not quantised."""

    def __init__(self, path: str, runners_up: int = 3) -> None:
        # load_model() of the package does the same and prints a line to stderr each time.
        self._model = _FastText(model_path=path)
        self._runners_up = runners_up

    @classmethod
    def from_config(cls, config: LanguageConfig) -> "LanguageIdentifier":
        return cls(local_model(config), config.runners_up)

    def identify(self, text: str) -> list[tuple[str, float]]:
        """Labels and scores (0 to 1), best first. White space between words is all one to fastText."""
        line = " ".join(text.split()) + "\n"
        found = self._model.f.predict(line, self._runners_up, 0.0, "strict")
        return [(label.removeprefix(LABEL_PREFIX), min(1.0, score)) for score, label in found]


def decide(ranking: Sequence[tuple[str, float]], config: LanguageConfig) -> tuple[str, str] | None:
    """``("other_language", "es 0.97")``, ``("unsure", "pt 0.42")``, or None for a text that stays."""
    best, score = ranking[0] if ranking else ("none", 0.0)
    if best not in config.languages:
        return "other_language", f"{best} {score:.2f}"
    if score < config.threshold:
        return "unsure", f"{best} {score:.2f}"
    return None


def cache_folder() -> str:
    """Where model files lie: ``$CARAVELA_CACHE``, else ``~/.cache/caravela``."""
    return os.path.expanduser(os.environ.get("CARAVELA_CACHE") or "~/.cache/caravela")


def local_model(config: LanguageConfig) -> str:
    """The local path of the configured model, fetched from storage if need be.

    Raises:
        UserError: it is not there, or not the file that was meant.
    """
    if not config.model_uri:
        path = os.path.join(cache_folder(), LID_176)
        if not os.path.exists(path):
            raise UserError(f"{path}: no language model; fetch it with: python jobs/fetch_models.py")
    elif storage.is_remote(config.model_uri):
        path = _fetched(config.model_uri, config.model_sha256)
    else:
        path = config.model_uri
        if not os.path.exists(path):
            raise UserError(f"{path}: no such model (curate.language.model_uri)")
    if config.model_sha256:
        check_model(path, config.model_sha256)
    return path


def check_model(path: str, sha256: str) -> None:
    """Refuses a file whose SHA-256 is another."""
    found = storage.sha256_of(path)
    if found != sha256:
        raise UserError(f"{path}: SHA-256 is {found}, expected {sha256}; remove it and run python jobs/fetch_models.py")


def _fetched(uri: str, sha256: str) -> str:
    """A copy in the cache under a name that another model never has."""
    path = os.path.join(cache_folder(), f"{sha256[:16] or 'unchecked'}-{storage.name_of(uri)}")
    if not os.path.exists(path) or not sha256:
        os.makedirs(cache_folder(), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            temporary = os.path.join(folder, "model")
            storage.fetch(uri, temporary)
            os.replace(temporary, path)
    return path
