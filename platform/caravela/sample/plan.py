"""Which pages the sample crawl has: every text once, copies of some, personal data in others, and the junk.

Copies at a known similarity (Jaccard 0.3 to 0.95 to their base, in clusters of up to six pages) and personal data go
to different texts, so that each label is exact.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from caravela.sample.duplicates import near_duplicate
from caravela.sample.noise import Draft, junk_drafts
from caravela.sample.page import load_toml
from caravela.sample.personal import PersonalSentence, personal_sentences
from caravela.sample.texts import Text, load_texts

# Near-duplicates per base, for Portuguese texts; then for texts in other languages.
COPIES = (4,) * 4 + (2,) * 8 + (1,) * 32
FOREIGN_COPIES = {"es": (1, 1), "en": (1, 1)}
LOWEST_TARGET, HIGHEST_TARGET = 0.30, 0.95
# Below this target only some recipes have enough edits; the others stay at 0.6 or above.
LOW_TARGET = 0.64
LOW_RECIPES = ("sentence_drop", "mixed", "insertion")
RECIPES = ("substitution", "deletion", "prefix_suffix", "insertion", "substitution", "mixed", "sentence_drop")
FOREIGN_RECIPES = ("sentence_drop", "deletion")
MIRRORS_OF_COPIED, MIRRORS_OF_OTHERS, FOREIGN_MIRRORS = 10, 14, 4
PERSONAL_ROUNDS = 2


def plan_pages(seed: int) -> list[Draft]:
    """All pages in a fixed order; the last one is the record that the crawl breaks off in."""
    rng = random.Random(f"{seed}/plan")
    texts = load_texts()
    portuguese = [text for text in texts if text.language == "pt"]
    rng.shuffle(portuguese)
    copied, single = portuguese[: len(COPIES)], portuguese[len(COPIES) :]
    foreign = [text for text in texts if text.language != "pt"]
    mirrored = copied[:MIRRORS_OF_COPIED] + single[:MIRRORS_OF_OTHERS] + rng.sample(foreign, FOREIGN_MIRRORS)
    sentences = _insertions(single[MIRRORS_OF_OTHERS:], rng)
    drafts = [_draft(text) for text in texts]
    drafts = [_with_personal_data(d, sentences[d.key]) if d.key in sentences else d for d in drafts]
    drafts += _near_duplicates(copied, COPIES, rng)
    for language, counts in FOREIGN_COPIES.items():
        drafts += _near_duplicates([text for text in foreign if text.language == language], counts, rng)
    drafts += [_copy(text, "mirror", i) for i, text in enumerate(mirrored)]
    drafts += junk_drafts(seed)
    broken, truncated = rng.sample(copied, 2)
    damaged = [_damaged(broken, "broken", "broken_header"), _damaged(truncated, "truncated", "truncated")]
    return drafts + damaged


def _draft(text: Text) -> Draft:
    """The text's own page."""
    return Draft(
        kind="text",
        key=text.key,
        locale=text.locale,
        title=text.title,
        paragraphs=text.paragraphs,
        register=text.register,
        cluster=text.key,
        jaccard=1.0,
        junk_reason=None if text.language == "pt" else "language",
    )


def _copy(text: Text, kind: str, number: int = 0) -> Draft:
    """The same text for another site."""
    return replace(_draft(text), kind=kind, key=f"{text.key}#{kind}-{number}")


def _damaged(text: Text, kind: str, reason: str) -> Draft:
    """A copy in a record that cannot be read whole, and so of no known similarity."""
    return replace(_copy(text, kind), junk_reason=reason, cluster=None, jaccard=None)


def _near_duplicates(bases: Sequence[Text], counts: Sequence[int], rng: random.Random) -> Iterator[Draft]:
    """``counts[i]`` copies of ``bases[i]``, their similarities spread evenly over the range."""
    total = sum(counts)
    step = (HIGHEST_TARGET - LOWEST_TARGET) / max(1, total - 1)
    recipes = []
    for i in range(total):
        target = LOWEST_TARGET + step * i
        choice: tuple[str, ...] = FOREIGN_RECIPES
        if bases[0].language == "pt":
            choice = LOW_RECIPES if target < LOW_TARGET else RECIPES
        recipes.append((target, choice[i % len(choice)]))
    rng.shuffle(recipes)
    numbered = [(base, n) for base, count in zip(bases, counts, strict=False) for n in range(count)]
    for (base, number), (target, recipe) in zip(numbered, recipes, strict=True):
        draft = _copy(base, "near_duplicate", number)
        text, similarity = near_duplicate(base.body, recipe, target, random.Random(f"{rng.random()}/{draft.key}"))
        yield replace(draft, paragraphs=tuple(text.split("\n")), jaccard=similarity, recipe=recipe)


def _insertions(candidates: Sequence[Text], rng: random.Random) -> dict[str, PersonalSentence]:
    """A sentence for each of as many texts as there are sentences, by the text's key."""
    material = load_toml("junk.toml")["personal"]
    chosen: dict[str, PersonalSentence] = {}
    for locale in material:
        filled = [s for _ in range(PERSONAL_ROUNDS) for s in personal_sentences(material, locale, rng)]
        once = {sentence.text: sentence for sentence in filled}  # decoys are the same in every round
        keys = [text.key for text in candidates if text.locale == locale]
        assert len(keys) >= len(once), f"{locale}: {len(once)} sentences for {len(keys)} texts"
        chosen.update(zip(keys, once.values(), strict=False))
    return chosen


def _with_personal_data(draft: Draft, sentence: PersonalSentence) -> Draft:
    """The sentence at the end of the last paragraph; below a dialogue, on its own."""
    *before, last = draft.paragraphs
    ending = (last, sentence.text) if draft.register == "dialogue" else (f"{last} {sentence.text}",)
    return replace(draft, paragraphs=(*before, *ending), personal_data=sentence.counts)
