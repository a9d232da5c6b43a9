"""Which Portuguese a text is written in: that of Brazil (pt-BR) or that of Portugal (pt-PT).

In: a text in Portuguese. Out: ``identify_variant`` gives the variant and a score, the probability of that variant;
without a variant (too little evidence, or evidence on both sides) the score is the probability of the likelier one,
and a text in which nothing was found, or that is not Portuguese, has none: ``(None, None)``.

Only what ``variant_inventory.toml`` lists is looked at, so the name of a place or of a source cannot carry a decision:
spellings, words that differ, contractions and phrases, and the rules of this module (``económico`` or ``econômico``,
``estar a fazer`` or ``estar fazendo``, where the pronoun stands). Names, which are capitals inside a sentence, do not
count. Each sighting adds its weight of ``variant_weights.json``; ``benchmarks/fit_variant.py`` fits the weights, and
an entry never weighs against the side that the inventory gives it. Spelling from before the reforms, in which both
sides wrote alike, is recognised; families that it makes worthless are left out then.

What it gets wrong: the literature of the nineteenth century, whose grammar was the same on both sides; pages of one
side that were made from the other's by replacing words; texts of under 150 words mostly stay unnamed. Figures by
cross-validation over unseen sources are in the weights file.

Cost: about 9 MB/s on one core (8 from an empty memo of words), which is at most 300,000 words, about 60 MB, large.
``filters.variant_batch`` says the same of many texts at once.
"""

import functools
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

from caravela.config import ConfigError

BRAZIL, PORTUGAL = "pt-BR", "pt-PT"
MEMO_WORDS = 300_000
OLD_WORDS_LEAST, OLD_SHARE = 3, 0.004  # a text of 1,000 words with four in old spelling is an old text
PORTUGUESE_SHARE = 0.02  # of words that Portuguese has and its neighbours have not; below it a text is not judged

TOKEN = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*|[.!?…:;\n\"«»“”—–•]")
BREAK = re.compile(r"[.!?…:;\n\"«»“”—–•]")
JOINERS = "-'’"
ACUTE = re.compile(r"[éó][mn][aeiouáéíóú]")
CIRCUMFLEX = re.compile(r"[êô][mn][aeiouáéíóú]")
BOTH_CIRCUMFLEX = re.compile(r"fême|estômag|dêmos|vêm|têm|cômoro")
TREMA = re.compile(r"[gq]ü[eiéíê]")
MESOCLISIS = re.compile(r"[aeiô]r?-(?:me|te|se|lhes?|nos|vos|[lo]s?|la|as?)-(?:ei|ás?|ão|emos|ia[sm]?|íamos)$")
ENCLITIC = re.compile(r"(.+)-(me|te|se|lhes?|nos|[ln]?[oa]s?)$")
OLD = re.compile(
    r"(?:[dn]?ell[ae]s?|[dn]?aquell[aeo]s?|[dn]'(?:ell[ae]s?|aquell[aeo]s?|uma?s?|est[ae]s?|ess[ae]s?)|annos?|hontem|mez"
    r"|quasi|d?ahi|sahi[ru]?|sahira?m?|cahi[ru]?|cahira?m?|fall(?:ar|ava|avam|ou|a|am|ando)|egua(?:l|es)|edade|egrejas?"
    r"|philosoph[oi]a?s?|theatros?|thesouros?|thronos?|appareceu?|apparecia|commum|differentes?|difficil|effeitos?"
    r"|bell[ao]s?|cabellos?|cavall(?:o|os|eiros?)|vae|vaes|sae|deos|meos|seos|hum|huma|sciencias?|assumptos?"
    r"|escriptor?e?s?|christ[ãa]os?|hombros?|affliç[ãa]o|occup(?:ar|ad[oa]s?|ava)|occasi(?:ão|ões)|succed(?:eu|ido|er)"
    r"|collo|pelle|lettras?|prompt[oa]s?|attenç[ãa]o|chegáram|fôram|dous|cousas?|mãi|pae|paes|n'elle|comtudo|emfim)$"
)
NO_GERUND = frozenset("quando segundo mundo fundo comando bando ando mando brando profundo vagabundo imundo".split())
PORTUGUESE = frozenset("não uma um em com são pela também às você isso muito numa mas sem depois".split())

