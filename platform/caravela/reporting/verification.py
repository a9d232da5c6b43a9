"""What the verification of near-duplicates found, in words and as a chart, from the summary of stage ``dedup``."""

from collections.abc import Mapping
from typing import Any

from caravela.reporting import charts
from caravela.reporting.markup import Html, count, element, number, percent
from caravela.reporting.parts import plural


def verification_part(found: Mapping[str, Any] | None) -> Html | None:
    """How many near-duplicates are not like what was kept instead, in words and by similarity."""
    if found is None:
        return None
    title, words = element("h3", "Near-duplicates compared word for word"), element("p", in_words(found))
    if not found["pairs_verified"]:
        return element("div", title, words)
    bars = [charts.Bar(f"0.{tenth} on", n, count(n)) for tenth, n in enumerate(found["pairs_of_similarity"])]
    return element("div", title, words, charts.bar_chart("Compared pairs, by Jaccard similarity", bars))


def in_words(found: Mapping[str, Any]) -> str:
    """The share of near-duplicates that are none, measured; and what became of them."""
    pairs, wrong = found["pairs_verified"], found["false_positives"]
    if not pairs:
        return "No near-duplicate was compared with the document that was kept instead."
    sampled = found["mode"] == "sample"
    opening = (
        f"A sample of {plural(pairs, 'removed near-duplicate')}, about {percent(found['share'])} of them, was compared "
        "with the document that was kept instead"
        if sampled
        else f"All {plural(pairs, 'near-duplicate')} were compared with the best document of the cluster"
    )
    sentences = [
        f"{opening}, by their sets of shingles.",
        f"{count(wrong)} ({percent(found['false_positive_rate'])}) have a Jaccard similarity below "
        f"{number(found['similarity'])}: false positives.",
    ]
    if sampled:
        low, high = map(percent, found["interval"])
        sentences.append(f"The true rate lies between {low} and {high} with 95% confidence. All of them were removed.")
    elif wrong:
        clusters, stayed = plural(found["clusters_split"], "cluster"), plural(found["removals_not_made"], "document")
        sentences.append(
            f"They split {clusters}: {stayed} more stayed, and each of the others was removed for one that it is like."
        )
    if found.get("kept_uncompared"):
        left = count(found["kept_uncompared"])
        sentences.append(f"{left} stayed in clusters too diverse to be compared to the end.")
    return " ".join(sentences)
