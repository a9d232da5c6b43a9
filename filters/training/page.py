"""The figures of a training as one HTML page that needs nothing but itself, in the style of the run's report."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from caravela import reporting
from caravela.reporting import charts
from caravela.reporting.charts import Series
from caravela.reporting.markup import Html, count, element, joined, number, percent
from caravela.reporting.page import POLICY
from caravela.reporting.parts import Column, Tile, section, table, tiles

MOST_COLUMNS = 12
MOST_PAIRS = 30
SAME_SOURCES = (
    "On the test part, which was drawn from the same inputs as what the model learned from. "
    "On sources that it has not seen, expect less."
)


def language_id_page(figures: Mapping[str, Any]) -> str:
    """For ``language_id`` figures."""
    label = figures["label"]
    headline = [
        Tile("Accuracy", percent(figures["accuracy"]), f"on {count(figures['test_texts'])} texts held out"),
        Tile("Labels", count(len(figures["per_label"]))),
        Tile("Learned from", count(figures["train_texts"]), "texts"),
    ]
    curve = _threshold_curve(figures["by_threshold"], f"Texts said to be {label}, by the least score that is asked")
    sections = [
        section("labels", "By label", "Figures on the test part.", _label_table(figures["per_label"])),
        section("confusion", "What is taken for what", _confusion_lead(figures), _confusion(figures)),
        section("length", "By length", "Short texts are hard.", _length_table(figures["by_length"])),
        section("threshold", "By threshold", "On the validation part.", curve),
    ]
    return _page("Language identification", headline, sections)


def classifier_page(figures: Mapping[str, Any]) -> str:
    """For ``classifier`` figures."""
    headline = [
        Tile("Average precision", number(figures["average_precision"], 3), f"positive: {figures['label']}"),
        Tile("ROC AUC", number(figures["roc_auc"], 3), "a positive text scores above a negative one"),
        Tile("Texts held out", count(figures["test_texts"]), f"{count(figures['test_positive'])} of them positive"),
    ]
    points = [(point["recall"], point["precision"]) for point in figures["precision_recall"]]
    curves = [
        charts.line_chart("Precision by recall", [Series("test", points)], "recall", x_range=(0, 1)),
        _threshold_curve(figures["by_threshold"], "By the least score that is asked"),
    ]
    rows = [
        (name, f"{row['threshold']:.4f}", *(percent(row[key]) for key in ("precision", "recall", "dropped", "kept")))
        for name, row in figures["thresholds"].items()
    ]
    columns = [
        Column("Aim", "text"),
        *map(Column, ("Threshold", "Precision", "Recall", "Others dropped", "Kept of all")),
    ]
    lead = "Each threshold was chosen on the validation part; what it brings is measured on the test part."
    sections = [
        section("curves", "Precision and recall", SAME_SOURCES, charts.stacked(curves)),
        section("thresholds", "Thresholds", lead, table(columns, rows, "Thresholds")),
        section("length", "By length", "Right side of 0.5, test part.", _length_table(figures["by_length"])),
    ]
    return _page("Classifier", headline, sections)


def _page(title: str, headline: Sequence[Tile], sections: Sequence[Html]) -> str:
    style = Html(resources.files(reporting).joinpath("style.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · Caravela"),
        element("style", style),
    )
    body = element(
        "body",
        element("header", element("h1", title), tiles(headline)),
        element("main", *sections),
        element("footer", "Made by Caravela. The same figures are in report.json beside this file."),
    )
    return joined([Html("<!doctype html>\n"), element("html", head, body, lang="en"), Html("\n")])


def _threshold_curve(rows: Sequence[Mapping[str, Any]], title: str) -> Html:
    series = [
        Series(name, [(row["threshold"], row[name]) for row in rows if row[name] is not None])
        for name in ("precision", "recall")
    ]
    return charts.line_chart(title, series, "threshold", x_range=(0, 1))


def _label_table(rows: Sequence[Mapping[str, Any]]) -> Html:
    cells = [
        (row["label"], count(row["texts"]), percent(row["precision"]), percent(row["recall"]), percent(row["f1"]))
        for row in rows
    ]
    columns = [Column("Label", "text"), *map(Column, ("Texts", "Precision", "Recall", "F1"))]
    return table(columns, cells, "Precision and recall of each label")


def _confusion_lead(figures: Mapping[str, Any]) -> str:
    if len(figures["per_label"]) <= MOST_COLUMNS:
        return "A row is what the texts are, a column is what they are taken for."
    return f"The {MOST_PAIRS} commonest mistakes; all are in report.json."


def _confusion(figures: Mapping[str, Any]) -> Html:
    labels = [row["label"] for row in figures["per_label"]]
    cells: Sequence[Sequence[int]] = figures["confusion"]
    if len(labels) <= MOST_COLUMNS:
        rows = [
            (label, *(count(cell) if cell else "·" for cell in line)) for label, line in zip(labels, cells, strict=True)
        ]
        return table([Column("", "text"), *map(Column, labels)], rows, "Confusion")
    pairs = [
        (cell, labels[i], labels[j]) for i, line in enumerate(cells) for j, cell in enumerate(line) if cell and i != j
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    worst = [(true, said, count(cell)) for cell, true, said in pairs[:MOST_PAIRS]]
    return table([Column("Is", "text"), Column("Taken for", "text"), Column("Texts")], worst, "Confusion")


def _length_table(rows: Sequence[Mapping[str, Any]]) -> Html:
    cells = [(row["length"], count(row["texts"]), percent(row["accuracy"])) for row in rows]
    return table([Column("Length", "text"), Column("Texts"), Column("Accuracy")], cells, "Accuracy by length")
