"""The steps that documents take through curation, each over a batch of them (``filters.batch``).

A step looks at the documents whose places it is given and, for each, sets columns, changes its text or removes it with
a reason. Steps hold what is dear to make (a model, a memo), so a worker makes them once. Their order and names are
those of the funnel.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caravela.data.extract import ExtractConfig, Page
from caravela.data.extract_process import PageExtractor
from caravela.manifest import Input
from filters import c4, datatrove_blocks, decontamination, language, personal_data, text_classifier, words
from filters.batch import Batch, Places
from filters.c4 import C4Config
from filters.clean_text import blank, clean_column
from filters.datatrove_blocks import Block, BlockConfig
from filters.decontamination import DecontaminationConfig
from filters.language import LanguageConfig
from filters.near_languages import PORTUGUESE, NearLanguages, NearLanguagesConfig, language_of
from filters.personal_data import PersonalDataConfig
from filters.personal_data_search import may_hold_personal_data
from filters.quality import QualityConfig
from filters.quality_batch import decide_on_stored, measure_batch
from filters.repeated_lines import RepeatedLines, RepeatedLinesConfig, drop_repeated_lines, site_of
from filters.text_classifier import ClassifierConfig, TextClassifier
from filters.url_rules import UrlConfig, UrlRules
from filters.variant import VariantConfig, shipped_model
from filters.variant_batch import VariantFinder
from filters.word_table import WordTable

Ranking = Sequence[tuple[str, float]]
"""Labels with their scores, best first."""
MASKED_BYTES = "personal_data_bytes"
"""In the metadata of a document with personal data: how many bytes longer its text was before."""


class Step(ABC):
    """One step of the pass."""

    name: str
    sees_all_past: str = ""
    """The name of an earlier step: this one is given every document that passed it, also those that a step between has
    removed. Empty: it is given the documents that are still in, and only such a step may remove any."""

    def begin_shard(self) -> None:  # noqa: B027 - most steps carry nothing over
        """Called before the first batch of a shard: nothing may carry over from one shard to the next."""

    @abstractmethod
    def __call__(self, batch: Batch, places: Places) -> None:
        """Takes the documents at ``places`` (ascending, maybe none) through the step."""


def take_through(steps: Sequence[Step], batch: Batch, after: Callable[[str, Batch], None]) -> None:
    """All steps over a batch; ``after`` is called with the name of each when it is done."""
    for step in steps:
        step(batch, batch.past(step.sees_all_past) if step.sees_all_past else batch.still_in())
        batch.close_step(step.name)
        after(step.name, batch)


class Read(Step):
    """Sets aside what the reader could not make sense of, or what is no page with text."""

    name = "read"

    def __call__(self, batch: Batch, places: Places) -> None:
        batch.counts["broken"] += batch.raw.broken
        for place, (problem, detail) in batch.raw.problems.items():
            batch.remove(place, self.name, problem, detail)


class Url(Step):
    """Removes by URL alone, before the page is parsed."""

    name = "url"

    def __init__(self, config: UrlConfig) -> None:
        self.rules = UrlRules(config)

    def __call__(self, batch: Batch, places: Places) -> None:
        for place, url in zip(places.tolist(), batch.strings("url", places), strict=True):
            if (decision := self.rules.decide(url)) is not None:
                batch.remove(place, self.name, *decision)


class Extract(Step):
    """HTML to its main text; text to text without mojibake and control characters.

    What a page says of itself becomes its title, and ``published``, ``site`` and ``declared_language`` of its metadata;
    its date stays the one on which it was fetched, of which there is one for every page.

    A page that the parser does not survive (``timeout``, ``crashed``, ``out_of_memory``) is removed under that reason,
    and not counted as damaged input: browsers show most of them. That the parser works at all is seen when its process
    starts.
    """

    name = "extract"

    def __init__(self, config: ExtractConfig) -> None:
        self.extractor = PageExtractor(config)

    def __call__(self, batch: Batch, places: Places) -> None:
        html = batch.raw.html
        if html is None:
            self._clean(batch, places)
            return
        pages = [place for place in places.tolist() if html[place] is not None]
        self._clean(batch, np.setdiff1d(places, pages, assume_unique=True))
        self._extract(batch, pages)

    def _clean(self, batch: Batch, places: Places) -> None:
        """Texts that came as texts."""
        text = batch.raw.text if len(places) == len(batch) else batch.raw.text.take(pa.array(places))
        text = clean_column(text.fill_null(""))
        batch.set_texts(places, text)
        for place in blank(text):
            batch.remove(places[place], self.name, "no_text")

    def _extract(self, batch: Batch, places: Sequence[int]) -> None:
        assert batch.raw.html is not None
        assert batch.raw.header_charset is not None
        urls, dates = (batch.strings(name, np.array(places, np.int64)) for name in ("url", "date"))
        pages = self.extractor.extract_many(
            [
                Page(batch.raw.html[place] or b"", batch.raw.header_charset[place], url, date)
                for place, url, date in zip(places, urls, dates, strict=True)
            ]
        )
        batch.set_texts(places, [page.text for page in pages])
        batch.set("title", places, [page.title for page in pages])
        for place, page in zip(places, pages, strict=True):
            known = {
                "encoding": page.encoding,
                "published": page.date,
                "site": page.site,
                "declared_language": page.declared_language,
            }
            batch.metadata[place].update({name: value for name, value in known.items() if value})
            if page.reason:
                batch.remove(place, self.name, page.reason)


class DropRepeatedLines(Step):
    """Drops the lines that a page shares with many others of its site."""

    name = "repeated lines"

    def __init__(self, config: RepeatedLinesConfig, repeated: Input) -> None:
        self.config = config
        self.lines = RepeatedLines.load(repeated)

    def __call__(self, batch: Batch, places: Places) -> None:
        changed: dict[int, str] = {}
        texts = batch.texts(places).to_pylist()
        for place, text, url in zip(places.tolist(), texts, batch.strings("url", places), strict=True):
            kept, dropped = drop_repeated_lines(text, site_of(url), self.lines, self.config)
            if dropped:
                changed[place] = kept
                batch.counts["lines_dropped"] += dropped
            if not kept.strip():
                batch.remove(place, self.name, "only_repeated_lines")
        batch.set_texts([*changed], [*changed.values()])


class Language(Step):
    """Keeps the languages that are wanted; what the model says of each text is kept as metadata.

    Where Portuguese is wanted and a near language may have been taken for it, or it for one, a second look decides.
    Decisions rest on the scores as they are stored (32 bits), so that deciding again on the tables decides alike.
    """

    name = "language"

    def __init__(self, config: LanguageConfig, near: NearLanguagesConfig) -> None:
        self.config = config
        self.identifier = language.LanguageIdentifier.from_config(config)
        wants_portuguese = PORTUGUESE in map(language_of, config.languages)
        self.near = NearLanguages.load(near) if near.enabled and wants_portuguese else None

    def __call__(self, batch: Batch, places: Places) -> None:
        texts = batch.texts(places)
        rankings = self.identifier.identify_batch(texts)
        best = self._best(batch, texts, rankings)
        scores = np.array([score for _, score in best], np.float32)
        batch.set("language", places, [label for label, _ in best])
        batch.set("language_score", places, scores)
        for place, ranking, (label, _), score in zip(places.tolist(), rankings, best, scores.tolist(), strict=True):
            batch.metadata[place]["languages"] = {each: round(value, 4) for each, value in ranking}
            if (decision := language.decide([(label, score)], self.config)) is not None:
                batch.remove(place, self.name, *decision)

    def _best(self, batch: Batch, texts: pa.Array, rankings: Sequence[Ranking]) -> list[tuple[str, float]]:
        """Each text's label and score, after a second look where one is wanted."""
        best = [ranking[0] for ranking in rankings]
        if self.near is None:
            return best
        lengths = pc.utf8_length(texts).to_pylist()
        wanted = [i for i, each in enumerate(rankings) if self.near.is_wanted(lengths[i], each)]
        looked_at = self.near.second_looks(
            texts.take(pa.array(wanted, pa.int64())).to_pylist(), [rankings[i] for i in wanted]
        )
        batch.counts["language.second_looks"] += len(wanted)
        for i, found in zip(wanted, looked_at, strict=True):
            batch.counts["language.second_looks_that_changed_the_label"] += found[0] != best[i][0]
            best[i] = found
        return best


