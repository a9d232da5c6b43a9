"""What the report says of verified near-duplicates."""

from caravela.reporting.verification import in_words, verification_part
from tests.reporting.reader import Reader

TENTHS = [0, 0, 1, 0, 2, 0, 0, 7, 80, 10]
FOUND = {"similarity": 0.5, "pairs_verified": 100, "false_positives": 3, "false_positive_rate": 0.03}
SAMPLE = {**FOUND, "mode": "sample", "share": 0.05, "interval": [0.010254, 0.084515], "pairs_of_similarity": TENTHS}
ALL = {**FOUND, "mode": "all", "pairs_of_similarity": TENTHS}
SPLIT = {"clusters_split": 1, "removals_not_made": 2, "kept_uncompared": 0}


def test_sample_is_told_with_its_rate_and_interval() -> None:
    assert in_words(SAMPLE) == (
        "A sample of 100 removed near-duplicates, about 5.0% of them, was compared with the document that was kept "
        "instead, by their sets of shingles. 3 (3.0%) have a Jaccard similarity below 0.50: false positives. The true "
        "rate lies between 1.0% and 8.5% with 95% confidence. All of them were removed."
    )


def test_all_is_told_with_what_became_of_those_that_fail() -> None:
    words = in_words({**ALL, **SPLIT})
    assert words.startswith("All 100 near-duplicates were compared with the best document of the cluster")
    assert words.endswith(
        "They split 1 cluster: 2 documents more stayed, and each of the others was removed for one that it is like."
    )
    none = {"false_positives": 0, "false_positive_rate": 0.0, "clusters_split": 0, "removals_not_made": 0}
    assert in_words({**ALL, **SPLIT, **none}).endswith("0 (0%) have a Jaccard similarity below 0.50: false positives.")
    assert in_words({**ALL, **SPLIT, "kept_uncompared": 1200}).endswith(
        "1,200 stayed in clusters too diverse to be compared to the end."
    )


def test_pairs_are_drawn_by_similarity_unless_there_are_none() -> None:
    assert verification_part(None) is None
    drawn = Reader(str(verification_part(SAMPLE)))
    assert drawn.titled_images == 1
    assert {"0.8 on", "80"} <= set(drawn.text)
    nothing = {**SAMPLE, "pairs_verified": 0, "false_positives": 0, "false_positive_rate": None}
    empty = Reader(str(verification_part(nothing)))
    assert "No near-duplicate was compared with the document that was kept instead." in empty.text
    assert empty.titled_images == 0
