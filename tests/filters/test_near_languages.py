"""The second look: arithmetic by hand, our own sentences in the near languages, and the sample texts.

No weight was fitted to a sentence of this file or to the sample texts.
"""

import json
import math
import time
import unicodedata
from importlib import resources

import pytest

from caravela import config as settings
from caravela.config import ConfigError
from filters import near_languages
from filters.near_languages import (
    LANGUAGES,
    NearLanguages,
    NearLanguagesConfig,
    Weights,
    excerpt,
    log_scores,
    patterns_of,
    words_of,
)
from tests.filters.hard_texts import SAMPLE_TEXTS, hard_texts

DOUBT = (("pt", 0.5), ("gl", 0.3), ("es", 0.1))
NOTHING = [0] * len(LANGUAGES)


@pytest.fixture(scope="module")
def shipped() -> NearLanguages:
    return NearLanguages.load()


def small() -> NearLanguages:
    """Two patterns: "nh" weighs 2 for Portuguese, "_unha_" 3 for Galician and -1 for Portuguese."""
    rows = {"nh": [2000, 0, *NOTHING[2:]], "_unha_": [-1000, 3000, *NOTHING[2:]]}
    constants = [0.5, 0.0, *(-50.0 for _ in LANGUAGES[2:])]
    return NearLanguages(Weights(rows, 0.5, 2.0, 0.25, constants), NearLanguagesConfig())


def test_probability_is_what_one_computes_by_hand() -> None:
    """Four words, so sums are halved: unha -1 + 2 = 1 and 3, vinha 2 and 0; in all pt 3/2, gl 3/2."""
    odds, num_words = small().log_odds("Unha casa, vinha 12 e")
    assert (odds[0], odds[1], num_words) == (1.5, 1.5, 4)
    label, score = small().second_look("Unha casa, vinha 12 e", [("gl", 0.6), ("pt", 0.4)])
    portuguese = 0.5 + 2 * 1.5 + 0.25 * math.log(0.4)
    galician = 2 * 1.5 + 0.25 * math.log(0.6)
    assert label == "pt"
    assert score == pytest.approx(1 / (1 + math.exp(galician - portuguese)), rel=1e-9)
    assert small().second_look("unha", [("pt", 1.0)])[0] == "gl"  # 2 x 3 + log(1/1000)/4 against 0.5 + 2 x 1


