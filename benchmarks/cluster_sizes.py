"""How large clusters of near-duplicates are on the Portuguese web: FineWeb-2's published counts (arXiv 2506.20920)."""

import numpy as np
import numpy.typing as npt

CLUSTER_SIZES = ((1, 1, 50.1), (2, 2, 13.9), (3, 3, 7.4), (4, 4, 5.6), (5, 9, 13.8), (10, 49, 8.6), (50, 182, 0.5),
                 (183, 2000, 0.04))  # fmt: skip
"""From, to, and percent of the clusters. Within a range a size s has the weight 1/s²; the last range holds 4 % of the
documents, as the published counts imply."""


def sizes_and_shares() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Every size, and the share of clusters that have it."""
    sizes, weights = [], []
    for first, last, percent in CLUSTER_SIZES:
        inside = np.arange(first, last + 1)
        sizes.append(inside)
        weights.append(percent * (1 / inside**2) / (1 / inside**2).sum())
    weight = np.concatenate(weights)
    return np.concatenate(sizes), weight / weight.sum()