CLITICS = frozenset("me te se lhe lhes nos".split())
PROCLITICS = frozenset("me te lhe lhes".split())  # "se" and "nos" open sentences as other words
BE = frozenset(
    "estar estou estás está estamos estais estão estava estavas estávamos estavam esteve estive estiveram estivemos"
    " esteja estejam estejamos estivesse estivessem estiver estiverem estará estarão estaria estariam estado".split()
)
GO_ON = frozenset(
    "ficar fica ficam ficou ficaram ficava ficavam andar anda andam andou andava andavam continuar continua continuam"
    " continuou continuaram continuava passar passa passam passou passaram".split()
)
GO = frozenset("ir vou vai vamos vão ia iam foi foram vem vêm vinha vinham veio vieram".split())
AUXILIARIES = frozenset(
    "pode podem podemos poder poderia poderá podia podiam deve devem deveria devia vai vão vou vamos ia iam quer quero"
    " querem queria tinha tinham havia haviam tem têm está estão estava estavam ter pôde consegue conseguiu".split()
)
ARTICLES = frozenset("o a os as do da dos das no na nos nas ao à aos às pelo pela pelos pelas".split())
POSSESSIVES = frozenset("meu minha meus minhas teu tua teus tuas seu sua seus suas nosso nossa nossos nossas".split())
CONTRASTS = (
    ("syntax/<article_possessive>", "syntax/<bare_possessive>"),
    ("pronouns/<enclitic_other>", "pronouns/<me_te_lhe>"),
)


