"""How good predictions are, by arithmetic alone: confusion, precision and recall, curves, thresholds.

In: arrays of what is true and what was said. Out: plain figures for report.json. A ratio whose denominator is zero
(the precision of a label that was never said) is None, not 0 and not 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating[Any]]

GRID = 101
"""Thresholds 0, 0.01 ... 1 of the curve by threshold."""
CURVE_POINTS = 200
LENGTHS = (("1 to 4 words", 1), ("5 to 19 words", 5), ("20 to 99 words", 20), ("100 words and more", 100))
"""Classes of length, each with its least number of words."""


def ratio(part: float, whole: float) -> float | None:
    """A share, rounded; None of nothing."""
    return round(float(part) / float(whole), 6) if whole else None


def confusion(true: Ids, said: Ids, num_labels: int) -> npt.NDArray[np.int64]:
    """Counts, (true label, said label)."""
    cells = true.astype(np.int64) * num_labels + said.astype(np.int64)
    return np.bincount(cells, minlength=num_labels * num_labels).reshape(num_labels, num_labels)


def per_label(table: npt.NDArray[np.int64], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each label, from a confusion table."""
    rows = []
    for i, label in enumerate(labels):
        right, said, texts = int(table[i, i]), int(table[:, i].sum()), int(table[i].sum())
        rows.append(
            {
                "label": label,
                "texts": texts,
                "said": said,
                "precision": ratio(right, said),
                "recall": ratio(right, texts),
                "f1": ratio(2 * right, said + texts),
            }
        )
    return rows


def by_length(words: Ids, right: Flags) -> list[dict[str, Any]]:
    """Accuracy per class of length."""
    places = np.searchsorted([least for _, least in LENGTHS], words, side="right") - 1
    rows = []
    for number, (name, _) in enumerate(LENGTHS):
        own = right[places == number]
        rows.append({"length": name, "texts": len(own), "accuracy": ratio(own.sum(), len(own))})
    return rows


class Curve(NamedTuple):
    """Precision and recall where everything from a threshold upwards counts as positive; thresholds fall."""

    thresholds: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]


def precision_recall(scores: Scores, positive: Flags) -> Curve:
    """One point for each different score; both classes must be there."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    true = np.cumsum(positive[order])
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of each run of equal scores
    return Curve(ordered[last], true[last] / (last + 1), true[last] / true[-1])


def average_precision(curve: Curve) -> float:
    """Area under the steps of the curve: the sum of precision times the recall that each point adds."""
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.precision))


def roc_auc(scores: Scores, positive: Flags) -> float:
    """Probability that a positive text scores above a negative one, ties counted half."""
    values, groups = np.unique(scores, return_inverse=True)
    positives = np.bincount(groups, weights=positive, minlength=len(values))
    negatives = np.bincount(groups, weights=~positive, minlength=len(values))
    below = np.cumsum(negatives) - negatives
    return float(np.sum(positives * (below + negatives / 2)) / (positives.sum() * negatives.sum()))


def chosen_thresholds(curve: Curve, targets: Sequence[float]) -> dict[str, float]:
    """Thresholds by name: the highest that reaches a recall, the lowest that reaches a precision, and the best F1.

    A precision that no threshold reaches has no entry.
    """
    chosen: dict[str, float] = {}
    for target in targets:
        reaches = np.flatnonzero(curve.recall >= target)
        chosen[f"recall {target:g}"] = float(curve.thresholds[reaches[0]])
        pure = np.flatnonzero(curve.precision >= target)
        if len(pure):
            chosen[f"precision {target:g}"] = float(curve.thresholds[pure[-1]])
    total = curve.precision + curve.recall
    f1 = np.divide(2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0)
    chosen["best F1"] = float(curve.thresholds[int(np.argmax(f1))])
    return chosen


def at_threshold(scores: Scores, positive: Flags, threshold: float) -> dict[str, Any]:
    """What comes of keeping every text whose score is not below the threshold; ``dropped`` is of the negative texts."""
    kept = scores >= threshold
    right = int((kept & positive).sum())
    precision, recall = ratio(right, kept.sum()), ratio(right, positive.sum())
    return {
        "threshold": round(float(threshold), 6),
        "kept": ratio(kept.sum(), len(kept)),
        "precision": precision,
        "recall": recall,
        "f1": ratio(2 * right, kept.sum() + positive.sum()),
        "dropped": ratio((~kept & ~positive).sum(), (~positive).sum()),
    }


def by_threshold(scores: Scores, positive: Flags) -> list[dict[str, Any]]:
    """``at_threshold`` for 0, 0.01 ... 1."""
    return [at_threshold(scores, positive, threshold) for threshold in np.linspace(0, 1, GRID)]


def thinned(curve: Curve) -> list[Mapping[str, float]]:
    """Points of a curve for a drawing: all of them, or an even choice with both ends."""
    places = np.unique(np.linspace(0, len(curve.recall) - 1, CURVE_POINTS).round().astype(int))
    return [
        {
            "threshold": round(float(curve.thresholds[i]), 6),
            "precision": round(float(curve.precision[i]), 6),
            "recall": round(float(curve.recall[i]), 6),
        }
        for i in places
    ]
