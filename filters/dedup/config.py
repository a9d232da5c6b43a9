"""Settings of deduplication."""

from dataclasses import dataclass, field
from typing import Literal

from caravela.config import ConfigError
from filters.dedup.rehydration import RehydrationConfig


@dataclass(frozen=True, kw_only=True)
class SpansConfig:
    """Sentences or lines that come again are taken out of the documents that deduplication has kept; off by default."""

    unit: Literal["off", "sentences", "lines"] = "off"
    """What is compared: runs of sentences, as in C4, or single lines."""
    sentences: int = 3
    """Sentences of a span; with ``lines`` a span is one line."""
    min_words: int = 10
    """Shorter spans stay: answers, headings, the formulas of a genre."""
    keep: int = 1
    """How many occurrences of a span stay, the first ones in the order of the input; those of an index come first."""
    within_documents: bool = True
    """Whether a span that a document repeats goes, as in C4; false: only what another document has had before."""
    min_document_words: int = 50
    """A document that lost spans and has fewer words left is removed."""
    spans_per_partition: int = 16_000_000
    """Spans that one task sorts: the default takes about 1 GB. It changes how work is cut, not what is kept."""

    def __post_init__(self) -> None:
        for name, least in (
            *(("sentences", 1), ("min_words", 1), ("keep", 1), ("min_document_words", 0)),
            ("spans_per_partition", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected {least} or more")

    @property
    def length(self) -> int:
        """Units of a span."""
        return self.sentences if self.unit == "sentences" else 1


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
    scope: tuple[str, ...] = ()
    """Columns within whose values duplicates are looked for: ``source``, ``language``, ``variant``, or a field of the
    metadata as ``metadata.crawl``; empty: across all documents."""
    priority: tuple[Literal["source", "quality", "length", "date"], ...] = ("source", "quality", "length", "date")
    """What makes a document the best of its cluster, most important first: rank of its source in ``source_rank``,
    higher quality, longer text, earlier date. Ties go to the first in the input."""
    source_rank: tuple[str, ...] = ()
    """Sources from most to least wanted; those not named come last."""
    quality_column: str = "line_punct_ratio"
    """The signal that ``quality`` means; higher is better. The default tells a page's text from one with its menus."""
    quality_step: float = 0.1
    """Qualities that differ by less count as equal, about."""
    index: tuple[str, ...] = ()
    """Roots of finished runs, older first, whose documents go before those of this run: what repeats one of them is
    removed, and their text is not touched."""
    verify: Literal["off", "sample", "all"] = "off"
    """Whether near-duplicates are compared, word for word, with the document that was kept instead. ``sample`` measures
    how many are not alike and removes them all the same; ``all`` keeps those, or removes them for another that is."""
    verify_similarity: float = 0.5
    """The least Jaccard similarity of their sets of shingles at which two texts are alike. At 0.5, texts of one length
    share two thirds of their shingles; 14 × 8 joins one pair in 19 there, and one in 109 at 0.4."""
    verify_share: float = 0.05
    """The share of removed near-duplicates that ``sample`` compares, chosen by a hash of the document's number."""
    rehydration: RehydrationConfig = field(default_factory=RehydrationConfig)
    spans: SpansConfig = field(default_factory=SpansConfig)
    keys_per_partition: int = 16_000_000
    """Keys that one task sorts: the default takes about 1 GB. It changes how work is cut, not what is kept."""
    clustering_memory_mb: int = 4096
    """What one task may take to cluster all documents: 69 bytes each for up to 134 million, 9 for any more. Where that
    is not enough, rounds over partitions do it. The result is the same."""
    members_per_partition: int = 2_000_000
    """Clustered documents among which one task chooses the best: the default takes about 1.2 GB."""

    def __post_init__(self) -> None:
        for name in ("bands", "rows_per_band", "shingle_words", "keys_per_partition", "members_per_partition"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected 1 or more")
        if self.quality_step <= 0:
            raise ConfigError(f"quality_step = {self.quality_step}: expected more than 0")
        if self.clustering_memory_mb < 0:
            raise ConfigError(f"clustering_memory_mb = {self.clustering_memory_mb}: expected 0 (always rounds) or more")

        if not 0 < self.verify_similarity <= 1:
            raise ConfigError(f"verify_similarity = {self.verify_similarity}: expected more than 0, at most 1")
        if not 0 < self.verify_share <= 1:
            raise ConfigError(f"verify_share = {self.verify_share}: expected more than 0, at most 1")

    def probability(self, similarity: float) -> float:
        """The chance that a pair of this Jaccard similarity is joined directly: 1 − (1 − s^rows)^bands."""
        return 1 - (1 - similarity**self.rows_per_band) ** self.bands