@dataclass(frozen=True, kw_only=True)
class VariantConfig:
    """When a variant is named."""

    enabled: bool = True
    """Whether curation fills the columns variant and variant_score."""
    threshold: float = 0.75
    """Least probability of the likelier variant; below it no variant is named."""
    min_evidence: int = 2
    """Least number of different sightings; with fewer no variant is named."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.threshold <= 1:
            raise ConfigError(f"threshold = {self.threshold}: expected between 0.5 and 1")
        if self.min_evidence < 1:
            raise ConfigError(f"min_evidence = {self.min_evidence}: expected 1 or more")


class Sightings(NamedTuple):
    """What was found in a text: how often each feature, by name, among how many words."""

    counts: Mapping[str, int]
    num_words: int
    is_portuguese: bool
    is_old: bool


class Feature(NamedTuple):
    """An entry of the inventory: its side is -1 for Brazil and 1 for Portugal."""

    name: str
    family: str
    side: int
    prior: float
    modern: bool


class _Word(NamedTuple):
    """What is known of a word; ``phrases`` are those that it begins: by second word, then what follows and the name."""

    lower: str
    feature: str | None = None
    phrases: Mapping[str, Sequence[tuple[list[str], str]]] = {}
    is_name: bool = False  # begins with a capital, goes on in small letters
    enclitic: str | None = None
    has_syntax: bool = False
    is_portuguese: bool = False


class Inventory:
    """The entries of ``variant_inventory.toml``, ready to be looked up. It holds the memo of words."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.features: dict[str, Feature] = {}
        self._words: dict[str, str] = {}
        self._prefixes: dict[str, str] = {}
        self._phrases: dict[str, dict[str, list[tuple[list[str], str]]]] = {}
        for family, section in table["families"].items():
            for key, side, prior in (("br", -1, section["prior"][0]), ("pt", 1, section["prior"][1])):
                for entry in section[key].split():
                    name = f"{family}/{entry}"
                    self.features[name] = Feature(name, family, side, prior, section.get("modern", False))
                    self._add(entry, name)
        for phrases in (tails for by_second in self._phrases.values() for tails in by_second.values()):
            phrases.sort(key=lambda phrase: -len(phrase[0]))  # the longest is found first
        self.second_words = frozenset(second for by_second in self._phrases.values() for second in by_second)
        """Second words of all phrases."""
        self._memo: dict[str, _Word | None] = {}

    def _add(self, entry: str, name: str) -> None:
        stem, *endings = entry.split("/")
        for form in (stem, *(stem + ending for ending in endings)):
            first, *rest = form.split("_")
            if rest:
                self._phrases.setdefault(first, {}).setdefault(rest[0], []).append((rest[1:], name))
            elif form.endswith("*"):
                self._prefixes[form[:-1]] = name
            elif form[0] != "<":
                self._words[form] = name

    def find(self, text: str) -> Sightings:
        """Counts every feature in the text. Same for a text in capitals as in small letters."""
        tokens = TOKEN.findall(text)
        if len(self._memo) > MEMO_WORDS:
            self._memo = {}
        memo = self._memo
        for token in set(tokens).difference(memo):
            memo[token] = self.look_up(token)
        known = list(map(memo.__getitem__, tokens))
        counts: dict[str, int] = {}
        num_breaks = num_old = num_portuguese = 0
        for place, word in enumerate(known):
            if word is None:
                continue
            if word is _BREAK:
                num_breaks += 1
                continue
            _, feature, phrases, is_name, _, has_syntax, is_portuguese = word
            num_portuguese += is_portuguese
            starts = place == 0 or known[place - 1] is _BREAK
            if feature is not None and (starts or not is_name):
                if feature == "old":
                    num_old += 1
                else:
                    counts[feature] = counts.get(feature, 0) + 1
            if phrases and place + 1 < len(tokens):
                for tail, name in phrases.get(tokens[place + 1].lower(), ()):
                    if not tail or [token.lower() for token in tokens[place + 2 : place + 2 + len(tail)]] == tail:
                        counts[name] = counts.get(name, 0) + 1
                        break
            if has_syntax:
                previous = tokens[place - 1].lower() if place else ""
                for name in _syntax(word, starts, previous, tokens[place + 1 : place + 3]):
                    counts[name] = counts.get(name, 0) + 1
        return sightings_of(self, counts, len(tokens), num_breaks, num_old, num_portuguese)

    def phrases_of(self, token: str) -> Mapping[str, Sequence[tuple[list[str], str]]]:
        """The phrases that begin with a token: by second word, what follows and the name."""
        return self._phrases.get(token.lower().replace("’", "'"), {})

    def look_up(self, token: str) -> _Word | None:
        """What is known of a token; nothing of most."""
        if BREAK.match(token):
            return _BREAK
        lower = token.lower().replace("’", "'")
        feature = self._feature_of(lower)
        phrases = self._phrases.get(lower, {})
        enclitic = _enclitic_of(lower)
        has_syntax = enclitic is not None or lower in _SYNTAX_WORDS
        if feature is None and not phrases and not has_syntax and lower not in PORTUGUESE:
            return None
        is_name = token[0] != lower[0] and len(token) > 1 and not token.isupper()
        return _Word(
            lower,
            feature,
            phrases,
            is_name=is_name,
            enclitic=enclitic,
            has_syntax=has_syntax,
            is_portuguese=lower in PORTUGUESE,
        )

    def _feature_of(self, word: str) -> str | None:
        if word in self._words:
            return self._words[word]
        for end in range(len(word), 3, -1):
            if word[:end] in self._prefixes:
                return self._prefixes[word[:end]]
        if OLD.match(word):
            return "old"
        if word.endswith("ámos"):
            return "diacritics/<preterite_ámos>"
        if ACUTE.search(word):
            return "diacritics/<acute_before_nasal>"
        if CIRCUMFLEX.search(word) and not BOTH_CIRCUMFLEX.search(word):
            return "diacritics/<circumflex_before_nasal>"
        if word.endswith(("éia", "éias")):
            return "diacritics/<éia>"
        return "diacritics/<trema>" if TREMA.search(word) else None


_BREAK = _Word("\n")
_SYNTAX_WORDS = PROCLITICS | BE | GO_ON | GO | AUXILIARIES | POSSESSIVES


def is_gerund(word: str) -> bool:
    return len(word) > 4 and word.endswith(("ando", "endo", "indo")) and word not in NO_GERUND


def is_infinitive(word: str) -> bool:
    return len(word) > 2 and word.endswith(("ar", "er", "ir", "or", "ôr"))


def sightings_of(
    inventory: Inventory, counts: Mapping[str, int], tokens: int, breaks: int, old: int, portuguese: int
) -> Sightings:
    """What these counts of features, and of four kinds of tokens, come to."""
    num_words = tokens - breaks
    is_old = old >= max(OLD_WORDS_LEAST, OLD_SHARE * num_words)
    if is_old:
        counts = {name: count for name, count in counts.items() if not inventory.features[name].modern}
    return Sightings(counts, num_words, portuguese >= max(1, PORTUGUESE_SHARE * num_words), is_old)


