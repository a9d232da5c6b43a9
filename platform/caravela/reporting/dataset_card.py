"""A Hugging Face dataset card for the documents of a run: what is in them, and how they came to be.

In: the finished stages by name, and the figures of the report. Out: Markdown with YAML front matter, to stand as
``README.md`` beside the Parquet files of the last stage of documents. What only a person can know (licence, where the
text is from, who answers for it) is left as a line to fill, marked ``FILL IN``.

Source of the fields: the Hub's dataset card specification (huggingface/hub-docs, datasetcard.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from caravela import config as settings
from caravela.manifest import Manifest
from caravela.reporting.examples import removal_counts
from caravela.reporting.markup import count, percent, size
from caravela.reporting.parts import language_tag
from caravela.reporting.reasons import explanation
from caravela.reporting.verification import in_words

FILL = "FILL IN"
SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
LARGER_SIZES = ((1e8, "10M<n<100M"), (1e9, "100M<n<1B"), (1e10, "1B<n<10B"), (1e11, "10B<n<100B"), (1e12, "100B<n<1T"))


def dataset_card(stages: Mapping[str, Manifest], figures: Mapping[str, Any]) -> str | None:
    """The card, or None for a run without documents."""
    last = stages.get("trim") or stages.get("dedup") or stages.get("curate")
    if last is None:
        return None
    documents, text_bytes = last.counters["documents_kept"], last.counters["bytes_kept"]
    lines = [
        *_front_matter(stages, documents),
        "",
        f"# {figures['title'] or FILL + ': name of the dataset'}",
        "",
        f"{count(documents)} documents, {size(text_bytes)} of text (UTF-8), made by Caravela.",
        "",
        "## What is in it",
        "",
        *_table(("column", "what it holds"), _columns(last)),
        "",
        *_contents(stages),
        "## How it was made",
        "",
        *_table(("after the step", "documents", "of all", "bytes"), _funnel(figures["funnel"])),
        "",
        "### What was removed, and why",
        "",
        f"The run keeps every removed document, with the step, the reason and its signals. {_where_removed(last)}",
        "",
        *_table(("step", "reason", "documents", "what it means"), _removed(stages)),
        "",
        *_verification(last),
        "### Settings",
        "",
        *_settings(stages),
        "## Licence, provenance and personal data",
        "",
        f"- Licence of the texts: {FILL}",
        f"- Source of the texts, and on what terms they were collected: {FILL}",
        f"- Contact for takedown requests: {FILL}",
        f"- Personal data: {_personal_data(stages.get('curate'))}",
        f"- Known limits and biases: {FILL}",
        "",
        "## Versions",
        "",
        ", ".join(f"{name} {version}" for name, version in figures["versions"].items()) + ".",
        "",
        f"Stage `{last.stage}`, fingerprint `{last.fingerprint}`: equal settings and inputs give equal bytes.",
    ]
    return "\n".join(lines) + "\n"


def _front_matter(stages: Mapping[str, Manifest], documents: int) -> Iterator[str]:
    curate = stages.get("curate")
    labels = curate.config.get("language", {}).get("languages", ()) if curate else ()
    tags = sorted({tag for label in labels if (tag := language_tag(str(label)))}) or ["pt"]
    yield from ("---", "license: other", f"license_name: {FILL}", f"license_link: {FILL}", "language:")
    yield from (f"- {tag}" for tag in tags)
    yield from ("size_categories:", f"- {size_category(documents)}")
    yield from ("task_categories:", "- text-generation", "configs:")
    for name, path in (("documents", "part-*.parquet"), ("removed", "removed/part-*.parquet")):
        yield from (f"- config_name: {name}", f'  data_files: "{path}"')
    yield "---"


def size_category(documents: int) -> str:
    """``size_category(9_054) == "1K<n<10K"``: the Hub's name for a number of rows."""
    return next((name for most, name in (*SIZES, *LARGER_SIZES) if documents < most), "n>1T")


def _columns(last: Manifest) -> Iterator[Sequence[str]]:
    meanings = {
        "id": "the source's own id, else file and row",
        "text": "the document",
        "url": "where it was found",
        "source": "the file that it was read from, or what the input calls its source",
        "date": "as the source gives it",
        "title": "of the page",
        "language": "label of the language identification, with `language_score`",
        "variant": "`pt-BR`, `pt-PT` or null where unsure, with `variant_score`",
        "metadata": "a JSON object: further fields of the input, encoding, runner-up languages",
        "row": "its number in the file, or part of a file, that it was read from",
    }
    yield from ((f"`{name}`", meaning) for name, meaning in meanings.items())
    if last.stage in ("dedup", "trim"):
        yield "`cluster_size`", "how many documents, with this one, were duplicates of one another"
        yield "`repeats`", "how often the document is to be repeated in a mixture"
    if last.stage == "trim":
        yield "`cut_bytes`", "how many bytes of sentences or lines that had stood before were cut out of the text"
    yield "others", "one signal each, as the filters measured it"


def _where_removed(last: Manifest) -> str:
    if last.stage == "dedup":
        return "The table `removed` beside the documents holds the duplicates; the others are in its stage `curate`."
    if last.stage == "trim":
        return (
            "The table `removed` beside the documents holds those with too little text of their own, `cuts` what was "
            "cut out of the others; the rest are in its stages `dedup` and `curate`."
        )
    return "They are the table `removed` beside the documents."


def _contents(stages: Mapping[str, Manifest]) -> Iterator[str]:
    curate = stages.get("curate")
    variants = _with_prefix(curate, "variant.") if curate else {}
    if variants:
        total = sum(variants.values())
        yield "Variants of Portuguese, before deduplication:"
        yield ""
        rows = [(name, count(n), percent(n / total)) for name, n in sorted(variants.items(), key=lambda v: -v[1])]
        yield from _table(("variant", "documents", "share"), rows)
        yield ""


def _with_prefix(stage: Manifest, prefix: str) -> dict[str, int]:
    return {key.removeprefix(prefix): n for key, n in sorted(stage.counters.items()) if key.startswith(prefix)}


def _funnel(funnel: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[str]]:
    for step in funnel:
        share = percent(step["documents"] / max(1, funnel[0]["documents"]))
        yield step["step"], count(step["documents"]), share, size(step["bytes"])


def _removed(stages: Mapping[str, Manifest]) -> Iterator[Sequence[str]]:
    for name in ("curate", "dedup", "trim"):
        if (stage := stages.get(name)) is not None:
            rows = sorted(removal_counts(stage), key=lambda row: (-row[2], row[:2]))
            yield from ((step, f"`{reason}`", count(n), explanation(reason)) for step, reason, n in rows)


def _verification(last: Manifest) -> Iterator[str]:
    if (found := last.summary.get("verification")) is not None:
        yield from (in_words(found), "")


def _settings(stages: Mapping[str, Manifest]) -> Iterator[str]:
    for name, stage in stages.items():
        if name in ("curate", "signatures", "clusters", "dedup", "spans", "trim"):
            yield from (f"Stage `{name}`:", "", "```toml", settings.to_toml(stage.config), "```", "")


def _personal_data(curate: Manifest | None) -> str:
    if curate is None or not curate.config.get("personal_data", {}).get("enabled"):
        return f"not looked for. {FILL}: what was done about it"
    found = _with_prefix(curate, "personal_data.")
    kinds = ", ".join(f"{kind} {count(n)}" for kind, n in sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return f"replaced by placeholders where the filters found it ({kinds or 'none found'}); some may remain."


def _table(heads: Sequence[str], rows: "Iterator[Sequence[str]] | Sequence[Sequence[str]]") -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
