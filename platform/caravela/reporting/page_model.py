"""Sections of the page on the model: training, evaluation, generated text."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from caravela.reporting import charts
from caravela.reporting.markup import Html, count, element, number, percent, short_count
from caravela.reporting.parts import Tile, plural, section, tiles

CURVES = (
    ("Tokens per second", "tokens_per_second"),
    ("MFU, share of the peak", "mfu"),
    ("Learning rate", "learning_rate"),
    ("Gradient norm, before clipping", "grad_norm"),
)
BY_SOURCE: tuple[tuple[str, str, Literal["line", "dotted"]], ...] = (
    ("Loss by source, nats per token", "loss", "line"),
    ("Held-out rows, bits per byte", "validation_bits_per_byte", "dotted"),
)


def training_section(figures: Mapping[str, Any]) -> Html | None:
    """The curves."""
    training, model = figures["training"], figures["model"]
    if not training:
        return None
    curves: Mapping[str, Sequence[tuple[float, float]]] = training["curves"]
    lead = f"{plural(training['steps'], 'step')}"
    if model:
        lead = (
            f"A decoder of {short_count(model['parameters'])} parameters ({model['num_layers']} layers, width "
            f"{model['hidden_size']:,}, {model['num_heads']} heads) in {lead}"
        )
    if training["final_loss"] is not None:
        lead += (
            f": the loss went from {number(training['first_loss'])} to {number(training['final_loss'])} nats per token"
        )
    if training["median_tokens_per_second"]:
        lead += f", at {count(round(training['median_tokens_per_second']))} tokens/s (median)"
    if training.get("median_mfu"):
        lead += f" and {percent(training['median_mfu'])} MFU"
    return section("training", "Training", f"{lead}.", charts.stacked(_charts(training, curves)), *_notes(training))


def _charts(training: Mapping[str, Any], curves: Mapping[str, Sequence[tuple[float, float]]]) -> list[Html]:
    """Loss, where there are several sources also by source, and what is worth watching beside it."""
    steps = (0, training["last_step"])
    loss = [
        charts.Series(_last("training", curves["loss"]), curves["loss"]),
        charts.Series(_last("validation", curves["validation_loss"]), curves["validation_loss"], "dotted"),
    ]
    drawn = [charts.line_chart("Loss, nats per token", loss, "step", x_range=steps)]
    for title, column, kind in BY_SOURCE:
        series = [
            charts.Series(_last(name.partition("/")[2] or "all", points), points, kind)
            for name, points in curves.items()
            if points and (name.startswith(f"{column}/") or (name == column and kind == "dotted"))
        ]
        if series:
            drawn.append(charts.line_chart(title, series[: charts.MOST_DOT_SERIES], "step", x_range=steps))
    drawn += [
        charts.line_chart(title, [charts.Series(name, curves[name])], "step", from_zero=True, x_range=steps)
        for title, name in CURVES
        if curves.get(name)
    ]
    return drawn


def _notes(training: Mapping[str, Any]) -> list[Html]:
    """Where the time went, and what it cost."""
    shares = [
        f"{percent(training[name])} {what}"
        for name, what in (
            ("data_wait_share", "went into waiting for rows"),
            ("checkpoint_share", "into taking checkpoints"),
        )
        if training[name] is not None
    ]
    sentences = [f"Of the steps' time, {' and '.join(shares)}."] if shares else []
    if training.get("goodput") is not None:
        redone = training.get("steps_redone") or 0
        sentences.append(
            f"Of the whole time, {percent(training['goodput'])} was goodput: neither starting, nor checkpoints, nor "
            f"work done again ({plural(redone, 'step')})."
        )
    costs = [
        f"{training[name]:,.3g} {unit}"
        for name, unit in (("energy_kwh", "kWh"), ("co2_kg", "kg of CO2"), ("cost", "in cost"))
        if training.get(name) is not None
    ]
    if costs:
        sentences.append(f"It took {', '.join(costs)}.")
    return [element("p", " ".join(sentences), class_="note")] if sentences else []


def _last(name: str, points: Sequence[tuple[float, float]]) -> str:
    return f"{name} {number(points[-1][1])}" if points else name


def evaluation_section(figures: Mapping[str, Any]) -> Html | None:
    """Held-out text: how well it is predicted."""
    found = figures["evaluation"]
    if not found:
        return None
    lead = (
        f"On {count(found['tokens'])} tokens of documents that the model has not seen ({plural(found['rows'], 'row')}, "
        f"{count(found['bytes'])} bytes of text)."
    )
    items = [
        Tile("Loss", number(found["loss"], 3), "nats per token"),
        Tile("Perplexity", number(found["perplexity"], 1), "as if choosing among so many tokens"),
        Tile("Bits per byte", number(found["bits_per_byte"], 3), "comparable across tokenizers; 8 is knowing nothing"),
    ]
    return section("evaluation", "Evaluation", lead, tiles(items))


def samples_section(figures: Mapping[str, Any]) -> Html | None:
    """What the model writes."""
    samples = (figures["evaluation"] or {}).get("samples")
    if not samples:
        return None
    prompts = [sample["prompt"] for sample in samples]  # continuations of one prompt stand side by side
    shown = [
        element(
            "div",
            element("blockquote", element("span", sample["prompt"], class_="prompt"), sample["text"], lang="pt"),
            element("span", sample["decoding"], class_="tag") if sample.get("decoding") else None,
            class_="sample",
        )
        for sample in sorted(samples, key=lambda sample: prompts.index(sample["prompt"]))
    ]
    lead = "The model goes on from the words in colour. Texts of a small model are shown as they came, first try."
    return section("samples", "Generated text", lead, element("div", *shown, class_="samples"))
