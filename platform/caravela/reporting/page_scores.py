"""The section of the page that sets the run against the labels of the sample crawl."""

from collections.abc import Mapping, Sequence
from typing import Any

from caravela.reporting import charts
from caravela.reporting.markup import Html, count, element, percent
from caravela.reporting.parts import Column, Tile, fold, plural, section, table, tiles
from caravela.reporting.reasons import explanation

LANGUAGES = {"pt": "Portuguese", "es": "Spanish", "gl": "Galician", "ca": "Catalan", "it": "Italian", "fr": "French"}
LANGUAGES |= {"en": "English", "pt-BR": "Portuguese (Brazil)", "pt-PT": "Portuguese (Portugal)"}


def scores_section(figures: Mapping[str, Any]) -> Html | None:
    """How well each step did where the truth is known."""
    scores = figures["scores"]
    if not scores:
        return None
    lead = (
        f"The sample crawl comes with the truth about its {plural(scores['pages'], 'page')}: the text, the language, "
        "whether it is worth keeping, and what it is a copy of. The labels played no part in the run."
    )
    parts = [_extraction(scores["extraction"]), _language(scores["language"]), _quality(scores["quality"])]
    if scores["deduplication"]:
        parts.append(_deduplication(scores["deduplication"]))
    return section("scores", "Against the labels", lead, _overview(scores), *parts)


def _overview(scores: Mapping[str, Any]) -> Html:
    extraction, language, quality = scores["extraction"], scores["language"], scores["quality"]
    items = [
        Tile("Words extracted", percent(extraction["median_words_found"]), "of an article's words, median"),
        Tile("Right language", percent(language["precision"]), "of what passed is Portuguese"),
        Tile("Portuguese found", percent(language["recall"]), "of Portuguese articles passed"),
        Tile("Good kept", percent(quality["good_kept_recall"]), "of pages worth keeping"),
        Tile("Junk removed", percent(quality["junk_removed_recall"]), "of pages worth nothing"),
    ]
    if (copies := scores["deduplication"]) and copies["alike"]["pairs"]:
        share = copies["alike"]["joined"] / copies["alike"]["pairs"]
        items.append(Tile("Copies found", percent(share), "of copies with a Jaccard index from 0.8"))
    return tiles(items)


def _extraction(scores: Mapping[str, Any]) -> Html:
    sentence = (
        f"{percent(_share(scores['complete'], scores['pages']))} of {plural(scores['pages'], 'article')} came out with "
        f"at least 95% of their words. Of the words that came out, {percent(scores['median_words_right'])} (median) "
        "are the article's own; others come from menus, notices and captions."
    )
    columns = [
        Column("Encoding", "text"),
        *map(Column, ("Articles", "With text", "Words found", "Words right")),
        Column("At least 95% found"),
        Column("", "meter"),
    ]

    by_register = [Column("Register", "text"), *columns[1:]]

    def rows(groups: Sequence[Mapping[str, Any]]) -> list[list[object]]:
        return [
            [
                ", ".join(group["group"]),
                count(group["pages"]),
                count(group["with_text"]),
                percent(group["median_words_found"]),
                percent(group["median_words_right"]),
                percent(_share(group["complete"], group["pages"])),
                charts.inline_bar(group["complete"] / max(1, group["pages"])),
            ]
            for group in groups
        ]

    return element(
        "div",
        element("h3", "Extraction"),
        element("p", sentence),
        table(columns, rows(scores["by_charset"]), "Extraction by encoding"),
        fold("The same by register", "", "", table(by_register, rows(scores["by_register"]), "Extraction by register")),
    )