class Quality(Step):
    """Measures every signal in compiled code, then decides on the signals as they are stored."""

    name = "quality"

    def __init__(self, config: QualityConfig) -> None:
        self.config = config
        self.table = WordTable(words.WordSplitter())

    def __call__(self, batch: Batch, places: Places) -> None:
        measured = measure_batch(batch.texts(places), self.table, self.config)
        stored = {name: values.astype(np.float32) for name, values in measured.items()}
        for name, values in stored.items():
            batch.set(name, places, values)
        for i, decision in decide_on_stored(stored, self.config).items():
            batch.remove(places[i], self.name, *decision)


class C4(Step):
    """Drops the lines that C4's rules stop, and texts with too few sentences left."""

    name = "c4"

    def __init__(self, config: C4Config) -> None:
        self.config = config
        self.splitter = words.WordSplitter()

    def __call__(self, batch: Batch, places: Places) -> None:
        changed: dict[int, str] = {}
        for place, text in zip(places.tolist(), batch.texts(places).to_pylist(), strict=True):
            outcome = c4.apply(text, self.splitter, self.config)
            if outcome.reason:
                batch.remove(place, self.name, outcome.reason, outcome.detail)
                continue
            batch.counts["c4.lines_dropped"] += outcome.lines_dropped
            if not outcome.text.strip():
                batch.remove(place, self.name, "emptied")
            elif outcome.text != text:
                changed[place] = outcome.text
        batch.set_texts([*changed], [*changed.values()])


