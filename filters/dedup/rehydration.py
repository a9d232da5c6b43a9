"""How often a kept document is worth repeating, from how many copies of it the web holds.

A page that many sites copy is more often a good one: FineWeb-2 found that fewer documents of large clusters fall to the
quality filters, up to a size beyond which they are mostly boilerplate. So it repeats kept documents by a table of
cluster sizes. In: sizes of clusters and a table. Out: counts, for the mixture.

Source of the tables: FineWeb-2, arXiv 2506.20920, misc/rehydration, por_Latn, for at most 3, 5 and 10 repeats.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from caravela.config import ConfigError

PRESETS: Mapping[str, Mapping[int, int]] = {
    "none": {1: 1},
    "por_latn_up_to_3": {1: 1, 3: 2, 9: 3, 60: 2, 138: 1},
    "por_latn_up_to_5": {1: 1, 2: 2, 4: 3, 6: 4, 11: 5, 34: 4, 39: 5, 47: 4, 71: 3, 109: 2, 169: 1},
    "por_latn_up_to_10": {
        **{1: 1, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 8: 8, 10: 9, 15: 10, 22: 9, 50: 8, 62: 7, 73: 6, 89: 5},
        **{106: 4, 131: 3, 157: 2, 177: 1},
    },
}
"""Least size of a cluster → repeats, up to the next size named."""


@dataclass(frozen=True, kw_only=True)
class RehydrationConfig:
    """Which table gives the column ``repeats`` of kept documents."""

    preset: Literal["none", "por_latn_up_to_3", "por_latn_up_to_5", "por_latn_up_to_10"] = "none"
    """FineWeb-2's tables for Portuguese, by the most repeats in them; none: every document counts once."""
    sizes: tuple[int, ...] = ()
    """A table of one's own, instead of the preset: least sizes of clusters, ascending, the first 1 ..."""
    repeats: tuple[int, ...] = field(default=())
    """... and how often the kept document of such a cluster is repeated; 0 leaves it out of the mixture."""

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.repeats):
            raise ConfigError(f"repeats has {len(self.repeats)} numbers, expected {len(self.sizes)}: one for each size")
        if self.sizes and (self.sizes[0] != 1 or any(a >= b for a, b in itertools.pairwise(self.sizes))):
            raise ConfigError(f"sizes = {list(self.sizes)}: expected ascending numbers that begin with 1")
        if any(not 0 <= count <= 255 for count in self.repeats):
            raise ConfigError(f"repeats = {list(self.repeats)}: expected numbers from 0 to 255")

    @property
    def table(self) -> Mapping[int, int]:
        """Least size → repeats."""
        return dict(zip(self.sizes, self.repeats, strict=True)) if self.sizes else PRESETS[self.preset]


def repeats(cluster_sizes: npt.NDArray[np.uint32], table: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    """How often each document is repeated, from the size of its cluster (at least 1)."""
    least = np.array(list(table), np.int64)
    counts = np.array(list(table.values()), np.uint8)
    return counts[np.searchsorted(least, cluster_sizes, side="right") - 1]
