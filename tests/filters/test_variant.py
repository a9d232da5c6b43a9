"""The sample texts are told apart; single features by hand; what is no Portuguese, or says nothing, stays unnamed."""

from pathlib import Path

import pytest

from caravela import config as settings
from caravela.config import ConfigError
from filters import variant
from filters.variant import VariantConfig, identify_variant, shipped_inventory, shipped_model
from tests.filters.hard_texts import SAMPLE_TEXTS, hard_texts

DEFAULT = VariantConfig()


def sample(folder: str) -> list[Path]:
    return sorted((SAMPLE_TEXTS / folder).rglob("*.txt"))


def features(text: str) -> dict[str, int]:
    """What is found, by the last part of its name."""
    return {name.split("/", 1)[1]: count for name, count in shipped_inventory().find(text).counts.items()}


def test_sample_documents_are_named_rightly_and_few_stay_unnamed() -> None:
    """The weights were fitted without these 160 texts."""
    labels = [(folder, path) for folder in ("pt-BR", "pt-PT") for path in sample(folder)]
    found = [(folder, identify_variant(path.read_text(encoding="utf-8"), DEFAULT)[0]) for folder, path in labels]
    named = [(folder, name) for folder, name in found if name]
    assert len(labels) == 160
    assert len(named) >= 0.75 * len(labels)
    assert sum(folder == name for folder, name in named) >= 0.9 * len(named)
    for folder in ("pt-BR", "pt-PT"):
        assert sum(folder == label for label, _ in named) >= 0.7 * len(sample(folder))


@pytest.mark.parametrize("folder", ["gl", "es", "ca", "it", "fr", "en"])
def test_other_languages_have_no_variant(folder: str) -> None:
    assert {identify_variant(path.read_text(encoding="utf-8"), DEFAULT)[0] for path in sample(folder)} == {None}


@pytest.mark.parametrize("text", ["", " \n", "...", "\x00", "casa", "O mar é azul.", "12 345", "A" * 10_000])
def test_text_that_says_nothing_has_no_variant_and_no_score(text: str) -> None:
    assert identify_variant(text, DEFAULT) == (None, None)


@pytest.mark.parametrize(
    ("text", "name", "score_above"),
    [
        (
            "Perdi o autocarro e não tenho telemóvel, por isso vou à casa de banho da estação com uma amiga.",
            "pt-PT",
            0.9,
        ),
        ("Perdi o ônibus e não tenho celular, por isso vou ao banheiro da estação com uma amiga.", "pt-BR", 0.85),
        ("A receção do facto económico na secção foi registada com uma equipa de dezasseis.", "pt-PT", 0.95),
        ("A recepção do fato econômico na seção foi registrada com uma equipe de dezesseis.", "pt-BR", 0.95),
    ],
)
def test_sentence_with_several_marks_is_named(text: str, name: str, score_above: float) -> None:
    found, score = identify_variant(text, DEFAULT)
    assert found == name
    assert score is not None
    assert score_above < score <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Rita está a fazer o jantar", {"<estar_a_infinitive>": 1}),
        ("Estamos fazendo o jantar", {"<estar_gerund>": 1}),
        ("continuava a chover", {"<ficar_a_infinitive>": 1}),
        ("vinham descendo", {"<ir_gerund>": 1}),
        ("Sim. Me diga", {"<proclitic_at_start>": 1, "me_diga": 1}),
        ("não me disse", {"<me_te_lhe>": 1}),
        ("vou te contar", {"<clitic_between>": 1, "<me_te_lhe>": 1, "te_contar": 1}),
        ("disse-lhe", {"<enclitic_other>": 1}),
        ("viu-o", {"<enclitic_other>": 1}),
        ("trata-se", {"<enclitic_se>": 1}),
        ("fazê-lo", {"<enclitic_after_infinitive>": 1}),
        ("dar-se-ia", {"<mesoclisis>": 1}),
        ("o meu carro", {"<article_possessive>": 1}),
        ("vendi meu carro", {"<bare_possessive>": 1}),
        ("género, ténue, fenómeno", {"<acute_before_nasal>": 3}),
        ("gênero, tênue, fenômeno", {"<circumflex_before_nasal>": 3}),
        ("ninguém também estômago cônjuge fêmea porém vêm", {}),
        ("falámos", {"<preterite_ámos>": 1}),
        ("freqüente lingüiça", {"<trema>": 2}),
        ("assembléia", {"<éia>": 1}),
        ("casas de banho", {"casas_de_banho": 1}),
        ("até ao fim, até o fim", {"até_ao": 1, "até_o": 1}),
        ("ficheiro ficheiros", {"ficheiro/s": 2}),
        ("compartilhando", {"compartilh*": 1}),
        ("guarda-roupa", {}),
        ("quando o segundo comando vai", {}),
    ],
)
def test_feature_is_found(text: str, expected: dict[str, int]) -> None:
    assert features(text) == expected