def test_patterns_are_all_runs_of_one_to_five_letters_and_the_word() -> None:
    assert patterns_of("ña") == ["_", "_ñ", "_ña", "_ña_", "ñ", "ña", "ña_", "a", "a_"]
    long = patterns_of("coração")
    assert "_coração_" in long
    assert {"ção_", "_cora", "ração"} <= set(long)
    assert max(len(pattern) for pattern in long if pattern != "_coração_") == 5
    assert patterns_of("a" * 25) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Disse-lhe: d’água, L'home", ["disse-lhe", "d'água", "l'home"]),
        ("¿Qué tal? ¡Ola!", ["¿", "qué", "tal", "¡", "ola"]),
        ("vê https://a.pt/uma-coisa e www.b.es/x, @alguem #tag ou eu@c.pt 12h30", ["vê", "e", "ou", "h"]),
        (unicodedata.normalize("NFD", "ação"), ["ação"]),
        ("🙂 12 345 ... \x00", []),
        ("qu' al", ["qu'", "al"]),
    ],
)
def test_words_are_found(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_of_a_long_text_the_beginning_middle_and_end_are_read() -> None:
    text = "a" * 5000 + "b" * 5000 + "c" * 5000
    assert excerpt(text, 300) == "\n".join(("a" * 100, "b" * 100, "c" * 100))
    assert excerpt(text, 15_000) is text


@pytest.mark.parametrize(
    ("characters", "ranking", "wanted"),
    [
        (5000, [("pt", 0.99), ("gl", 0.01)], False),
        (100, [("pt", 0.99), ("gl", 0.01)], True),
        (5000, [("pt", 0.94), ("gl", 0.06)], True),
        (5000, [("gl", 0.9), ("pt", 0.1)], True),
        (100, [("gl", 0.99), ("pt", 0.01)], False),
        (100, [("en", 0.99)], False),
        (100, [("en", 0.9), ("pt", 0.05)], True),
        (5000, [("por_Latn", 0.99)], False),
        (100, [("glg_Latn", 0.9), ("por_Latn", 0.1)], True),
        (0, [("und", 0.0)], False),
        (0, [], False),
    ],
)
def test_only_doubtful_or_short_texts_are_looked_at(
    characters: int, ranking: list[tuple[str, float]], wanted: bool
) -> None:
    assert NearLanguages.load().is_wanted(characters, ranking) is wanted


def test_labels_of_both_models_mean_the_same_and_others_are_one() -> None:
    one = log_scores([("pt", 0.5), ("gl", 0.25), ("de", 0.125), ("nl", 0.125)])
    assert one == log_scores([("por_Latn", 0.5), ("glg_Latn", 0.25), ("deu_Latn", 0.25)])
    assert one[0] == math.log(0.5)
    assert one[-1] == math.log(0.25)
    assert one[2] == math.log(near_languages.LEAST_SCORE)


def test_label_is_spelt_as_the_ranking_spells_it(shipped: NearLanguages) -> None:
    text = "Unha muller do concello díxolle que non podía ir alí coas súas fillas."
    assert shipped.second_look(text, [("pt", 0.6), ("gl", 0.4)])[0] == "gl"
    assert shipped.second_look(text, [("por_Latn", 0.6), ("glg_Latn", 0.4)])[0] == "glg_Latn"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("gl", "A xente da aldea aínda non sabe se o mestre volverá pola mañá ou máis tarde."),
        ("gl", "Onte merquei unhas mazás na praza e déillas á miña irmá."),
        ("gl", "O goberno aprobou o proxecto coa abstención dos grupos da oposición."),
        ("gl", "Preme no botón Aceptar para gardar os cambios no ficheiro."),
        ("es", "La gente del pueblo todavía no sabe si el maestro volverá por la mañana o más tarde."),
        ("es", "Ayer compré unas manzanas en la plaza y se las di a mi hermana."),
        ("ast", "La xente del pueblu inda nun sabe si'l maestru volverá pela mañana o más sero."),
        ("ast", "Ayeri merqué unes mazanes na plaza y diéles a la mio hermana, que ye muncho más nueva."),
        ("mwl", "La giente de l lhugar inda nun sabe se l mestre buolbe manhana ou mais tarde."),
        ("mwl", "Onte cumprei uas maçanas na praça i di-las a la mie armana, que ye mais nuoba do que you."),
        ("ca", "La gent del poble encara no sap si el mestre tornarà al matí o més tard."),
        ("it", "La gente del paese non sa ancora se il maestro tornerà domattina o più tardi."),
        ("fr", "Les gens du village ne savent pas encore si le maître reviendra demain matin."),
    ],
)
def test_sentence_in_a_near_language_is_not_taken_though_the_ranking_prefers_portuguese(
    language: str, text: str, shipped: NearLanguages
) -> None:
    runner_up = language if language != "gl" else "es"
    found = shipped.second_look(text, [("pt", 0.5), ("gl", 0.2), (runner_up, 0.15)])
    assert found[0] != "pt"
    if language in ("gl", "es", "ca", "it", "fr", "ast"):
        assert found[0] == language


@pytest.mark.parametrize(
    "text",
    [
        "A gente da aldeia ainda não sabe se o professor volta de manhã ou mais tarde.",
        "nao sei se ele vem amanha mas acho que nao, entao fica pra depois ne",
        "Ontem comprei umas maçãs na praça e dei-as à minha irmã.",
        "Elle não sabia que a mãi d'aquella menina já tinha sahido da egreja, e ficou á espera n'um banco.",
        "O réu invocou a exceptio non adimpleti contractus e o princípio in dubio pro reo, sem razão.",
        "Clique no botão Aceitar para guardar as alterações no ficheiro.",
        "VENDE-SE CASA COM DOIS QUARTOS E QUINTAL",
        "kkkk vc viu o jogo ontem? meu deus que golaço",
        "O presidente do conselho disse que a proposta não será votada este ano.",
    ],
)
def test_portuguese_is_not_lost_though_the_ranking_doubts_it(text: str, shipped: NearLanguages) -> None:
    label, score = shipped.second_look(text, DOUBT)
    assert label == "pt"
    assert score > 0.65


