"""Fits the weights of filters/variant.py to labelled text, and says how well they do on sources that they did not see.

``python benchmarks/fit_variant.py LABELLED.jsonl[.gz] [...] --out filters/variant_weights.json``

Each line is an object with a text, its variant (pt-BR or pt-PT; others are passed over) and its source. The figures
come from two cross-validations: by source (a source of both variants is left out with both), and at random in ten
parts that keep documents of one work together. Labels go with sources, so the first is the honest one. The slope that
makes a probability of the score is fitted to what came out of the first, with sources and variants weighted as below.

The model is logistic regression without a constant: a feature weighs what its family weighs on its side plus what is
its own; by squares, the first is drawn to what the inventory says and the second to nothing. Sources count by the
fourth root of their size, and both variants alike. A weight that comes out against its side is set to nothing.
"""

import argparse
import gzip
import json
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caravela import storage
from caravela.progress import table
from filters.variant import BRAZIL, PORTUGAL, Feature, Sightings, VariantConfig, VariantModel, decide, values
from filters.variant import shipped_inventory as inventory

Floats = NDArray[np.float64]
LENGTH_BINS = (0, 20, 50, 150, 300, 600, 1200)
SOURCE_POWER = 0.25  # a source of 10,000 documents counts ten times one of a single document
EFFECTIVE_DOCUMENTS = 2_000  # what all sources together weigh against the priors
LEAST_WEIGHT = 0.1
ROUNDS = 200


@dataclass(frozen=True)
class Labelled:
    """A document: what was found in it, its side (1 for Portugal), and where it is from."""

    sightings: Sightings
    side: int
    source: str
    work: str

    @property
    def cell(self) -> str:
        """Source and label."""
        return f"{self.source}/{PORTUGAL if self.side > 0 else BRAZIL}"


@dataclass(frozen=True)
class Outcome:
    """Log odds for Portugal that a model which has not seen the document gives it, and on how much evidence."""

    document: Labelled
    log_odds: float
    evidence: int


