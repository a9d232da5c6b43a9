"""Arithmetic of the reports, against brute force and numbers by hand."""

import itertools

import numpy as np
import pytest

from filters.training import measures


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and which are positive; higher scores are more often positive."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 12, 200) / 11
    positive = generator.random(200) < scores
    return scores.astype(np.float32), positive


@pytest.mark.parametrize("seed", range(5))
def test_figures_of_each_label_equal_counting_one_by_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = ["ca", "es", "pt", "never"]
    true, said = generator.integers(0, 3, 300), generator.integers(0, 3, 300)
    rows = measures.per_label(measures.confusion(true, said, 4), labels)
    for number, row in enumerate(rows[:3]):
        hits = sum(t == number and s == number for t, s in zip(true, said, strict=True))
        assert row["texts"] == sum(t == number for t in true)
        assert row["precision"] == pytest.approx(hits / sum(s == number for s in said), abs=1e-6)
        assert row["recall"] == pytest.approx(hits / sum(t == number for t in true), abs=1e-6)
        f1 = 2 / (1 / row["precision"] + 1 / row["recall"])
        assert row["f1"] == pytest.approx(f1, abs=1e-5)
    assert rows[3] == {"label": "never", "texts": 0, "said": 0, "precision": None, "recall": None, "f1": None}


def test_rows_of_the_confusion_table_are_what_is_true() -> None:
    table = measures.confusion(np.array([0, 0, 1]), np.array([1, 0, 1]), 2)
    assert table.tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("seed", range(5))
def test_curve_equals_brute_force_at_every_threshold(seed: int) -> None:
    scores, positive = random_case(seed)
    curve = measures.precision_recall(scores, positive)
    assert curve.thresholds.tolist() == sorted(set(scores.tolist()), reverse=True)
    for threshold, precision, recall in zip(*curve, strict=True):
        kept = [bool(p) for s, p in zip(scores, positive, strict=True) if s >= threshold]
        assert precision == pytest.approx(sum(kept) / len(kept))
        assert recall == pytest.approx(sum(kept) / positive.sum())
    assert (np.diff(curve.recall) >= 0).all()
    assert curve.recall[-1] == 1
    assert curve.precision[-1] == pytest.approx(positive.mean())


@pytest.mark.parametrize("seed", range(5))
def test_area_under_the_roc_curve_equals_comparing_all_pairs(seed: int) -> None:
    scores, positive = random_case(seed)
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert measures.roc_auc(scores, positive) == pytest.approx(sum(pairs) / len(pairs))


def test_average_precision_by_hand() -> None:
    """Positive at ranks 1, 3 and 4 of 5: a third of recall each, at precision 1, 2/3 and 3/4."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    positive = np.array([True, False, True, True, False])
    curve = measures.precision_recall(scores, positive)
    assert measures.average_precision(curve) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    perfect = measures.precision_recall(scores, np.array([True, True, False, False, False]))
    assert measures.average_precision(perfect) == 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [0.5, 0.9, 1.0])
def test_chosen_thresholds_are_the_best_that_reach_the_target(seed: int, target: float) -> None:
    scores, positive = random_case(seed)
    chosen = measures.chosen_thresholds(measures.precision_recall(scores, positive), (target,))
    every = sorted(set(scores.tolist()))
    figures = {t: measures.at_threshold(scores, positive, t) for t in every}
    assert chosen[f"recall {target:g}"] == max(t for t in every if figures[t]["recall"] >= target - 1e-6)
    pure = [t for t in every if figures[t]["precision"] >= target - 1e-6]
    assert chosen.get(f"precision {target:g}") == (min(pure) if pure else None)
    best = max(figure["f1"] for figure in figures.values())
    assert figures[chosen["best F1"]]["f1"] == pytest.approx(best, abs=1e-6)


def test_threshold_keeps_equal_scores_and_nothing_has_no_precision() -> None:
    scores, positive = np.array([0.25, 0.5, 0.75]), np.array([False, True, True])
    assert measures.at_threshold(scores, positive, 0.5) == {
        "threshold": 0.5,
        "kept": round(2 / 3, 6),
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
        "dropped": 1.0,
    }
    assert measures.at_threshold(scores, ~positive, 0.5)["dropped"] == 0
    assert measures.at_threshold(scores, positive, 0.8)["precision"] is None
    rows = measures.by_threshold(scores, positive)
    assert [rows[0]["threshold"], rows[50]["threshold"], rows[100]["threshold"]] == [0, 0.5, 1]
    assert all(a["recall"] >= b["recall"] and a["kept"] >= b["kept"] for a, b in itertools.pairwise(rows))


def test_thinned_curve_keeps_both_ends() -> None:
    generator = np.random.default_rng(0)
    scores, positive = generator.random(5000), generator.random(5000) < 0.5
    curve = measures.precision_recall(scores, positive)
    points = measures.thinned(curve)
    assert len(points) == measures.CURVE_POINTS
    assert points[0]["threshold"] == pytest.approx(scores.max(), abs=1e-6)
    assert points[-1]["recall"] == 1


def test_lengths_are_counted_in_their_class() -> None:
    rows = measures.by_length(np.array([1, 4, 5, 19, 20, 100, 900]), np.array([1, 0, 1, 1, 0, 1, 1], bool))
    assert [(row["texts"], row["accuracy"]) for row in rows] == [(2, 0.5), (2, 1.0), (1, 0.0), (2, 1.0)]