def _enclitic_of(word: str) -> str | None:
    """The feature of a verb with a pronoun behind it or inside it."""
    if "-" not in word:
        return None
    if MESOCLISIS.search(word):
        return "pronouns/<mesoclisis>"
    if (match := ENCLITIC.match(word)) is None or len(match[1]) < 2:
        return None
    if match[1].endswith(("r", "á", "ê", "i")):
        return "pronouns/<enclitic_after_infinitive>"
    return "pronouns/<enclitic_se>" if match[2] == "se" else "pronouns/<enclitic_other>"


def _syntax(word: _Word, starts: bool, previous: str, after: list[str]) -> Iterable[str]:
    """Features of a word and its neighbours."""
    lower = word.lower
    first, second = [*(token.lower() for token in after), "", ""][:2]
    if word.enclitic is not None:
        yield word.enclitic
    elif lower in POSSESSIVES:
        yield "syntax/<article_possessive>" if previous in ARTICLES else "syntax/<bare_possessive>"
    if lower in BE and first == "a" and is_infinitive(second):
        yield "syntax/<estar_a_infinitive>"
    elif lower in GO_ON and first == "a" and is_infinitive(second):
        yield "syntax/<ficar_a_infinitive>"
    elif (lower in BE or lower in GO_ON) and is_gerund(first):
        yield "syntax/<estar_gerund>"
    elif lower in GO and is_gerund(first):
        yield "syntax/<ir_gerund>"
    elif lower in AUXILIARIES and first in CLITICS and (is_infinitive(second) or is_gerund(second)):
        yield "pronouns/<clitic_between>"
    elif lower in PROCLITICS:
        yield "pronouns/<proclitic_at_start>" if starts and first else "pronouns/<me_te_lhe>"


@dataclass(frozen=True)
class VariantModel:
    """An inventory with its fitted weights, in units of log odds for Portugal, and the calibration of their sum."""

    inventory: Inventory
    weights: Mapping[str, float]
    slope: float
    """What the sum of the weights is multiplied by to be log odds."""
    least_weight: float
    """Features that weigh less are no evidence of their own."""

    def log_odds(self, sightings: Sightings) -> tuple[float, int]:
        """Log odds for Portugal, and how many different features with a weight they rest on."""
        total, evidence = 0.0, 0
        for name, value in values(sightings.counts):
            weight = self.weights.get(name, 0.0)
            total += weight * value
            evidence += abs(weight) >= self.least_weight
        return self.slope * total, evidence


def values(counts: Mapping[str, int]) -> list[tuple[str, float]]:
    """What each feature's count is worth, by name, so that a sum is always the same.

    The second sighting of a word says less than the first, hence log2(1 + count). Of two ways to say one thing only
    the surplus of one over the other counts: a long text has many of both.
    """
    worth = {name: math.log2(1 + count) for name, count in counts.items()}
    for one, other in CONTRASTS:
        if one in worth and other in worth:
            shared = min(worth[one], worth[other])
            worth[one], worth[other] = worth[one] - shared, worth[other] - shared
    return sorted((name, value) for name, value in worth.items() if value)


def decide(log_odds: float, evidence: int, config: VariantConfig) -> tuple[str | None, float | None]:
    """The variant, if there is enough evidence for it, and the probability of the likelier one."""
    if evidence == 0:
        return None, None
    score = 1 / (1 + math.exp(-min(abs(log_odds), 50.0)))
    if evidence < config.min_evidence or score < config.threshold:
        return None, score
    return (PORTUGAL if log_odds > 0 else BRAZIL), score


def identify_variant(text: str, config: VariantConfig) -> tuple[str | None, float | None]:
    """The variant of a text with its probability, such as ``("pt-BR", 0.97)``; see the module for what None means."""
    model = shipped_model()
    return decide_on(model, model.inventory.find(text), config)


def decide_on(model: VariantModel, sightings: Sightings, config: VariantConfig) -> tuple[str | None, float | None]:
    """The variant of a text in which these were found."""
    if not sightings.is_portuguese:
        return None, None
    return decide(*model.log_odds(sightings), config)


@functools.cache
def shipped_inventory() -> Inventory:
    """The inventory that lies beside this module."""
    return Inventory(tomllib.loads((resources.files(__package__) / "variant_inventory.toml").read_text("utf-8")))


@functools.cache
def shipped_model() -> VariantModel:
    """The inventory and the weights that lie beside this module."""
    fitted = json.loads((resources.files(__package__) / "variant_weights.json").read_text("utf-8"))
    return VariantModel(shipped_inventory(), fitted["weights"], fitted["slope"], fitted["least_weight"])