def test_name_inside_a_sentence_does_not_count_but_at_its_start_the_word_does() -> None:
    assert features("Falei com o senhor António Comboio") == {}
    assert features("Falei. Comboio cheio") == {"comboio/s": 1}


@pytest.mark.parametrize("folder", ["pt-BR", "pt-PT"])
def test_capitals_and_small_letters_give_the_same(folder: str) -> None:
    for path in sample(folder)[:20]:
        text = path.read_text(encoding="utf-8")
        assert shipped_inventory().find(text.upper()).counts == shipped_inventory().find(text.lower()).counts
        assert identify_variant(text.upper(), DEFAULT) == identify_variant(text.lower(), DEFAULT)


def test_old_spelling_takes_the_word_from_reformed_letters() -> None:
    """In 1880 both sides wrote acção and director."""
    modern = shipped_inventory().find("A acção do director foi bella.")
    old = shipped_inventory().find("Elle e ella, n'aquelle anno, fizeram a acção do director.")
    assert not modern.is_old
    assert "silent_consonant/acção" in modern.counts
    assert old.is_old
    assert old.counts == {}


def test_of_two_ways_to_say_one_thing_only_the_surplus_counts() -> None:
    both = {"syntax/<article_possessive>": 7, "syntax/<bare_possessive>": 1}
    assert variant.values(both) == [("syntax/<article_possessive>", 2.0)]  # log2 8 less log2 2
    assert variant.values({"syntax/<article_possessive>": 3, "syntax/<bare_possessive>": 3}) == []


def test_every_entry_has_one_side_and_a_weight_that_is_not_against_it() -> None:
    inventory, weights = shipped_inventory(), shipped_model().weights
    assert weights.keys() == inventory.features.keys()
    assert all(weights[feature.name] * feature.side >= 0 for feature in inventory.features.values())
    sides: dict[str, set[int]] = {}
    for feature in inventory.features.values():
        stem, *endings = feature.name.split("/", 1)[1].split("/")
        for form in (stem, *(stem + ending for ending in endings)):
            sides.setdefault(form, set()).add(feature.side)
    assert [form for form, found in sides.items() if len(found) > 1] == []


def test_score_is_the_probability_and_thresholds_decide() -> None:
    assert variant.decide(2.0, 3, DEFAULT) == ("pt-PT", pytest.approx(0.8808, abs=1e-4))
    assert variant.decide(-2.0, 3, DEFAULT) == ("pt-BR", pytest.approx(0.8808, abs=1e-4))
    assert variant.decide(2.0, 1, DEFAULT) == (None, pytest.approx(0.8808, abs=1e-4))
    assert variant.decide(-2.0, 3, VariantConfig(threshold=0.9)) == (None, pytest.approx(0.8808, abs=1e-4))
    assert variant.decide(0.0, 0, DEFAULT) == (None, None)
    assert variant.decide(-1e4, 9, DEFAULT) == ("pt-BR", pytest.approx(1.0))


def test_hard_texts_neither_fail_nor_depend_on_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = list(hard_texts(seed=4, count=150))
    first = [identify_variant(text, DEFAULT) for text in texts]
    monkeypatch.setattr(variant, "MEMO_WORDS", 50)
    assert [identify_variant(text, DEFAULT) for text in reversed(texts)][::-1] == first
    assert all(score is None or 0.5 <= score <= 1 for _, score in first)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"threshold": 0.4}, r"threshold = 0\.4: expected between 0\.5 and 1"),
        ({"min_evidence": 0}, "min_evidence = 0: expected 1 or more"),
    ],
)
def test_config_out_of_range_names_the_value(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.build(VariantConfig, table, "x.toml")