@pytest.mark.parametrize("folder", ["gl", "es", "ca", "it", "fr", "en"])
def test_sample_texts_in_other_languages_are_known(folder: str, shipped: NearLanguages) -> None:
    """Though the ranking says Portuguese."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((SAMPLE_TEXTS / folder).rglob("*.txt"))]
    assert len(texts) >= 10
    assert {shipped.second_look(text, [("pt", 0.7), (folder, 0.2)])[0] for text in texts} == {folder}
    lines = [line for text in texts for line in text.splitlines() if len(line.split()) >= 8]
    taken = [line for line in lines if shipped.second_look(line, [("pt", 0.5), (folder, 0.2)])[0] == "pt"]
    assert len(taken) <= 0.02 * len(lines), taken


@pytest.mark.parametrize("folder", ["pt-PT", "pt-BR"])
@pytest.mark.parametrize(("accents", "most_lost"), [(True, 0.025), (False, 0.035)])
def test_sample_texts_in_portuguese_stay(folder: str, accents: bool, most_lost: float, shipped: NearLanguages) -> None:
    """Every text, and nearly every line, though the ranking gives Galician 0.3; up to 3 % of lines are lost."""
    lines = []
    for path in sorted((SAMPLE_TEXTS / folder).rglob("*.txt")):
        text = path.read_text(encoding="utf-8")
        if not accents:
            text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
        assert shipped.second_look(text, DOUBT)[0] == "pt", path
        lines += [line for line in text.splitlines() if len(line.split()) >= 8]
    lost = [line for line in lines if shipped.second_look(line, DOUBT)[0] != "pt"]
    assert len(lost) <= most_lost * len(lines), lost


@pytest.mark.parametrize("text", ["", " \n", "...", "12 345", "🙂🙂", "\x00"])
def test_text_without_words_keeps_what_the_ranking_says(text: str, shipped: NearLanguages) -> None:
    assert shipped.second_look(text, DOUBT) == DOUBT[0]
    assert shipped.second_look(text, [("und", 0.0)]) == ("und", 0.0)
    assert shipped.second_look(text, []) == ("und", 0.0)


def test_language_beyond_the_near_ones_keeps_its_own_label(shipped: NearLanguages) -> None:
    text = "Der Lehrer sagte, dass die Kinder morgen nicht in die Schule gehen."
    assert shipped.second_look(text, [("de", 0.95), ("pt", 0.02), ("nl", 0.01)])[0] == "de"


def test_hard_texts_neither_fail_nor_depend_on_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = list(hard_texts(seed=4, count=150))
    first = [NearLanguages.load().second_look(text, DOUBT) for text in texts]
    again = NearLanguages.load()
    assert [again.second_look(text, DOUBT) for text in reversed(texts)][::-1] == first
    monkeypatch.setattr(near_languages, "MEMO_WORDS", 50)
    forgetful = NearLanguages.load()
    assert [forgetful.second_look(text, DOUBT) for text in texts] == first
    assert all(0 < score <= 1 for _, score in first)


def test_huge_text_costs_no_more_than_its_excerpt(shipped: NearLanguages) -> None:
    text = "Não sei o que ele disse. " * 400_000
    clock = time.process_time()
    assert shipped.second_look(text, DOUBT)[0] == "pt"
    assert shipped.second_look("a" * 10_000_000, DOUBT) is not None
    assert time.process_time() - clock < 5


def test_shipped_weights_are_whole_numbers_and_their_figures_hold_what_they_must() -> None:
    """At most 6 % of Galician sentences taken, at most 6.5 % of Portuguese ones lost, on sources that were not seen."""
    table = json.loads((resources.files("filters") / "near_languages_weights.json").read_text("utf-8"))
    assert {len(row) for row in table["patterns"].values()} == {len(LANGUAGES)}
    assert {type(weight) for row in table["patterns"].values() for weight in row} == {int}
    figures = table["unseen_sources_at_0.65"]
    assert figures["gl sentence"]["second_look"] <= 0.06
    assert 1 - figures["pt sentence"]["second_look"] <= 0.065


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sure": 1.5}, r"sure = 1\.5: expected between 0 and 1"),
        ({"least_portuguese": -0.1}, r"least_portuguese = -0\.1: expected between 0 and 1"),
        ({"sure_characters": -1}, r"sure_characters = -1: expected 0 or more"),
        ({"max_characters": 10}, r"max_characters = 10: expected 100 or more"),
    ],
)
def test_config_out_of_range_names_the_value(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.build(NearLanguagesConfig, table, "x.toml")
