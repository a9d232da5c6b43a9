"""Settings of deduplication."""

from dataclasses import dataclass
from typing import Literal

from caravela.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """Exact, then MinHash-LSH; the best document of each cluster is kept."""

    exact: bool = True
    """Whether texts that are equal but for case and white space are duplicates."""
    minhash: bool = True
    """Whether near-duplicates are looked for."""
    bands: int = 14
    """Bands of the signature; two texts that agree in one whole band are joined."""
    rows_per_band: int = 8
    """Hashes in a band. 14 × 8 joins half of the pairs at a Jaccard similarity of 0.72."""
    shingle_words: int = 5
    """Words of a shingle."""
    fold_digits: bool = False
    """Whether all digits count as equal, as in datatrove; it joins tables and forms that differ in their numbers."""
    seed: int = 1
    """Chooses the hash functions."""
    priority: tuple[Literal["source", "length", "date"], ...] = ("source", "length", "date")
    """What makes a document the best of its cluster, most important first: rank of its source in ``source_rank``,
    longer text, earlier date. Ties go to the first in the input."""
    source_rank: tuple[str, ...] = ()
    """Sources from most to least wanted; those not named come last."""
    keys_per_partition: int = 16_000_000
    """Keys that one task sorts: the default takes about 0.6 GB. It changes how work is cut, not what is kept."""

    def __post_init__(self) -> None:
        for name in ("bands", "rows_per_band", "shingle_words", "keys_per_partition"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected 1 or more")

    def probability(self, similarity: float) -> float:
        """The chance that a pair of this Jaccard similarity is joined directly: 1 − (1 − s^rows)^bands."""
        return 1 - (1 - similarity**self.rows_per_band) ** self.bands
