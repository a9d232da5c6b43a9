"""Classifiers of one's own: the probability that a fastText model gives to one of its labels, as a signal.

In: an Arrow column of texts. Out: ``TextClassifier.scores``, float32 from 0 to 1, the same for a text whatever stands
beside it; 0 for a text without words. ``decide`` says whether a score is too low or too high. It is fastText's own
probability, computed by ``filters.fasttext_model``. ``jobs/train_classifier.py`` makes such a model and reports which
threshold keeps how much.

Any fastText model that names labels will do; it may lie in S3 and is fetched once per node then.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela import storage
from caravela.config import ConfigError
from caravela.errors import UserError
from caravela.manifest import Input
from filters.clean_text import blank
from filters.fasttext_model import FastTextModel
from filters.language import LABEL_PREFIX, fetched_model

SETTING = "classifiers"
_NAME = re.compile("[a-z][a-z0-9_]*")
SHOWN_LABELS = 10


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """A model that scores the texts, and which scores stay."""

    name: str
    """The scores are column ``classifier_<name>``."""
    model_uri: str
    """A fastText model, local or s3://."""
    model_sha256: str = ""
    """What the file must be; empty: not checked."""
    label: str = "keep"
    """The label whose probability is the score."""
    at_least: float | None = None
    """Documents with a lower score are removed; none given: none is."""
    at_most: float | None = None
    """Documents with a higher score are removed; none given: none is."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"name = {self.name!r}: expected small letters, digits and _, a letter first")
        if not self.model_uri:
            raise ConfigError(f"model_uri = {self.model_uri!r}: expected a fastText model, local or s3://")
        for name in ("at_least", "at_most"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} = {value}: expected between 0 and 1")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ConfigError(f"at_least = {self.at_least}: expected not above at_most = {self.at_most}")

    @property
    def signal(self) -> str:
        """The column of the scores."""
        return f"classifier_{self.name}"


def check_names(configs: Sequence[ClassifierConfig]) -> None:
    """Whether each classifier has a name of its own.

    Raises:
        ConfigError: two have the same.
    """
    names = [config.name for config in configs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{SETTING}: name = {twice[0]!r}: expected another name for each classifier")


def model_inputs(configs: Sequence[ClassifierConfig]) -> tuple[Input, ...]:
    """What identifies the models, for the fingerprint of the stage that uses them: their content, not where they lie.

    Raises:
        UserError: a model that is not pinned is not there.
    """
    return tuple(Input(name=f"classifier {c.name}", fingerprint=_content_of(c), uri=c.model_uri) for c in configs)


def _content_of(config: ClassifierConfig) -> str:
    if config.model_sha256:
        return config.model_sha256
    if not storage.is_remote(config.model_uri):
        return storage.sha256_of(fetched_model(config.model_uri, "", SETTING))
    try:
        info = storage.stat(config.model_uri)
    except FileNotFoundError:
        raise UserError(f"{config.model_uri}: no such model; correct {SETTING}.model_uri") from None
    return f"{info['size']}-{info['version']}"


class TextClassifier:
    """Scores texts by one label; make one per process."""

    def __init__(self, config: ClassifierConfig) -> None:
        self._model = FastTextModel(fetched_model(config.model_uri, config.model_sha256, SETTING))
        labels = [label.removeprefix(LABEL_PREFIX) for label in self._model.labels]
        if config.label not in labels:
            shown = ", ".join(sorted(labels)[:SHOWN_LABELS]) + (" ..." if len(labels) > SHOWN_LABELS else "")
            raise UserError(
                f"{SETTING}: label = {config.label!r}: not among the {len(labels)} labels of {config.model_uri}; "
                f"expected one of {shown}"
            )
        self._label = labels.index(config.label)

    def scores(self, text: pa.Array) -> npt.NDArray[np.float32]:
        """One score a text of a string column; nulls count as empty."""
        return probabilities(self._model, text, self._label)


def probabilities(model: FastTextModel, text: pa.Array, label: int) -> npt.NDArray[np.float32]:
    """The probability of a label (its place in ``model.labels``) for each text; 0 for a text without words."""
    found = model.predict(text, len(model.labels))
    scores: npt.NDArray[np.float32] = np.zeros(len(text), np.float32)
    rows, places = np.nonzero(found.labels == label)
    scores[rows] = found.scores[rows, places]
    scores[blank(text)] = 0
    # fastText adds 1e-5 to every probability, so that sure ones come out above 1.
    np.minimum(scores, np.float32(1), out=scores)
    return scores


def decide(score: float, config: ClassifierConfig) -> tuple[str, str] | None:
    """Why a text with this score (of 32 bits, as it is stored) goes, as (reason, detail); None for a text to keep."""
    if config.at_least is not None and score < config.at_least:
        return f"{config.name}_too_low", f"{config.label} {score:.3f} is below {config.at_least:g}"
    if config.at_most is not None and score > config.at_most:
        return f"{config.name}_too_high", f"{config.label} {score:.3f} is above {config.at_most:g}"
    return None
