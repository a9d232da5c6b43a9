"""A fastText classifier's score of each text, as a signal: the probability of one label of one's own model.

In: an Arrow array of texts. Out: ``TextClassifier.scores``, float32 from 0 to 1, the same for a text whatever stands
beside it; 0 for a text without words. ``decide`` says whether a score is too low. ``jobs/train_classifier.py`` makes
such a model and reports which threshold keeps how much.

Any fastText model that names labels will do: it may lie in S3 and be fetched once per node, and may be pinned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import fasttext
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.config import ConfigError
from caravela.errors import UserError
from filters.language import LABEL_PREFIX, fetched_model

SIGNAL = "classifier_score"
REASON = "low_score"
BATCH_TEXTS = 256


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Which classifier scores the texts, and how much it must give."""

    model_uri: str = ""
    """A fastText model, local or s3://; empty: no classifier, no score."""
    model_sha256: str = ""
    """What the file must be; empty: not checked."""
    label: str = "keep"
    """The label whose probability is the score."""
    min_score: float = 0.0
    """Texts with a lower score are removed; 0: none, the score is stored all the same."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score = {self.min_score}: expected between 0 and 1")
        if self.min_score and not self.model_uri:
            raise ConfigError(f"min_score = {self.min_score}: expected 0 without model_uri")

    @property
    def enabled(self) -> bool:
        """Whether there is a model."""
        return bool(self.model_uri)


class FastTextLabels:
    """A fastText model by its labels; make one per process."""

    def __init__(self, path: str) -> None:
        try:
            self._model: Any = fasttext.load_model(path)
            names = self._model.get_labels()
        except ValueError as error:
            raise UserError(f"{path}: not a fastText model that names labels: {error}") from error
        self.labels = tuple(name.removeprefix(LABEL_PREFIX) for name in names)

    def best(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The likeliest label of each text and its score; the first label and 0 where the model says nothing."""
        labels, scores = self._model.predict([text.replace("\n", " ") for text in texts], k=1)
        return [
            (names[0].removeprefix(LABEL_PREFIX), min(float(values[0]), 1.0)) if names else (self.labels[0], 0.0)
            for names, values in zip(labels, scores, strict=True)
        ]

    def scores(self, texts: Sequence[str], label: str) -> npt.NDArray[np.float32]:
        """The probability of a label for each text; 0 for a text without words."""
        found = np.zeros(len(texts), np.float32)
        wanted = LABEL_PREFIX + label
        rows = [row for row, text in enumerate(texts) if text and not text.isspace()]
        if rows:
            labels, scores = self._model.predict([texts[row].replace("\n", " ") for row in rows], k=-1)
            for row, names, values in zip(rows, labels, scores, strict=True):
                # fastText adds 1e-5 to every probability, so that sure ones come out above 1.
                found[row] = min(float(values[names.index(wanted)]), 1.0) if wanted in names else 0.0
        return found


class TextClassifier:
    """Scores texts by one label; make one per process."""

    def __init__(self, config: ClassifierConfig) -> None:
        assert config.enabled, "no model_uri, so there is nothing to score with"
        path = fetched_model(config.model_uri, config.model_sha256)
        self._model = FastTextLabels(path)
        self._label = config.label
        if config.label not in self._model.labels:
            raise UserError(
                f"{config.model_uri}: has no label {config.label!r}; expected classifier.label to be one of "
                f"{', '.join(self._model.labels)[:200]}"
            )

    @classmethod
    def from_config(cls, config: ClassifierConfig) -> Self | None:
        """None where no model is named."""
        return cls(config) if config.enabled else None

    def scores(self, texts: pa.Array) -> npt.NDArray[np.float32]:
        """One score a text; nulls count as empty."""
        parts = [np.zeros(0, np.float32)]
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = [text or "" for text in texts.slice(start, BATCH_TEXTS).to_pylist()]
            parts.append(self._model.scores(batch, self._label))
        return np.concatenate(parts)


def decide(score: float, config: ClassifierConfig) -> tuple[str, str] | None:
    """Why a text with this score goes, as (reason, detail); None for a text to keep."""
    if score < config.min_score:
        return REASON, f"{config.label} {score:.3f} is below {config.min_score:g}"
    return None