class Blocks(Step):
    """datatrove's filters and formatters, or anybody's of that kind, as they are."""

    def __init__(self, configs: Sequence[BlockConfig], name: str) -> None:
        self.name = name
        self.configs = configs
        self.blocks: list[Block] = []

    def begin_shard(self) -> None:
        """Makes the blocks anew: some draw random numbers or count, and would depend on the shards before."""
        self.blocks = datatrove_blocks.load_blocks(self.configs)

    def __call__(self, batch: Batch, places: Places) -> None:
        texts = batch.texts(places).to_pylist()
        known = [batch.strings(name, places) for name in ("id", "url", "language")]
        changed: dict[int, str] = {}
        for place, text, identifier, url, label in zip(places.tolist(), texts, *known, strict=True):
            metadata = batch.metadata[place]
            outcome = datatrove_blocks.apply_all(
                self.blocks, text, identifier, {**metadata, "url": url, "language": label}
            )
            if outcome.text != text:
                changed[place] = outcome.text
            metadata.update({k: v for k, v in outcome.metadata.items() if k not in ("url", "language")})
            if outcome.reason:
                batch.counts["broken"] += int(outcome.broken)
                batch.remove(place, self.name, outcome.reason, outcome.detail)
            elif not outcome.text.strip():
                batch.remove(place, self.name, "emptied")
        batch.set_texts([*changed], [*changed.values()])


class Decontamination(Step):
    """Removes the documents that hold items of evaluation sets, or only says which item and how much of it."""

    name = "decontamination"

    def __init__(self, config: DecontaminationConfig) -> None:
        self.config = config
        self.index = decontamination.load_index(config)

    def __call__(self, batch: Batch, places: Places) -> None:
        scores, found = decontamination.contamination_batch(batch.texts(places), self.index)
        batch.set(decontamination.SIGNAL, places, scores)
        for i in np.flatnonzero(found >= 0).tolist():
            place, item = int(places[i]), self.index.ids[found[i]]
            batch.metadata[place]["contaminated_by"] = item
            if (decision := decontamination.decide(float(scores[i]), item, self.config)) is not None:
                batch.remove(place, self.name, *decision)


class PersonalData(Step):
    """Replaces personal data by placeholders; removes nothing.

    It sees every document in a wanted language, so that the table of the removed holds no personal data of them either.
    """

    name = "personal_data"
    sees_all_past = "language"

    def __init__(self, config: PersonalDataConfig) -> None:
        self.config = config

    def __call__(self, batch: Batch, places: Places) -> None:
        titles = {place: title for place, title in zip(places, batch.strings("title", places), strict=True) if title}
        batch.set("title", [*titles], [personal_data.mask(title, self.config).text for title in titles.values()])
        for place in places.tolist():
            if site := batch.metadata[place].get("site"):
                batch.metadata[place]["site"] = personal_data.mask(str(site), self.config).text
        text = batch.texts(places)
        found = may_hold_personal_data(text, self.config)
        changed: dict[int, str] = {}
        for place, each in zip(places[found].tolist(), text.take(pa.array(found)).to_pylist(), strict=True):
            masked = personal_data.mask(each, self.config)
            if masked.counts:
                changed[place] = masked.text
                batch.metadata[place]["personal_data"] = dict(masked.counts)
                batch.metadata[place][MASKED_BYTES] = len(each.encode("utf-8")) - len(masked.text.encode("utf-8"))
                for kind, count in masked.counts.items():
                    batch.counts[f"personal_data.{kind}"] += count
        batch.set_texts([*changed], [*changed.values()])


class Classifiers(Step):
    """Scores by models of one's own, and removes by those whose config has a threshold, the first that says so.

    It comes after ``PersonalData``, so that the texts are those that are stored, which classifiers are trained on.
    Decisions rest on the scores as they are stored (32 bits).
    """

    name = "classifiers"

    def __init__(self, configs: Sequence[ClassifierConfig]) -> None:
        self.classifiers = [(config, TextClassifier(config)) for config in configs]

    def __call__(self, batch: Batch, places: Places) -> None:
        texts = batch.texts(places)
        found = [(config, classifier.scores(texts)) for config, classifier in self.classifiers]
        for config, scores in found:
            batch.set(config.signal, places, scores)
        for i, place in enumerate(places.tolist()):
            decisions = (text_classifier.decide(float(scores[i]), config) for config, scores in found)
            if (decision := next(filter(None, decisions), None)) is not None:
                batch.remove(place, self.name, *decision)


class Variant(Step):
    """Labels pt-BR and pt-PT; removes nothing. It comes last and sees the texts as they are kept."""

    name = "variant"

    def __init__(self, config: VariantConfig) -> None:
        self.config = config
        self.finder = VariantFinder(shipped_model())

    def __call__(self, batch: Batch, places: Places) -> None:
        found = self.finder.identify(batch.texts(places), self.config)
        batch.set("variant", places, [variant for variant, _ in found])
        batch.set("variant_score", places, pa.array([score for _, score in found], pa.float32()))
        for variant, _ in found:
            batch.counts[f"variant.{variant or 'unsure'}"] += 1