def _language(scores: Mapping[str, Any]) -> Html:
    sentence = (
        f"Of what passed for Portuguese, {percent(scores['precision'])} is (precision); of what is Portuguese, "
        f"{percent(scores['recall'])} passed (recall). Counted over {plural(scores['pages'], 'article')} with text."
    )
    rows = []
    for group in scores["by_language"]:
        code = group["group"][0]
        names = ", ".join(f"{name} {pages:,}" for name, pages in group["identified_as"][:3])
        rows.append(
            (
                LANGUAGES.get(code, code),
                count(group["pages"]),
                count(group["passed"]),
                percent(group["passed"] / max(1, group["pages"])),
                names or "–",
            )
        )
    columns = [
        Column("Language of the article", "text"),
        *map(Column, ("Articles", "Passed", "Share")),
        Column("Identified as", "text"),
    ]
    return element(
        "div", element("h3", "Language"), element("p", sentence), table(columns, rows, "Language identification")
    )


def _quality(scores: Mapping[str, Any]) -> Html:
    sentence = (
        f"{count(scores['good_kept'])} of {plural(scores['good'], 'page')} worth keeping were kept "
        f"({percent(scores['good_kept_recall'])}), and {percent(scores['good_kept_precision'])} of what was kept is "
        f"worth it. {count(scores['junk_removed'])} of {plural(scores['junk'], 'junk page')} were removed "
        f"({percent(scores['junk_removed_recall'])}), by whatever step."
    )
    junk = [
        (
            group["group"][0].replace("_", " "),
            count(group["pages"]),
            count(group["removed"]),
            percent(_share(group["removed"], group["pages"])),
            _reasons(group["reasons"]),
        )
        for group in scores["by_junk_reason"]
    ]
    good = [
        (
            group["group"][0],
            count(group["pages"]),
            count(group["pages"] - group["removed"]),
            percent(_share(group["pages"] - group["removed"], group["pages"])),
            _reasons(group["reasons"]),
        )
        for group in scores["by_register"]
    ]
    tail = Column("Removed as", "text")
    return element(
        "div",
        element("h3", "Quality"),
        element("p", sentence),
        table([Column("Junk", "text"), *map(Column, ("Pages", "Removed", "Share")), tail], junk, "Junk by kind"),
        table(
            [Column("Register", "text"), *map(Column, ("Good pages", "Kept", "Share")), tail], good, "Good by register"
        ),
    )


def _reasons(reasons: Sequence[Sequence[Any]]) -> str:
    named = [f"{pages:,} × {explanation(reason) or reason}" for reason, pages in reasons[:2]]
    more = sum(pages for _, pages in reasons[2:])
    return "; ".join([*named, *([f"{more:,} × other reasons"] if more else [])]) or "–"


def _deduplication(scores: Mapping[str, Any]) -> Html:
    alike, different = scores["alike"], scores["different"]
    apart = different["pairs"] - different["joined"]
    astray = scores["unrelated_joined"]
    sentence = (
        f"Each of {plural(scores['pairs'], 'copy', 'copies')} was made from a page of the crawl at a known similarity. "
        f"{count(alike['joined'])} of {count(alike['pairs'])} with a Jaccard index from 0.8 were put into one cluster "
        f"with their original, and {count(apart)} of {count(different['pairs'])} below 0.5 were not. "
        + ("No cluster mixes unrelated texts." if not astray else f"{plural(astray, 'cluster')} mix unrelated texts.")
    )
    rows = [
        (
            "1 (mirrors)" if group["to"] is None else f"{group['from']:.1f} to {group['to']:.1f}",
            count(group["pairs"]),
            count(group["joined"]),
            percent(group["expected"]),
            percent(_share(group["joined"], group["pairs"])),
            charts.inline_bar(group["joined"] / max(1, group["pairs"])),
        )
        for group in scores["bins"]
        if group["pairs"]
    ]
    columns = [Column("Jaccard index", "text"), *map(Column, ("Copies", "Joined", "In theory", "Share"))]
    columns.append(Column("", "meter"))
    return element(
        "div",
        element("h3", "Deduplication"),
        element("p", sentence),
        table(columns, rows, "Copies found by similarity"),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