def main() -> None:
    """Prints the tables and writes the weights with the figures beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labelled", nargs="+", help="JSONL files, plain or gzip")
    parser.add_argument("--text", default="text", help="field with the text")
    parser.add_argument("--label", default="variety", help="field with the variant")
    parser.add_argument("--source", default="source", help="field with the source")
    parser.add_argument("--work", default="group_merged", help="field that documents of one work share, if any")
    parser.add_argument("--exclude", nargs="*", default=[], metavar="SOURCE/LABEL", help="mislabelled: not learnt from")
    parser.add_argument("--pull", type=float, nargs=2, default=(20.0, 5.0), metavar=("FAMILY", "ENTRY"))
    parser.add_argument("--out", default="", help="JSON file for the weights")
    options = parser.parse_args()

    clock = time.perf_counter()
    everything = list(read(options))
    print(f"{len(everything):,} documents measured in {time.perf_counter() - clock:.0f} s")
    documents = [document for document in everything if document.cell not in options.exclude]
    sources = sorted({document.source for document in documents})
    by_source = cross_validate(documents, [sources.index(document.source) for document in documents], options.pull)
    at_random = cross_validate(documents, [zlib.crc32(d.work.encode()) % 10 for d in documents], options.pull)
    slope = fitted_slope(by_source)
    config = VariantConfig()
    by_source, at_random = scaled(by_source, slope), scaled(at_random, slope)
    figures = {
        "by_source": summary(by_source, config),
        "at_random": summary(at_random, config),
    }
    print(figures_table(by_source, at_random, config), source_table(by_source, config), sep="\n\n", end="\n\n")
    print(calibration_table(by_source))
    if options.out:
        weights = fit(documents, options.pull)
        seen = {name for document in documents for name in document.sightings.counts}
        found = {
            "about": "log odds for Portugal per damped sighting; made by benchmarks/fit_variant.py",
            "documents": len(documents),
            "excluded": sorted(options.exclude),
            "features_seen": len(seen & weights.keys()),
            "cross_validation": figures,
            "slope": round(slope, 4),
            "least_weight": LEAST_WEIGHT,
            "weights": {name: round(weight, 3) for name, weight in sorted(weights.items())},
        }
        storage.write_text(options.out, json.dumps(found, ensure_ascii=False, indent=1) + "\n")


def read(options: argparse.Namespace) -> Iterator[Labelled]:
    """Documents of the files whose label is a variant."""
    for uri in options.labelled:
        raw = storage.read_bytes(uri)
        for line in (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).splitlines():
            row: dict[str, Any] = json.loads(line)
            label, source = row.get(options.label), row.get(options.source) or storage.name_of(uri)
            if label in (BRAZIL, PORTUGAL):
                side = 1 if label == PORTUGAL else -1
                sightings = inventory().find(row[options.text])
                yield Labelled(sightings, side, source, str(row.get(options.work) or row.get("id")))


def source_weights(documents: Sequence[Labelled]) -> Floats:
    """What each document counts: sources by a root of their size, both variants alike, in all as many as said."""
    cells = [document.cell for document in documents]
    sizes = {cell: cells.count(cell) for cell in set(cells)}
    counts = np.array([sizes[cell] ** (SOURCE_POWER - 1) for cell in cells])
    sides = np.array([document.side for document in documents])
    for side in (-1, 1):
        counts[sides == side] *= EFFECTIVE_DOCUMENTS / 2 / max(counts[sides == side].sum(), 1e-9)
    return counts


def fit(documents: Sequence[Labelled], pull: Sequence[float]) -> dict[str, float]:
    """Weight of every feature of the inventory, those that never occur included: they weigh what their family does."""
    features = list(inventory().features.values())
    place = {feature.name: i for i, feature in enumerate(features)}
    groups = sorted({(feature.family, feature.side) for feature in features})
    group_of = np.array([groups.index((feature.family, feature.side)) for feature in features])
    prior = np.array([_prior(features, group) for group in groups])
    cells = [(row, place[n], v) for row, d in enumerate(documents) for n, v in values(d.sightings.counts)]
    rows, columns, amounts = (np.array(part) for part in zip(*cells, strict=True))
    sides = np.array([document.side for document in documents])
    counts = source_weights(documents)

    def loss(point: Floats) -> tuple[float, Floats]:
        family, own = point[: len(groups)], point[len(groups) :]
        weights = family[group_of] + own
        margin = sides * np.bincount(rows, amounts * weights[columns], len(documents))
        pushed = counts * sides / (1 + np.exp(np.clip(margin, -50, 50)))
        slope = np.bincount(columns, amounts * pushed[rows], len(features))
        away = family - prior
        value = (counts * np.logaddexp(0, -margin)).sum() + (pull[0] * away @ away + pull[1] * own @ own) / 2
        return value, np.r_[pull[0] * away - np.bincount(group_of, slope, len(groups)), pull[1] * own - slope]

    point = minimum(loss, np.r_[prior, np.zeros(len(features))])
    weights = point[group_of] + point[len(groups) :]
    return {f.name: float(w) if w * f.side > 0 else 0.0 for f, w in zip(features, weights, strict=True)}


def _prior(features: Sequence[Feature], group: tuple[str, int]) -> float:
    return next(feature.prior * feature.side for feature in features if (feature.family, feature.side) == group)


def minimum(loss: Any, point: Floats, least_gain: float = 1e-7) -> Floats:
    """Where a smooth convex function is least, by L-BFGS with ten pairs (Nocedal and Wright, algorithm 7.4).

    It ends with the first round that gains less than ``least_gain`` of the value.
    """
    pairs: list[tuple[Floats, Floats]] = []
    value, slope = loss(point)
    for _ in range(ROUNDS):
        direction, steps = slope.copy(), []
        for moved, turned in reversed(pairs):
            share = moved @ direction / (moved @ turned)
            steps.append(share)
            direction -= share * turned
        if pairs:
            moved, turned = pairs[-1]
            direction *= moved @ turned / (turned @ turned)
        for (moved, turned), share in zip(pairs, reversed(steps), strict=True):
            direction += (share - turned @ direction / (moved @ turned)) * moved
        length = 1.0 if pairs else 1 / max(1.0, float(np.abs(slope).sum()))
        while True:
            new_value, new_slope = loss(point - length * direction)
            if new_value <= value - 1e-4 * length * (slope @ direction) or length < 1e-8:
                break
            length /= 2
        moved, turned = -length * direction, new_slope - slope
        if moved @ turned > 1e-10:
            pairs = [*pairs[-9:], (moved, turned)]
        settled = value - new_value < least_gain * abs(value)
        point, value, slope = point + moved, new_value, new_slope
        if settled:
            break
    return point


def cross_validate(documents: Sequence[Labelled], parts: Sequence[int], pull: Sequence[float]) -> list[Outcome]:
    """Every document by the model that was fitted without its part."""
    outcomes = []
    for part in sorted(set(parts)):
        weights = fit([document for document, other in zip(documents, parts, strict=True) if other != part], pull)
        model = VariantModel(inventory(), weights, 1.0, LEAST_WEIGHT)
        for document, other in zip(documents, parts, strict=True):
            if other == part:
                outcomes.append(Outcome(document, *model.log_odds(document.sightings)))
    return outcomes


def fitted_slope(outcomes: Sequence[Outcome]) -> float:
    """What the sums are multiplied by so that the likelihood of the labels is greatest."""
    counts = source_weights([outcome.document for outcome in outcomes])
    margin = np.array([outcome.document.side * outcome.log_odds for outcome in outcomes])
    slopes = np.geomspace(0.05, 3, 200)
    return float(slopes[np.argmin([(counts * np.logaddexp(0, -slope * margin)).sum() for slope in slopes])])


def scaled(outcomes: Sequence[Outcome], slope: float) -> list[Outcome]:
    """The outcomes in calibrated log odds."""
    return [Outcome(outcome.document, slope * outcome.log_odds, outcome.evidence) for outcome in outcomes]


def score(outcomes: Sequence[Outcome], config: VariantConfig) -> tuple[float, float]:
    """Share named, and share of these that is right."""
    right = named = 0
    for outcome in outcomes:
        variant, _ = decide(outcome.log_odds, outcome.evidence, config)
        side = {PORTUGAL: 1, BRAZIL: -1}.get(variant or "", 0)
        named += side != 0
        right += side == outcome.document.side
    return named / max(1, len(outcomes)), right / max(1, named)


def summary(outcomes: Sequence[Outcome], config: VariantConfig) -> Mapping[str, Any]:
    """Figures over documents of 150 words and more, and the mean over cells of source and label."""
    long = [outcome for outcome in outcomes if outcome.document.sightings.num_words >= 150]
    cells = [[o for o in long if o.document.cell == cell] for cell in sorted({o.document.cell for o in long})]
    each = [score(cell, config) for cell in cells]
    named, right = score(long, config)
    return {
        "documents": len(long),
        "named": round(named, 4),
        "right": round(right, 4),
        "named_mean_of_sources": round(float(np.mean([cell[0] for cell in each])), 4),
        "right_mean_of_sources": round(float(np.mean([cell[1] for cell in each if cell[0]])), 4),
    }


def figures_table(by_source: Sequence[Outcome], at_random: Sequence[Outcome], config: VariantConfig) -> str:
    """A row per bin of length."""
    rows = []
    for least, most in [*zip(LENGTH_BINS, [*LENGTH_BINS[1:], 1 << 60], strict=True), (150, 1 << 60)]:
        row = [f"{least} words or more" if most == 1 << 60 else f"{least} to {most - 1} words"]
        for outcomes in (by_source, at_random):
            inside = [outcome for outcome in outcomes if least <= outcome.document.sightings.num_words < most]
            named, right = score(inside, config)
            row += [f"{len(inside):,}"] * (outcomes is by_source) + [f"{named:.1%}", f"{right:.1%}"]
        rows.append(tuple(row))
    headings = ("length", "documents", "unseen source: named", "right", "random parts: named", "right")
    return table(headings, rows)


def source_table(outcomes: Sequence[Outcome], config: VariantConfig) -> str:
    """A row per source and label: documents of 150 words and more, then all."""
    rows = []
    for cell in sorted({outcome.document.cell for outcome in outcomes}):
        inside = [outcome for outcome in outcomes if outcome.document.cell == cell]
        long = [outcome for outcome in inside if outcome.document.sightings.num_words >= 150]
        row: tuple[str, ...] = (cell,)
        for part in (long, inside):
            named, right = score(part, config)
            row += (f"{len(part):,}", f"{named:.1%}" if part else "", f"{right:.1%}" if named else "")
        rows.append(row)
    return table(("unseen source", "150 words or more", "named", "right", "all", "named", "right"), rows)


def calibration_table(outcomes: Sequence[Outcome]) -> str:
    """How often the likelier variant is right, by its probability; sources and variants weighted as in the fit."""
    counts = source_weights([outcome.document for outcome in outcomes])
    odds = np.array([outcome.log_odds for outcome in outcomes])
    right = odds * np.array([outcome.document.side for outcome in outcomes]) > 0
    scores = 1 / (1 + np.exp(-np.minimum(np.abs(odds), 50)))
    rows = []
    for least, most in ((0.5, 0.6), (0.6, 0.75), (0.75, 0.9), (0.9, 0.97), (0.97, 0.99), (0.99, 1.01)):
        inside = (scores >= least) & (scores < most) & (odds != 0)
        if inside.any():
            share = float((counts * right)[inside].sum() / counts[inside].sum())
            mean = float((counts * scores)[inside].sum() / counts[inside].sum())
            rows.append((f"{least} to {min(most, 1)}", f"{inside.sum():,}", f"{mean:.3f}", f"{share:.3f}"))
    return table(("score", "documents", "mean score", "right"), rows)


if __name__ == "__main__":
    main()
