"""Contamination by evaluation items: planted copies of every kind, and brute force on words and sets as the oracle."""

import random
import re
import time
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caravela.config import ConfigError, build
from caravela.data.evaluation_items import EvaluationItem, ItemFile
from caravela.errors import UserError
from filters.decontamination import (
    DecontaminationConfig,
    ItemIndex,
    build_index,
    contamination_batch,
    decide,
    item_inputs,
    load_index,
)
from filters.decontamination_kernels import fold, is_skipped

CONFIG = DecontaminationConfig()
BRIDGE = EvaluationItem(
    "prova/7",
    (
        "Uma engenheira precisa escolher o material dos cabos de uma ponte pênsil que ligará duas margens de um rio "
        "largo, numa região de ventos fortes e de invernos úmidos. Ela sabe que a ponte receberá caminhões carregados "
        "de minério e que a manutenção só poderá ser feita a cada dez anos.\n"
        "Considerando essas condições, a propriedade mais importante do material escolhido é",
    ),
    (
        "a resistência à corrosão e à tração repetida.",
        "a baixa condutividade térmica nas noites frias.",
        "a facilidade de receber tinta de cores claras.",
        "o preço por tonelada no mercado internacional.",
    ),
)
BAKER = EvaluationItem(
    "prova/8",
    (
        "O padeiro Anselmo vendeu a crédito quarenta pães por dia a uma pensão, durante um mês, e nunca recebeu. O "
        "dono da pensão alega que o fermento era velho, embora tenha servido os pães a todos os hóspedes.\n"
        "Considerando essas condições, assinale a afirmativa correta sobre a cobrança da dívida.",
    ),
    ("Anselmo pode cobrar o preço inteiro.", "Anselmo deve devolver o que recebeu.", "A pensão nada deve."),
)
LIGHTHOUSE = EvaluationItem(
    "prova/9",
    (
        "No poema, o velho faroleiro conta as ondas como quem conta moedas emprestadas, e devolve ao mar, toda manhã, "
        "o troco da noite. O efeito de humor do trecho vem de",
    ),
)
ITEMS = (BRIDGE, BAKER, LIGHTHOUSE)
# On bridges and cables too, and with the formula of the questions.
INNOCENT = (
    "A ponte pênsil da cidade completa cem anos em maio. Seus cabos de aço, trocados há duas décadas, aguentam "
    "ventos fortes e a passagem de caminhões, mas a prefeitura quer proibir os carregados de minério. Segundo a "
    "engenheira que cuida da manutenção, a corrosão é vigiada todos os meses com aparelhos de ultrassom. Considerando "
    "essas condições, o tráfego pesado será "
    "desviado para a ponte nova a partir de julho, e a velha ficará para bicicletas e pedestres."
)
BEFORE = (
    "Receita de família para dias de chuva: afogue a cebola no azeite, junte o arroz e não mexa mais do que duas vezes."
)
AFTER = (
    "O resultado do sorteio sai na sexta-feira, às oito da noite, na praça do coreto, com a banda e o padre presentes."
)


def index_of(items: Sequence[EvaluationItem] = ITEMS, config: DecontaminationConfig = CONFIG) -> ItemIndex:
    return build_index(items, config)


def contamination(text: str | None, index: ItemIndex) -> tuple[float, str]:
    scores, found = contamination_batch(pa.array([text], pa.large_string()), index)
    return float(scores[0]), index.ids[found[0]] if found[0] >= 0 else ""


def text_of(item: EvaluationItem) -> str:
    return "\n".join((*item.question, *(f"{'ABCDE'[i]}) {text}" for i, text in enumerate(item.options))))


def without_accents(text: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFD", text) if not unicodedata.combining(each))


def one_word_in_eight_changed(text: str) -> str:
    return " ".join("xisto" if i % 8 == 5 else word for i, word in enumerate(text.split()))


PLANTS = {
    "verbatim": (text_of, 1.0),
    "question alone": (lambda item: item.question[0], 1.0),
    "capitals without accents": (lambda item: without_accents(text_of(item)).upper(), 1.0),
    "accents written apart": (lambda item: unicodedata.normalize("NFD", text_of(item)), 1.0),
    "broken lines": (lambda item: re.sub(r"((?:\S+\s+){6})", r"\1\n", text_of(item)), 1.0),
    "other punctuation": (lambda item: re.sub(r"[,.)]", " —", text_of(item)), 1.0),
    "soft hyphens": (lambda item: re.sub(r"(\w{4})(\w{3})", "\\1\u00ad\\2", text_of(item)), 1.0),
    "options in another order": (
        lambda item: text_of(EvaluationItem("", item.question, tuple(reversed(item.options)))),
        1.0,
    ),
    "one word in eight changed": (lambda item: one_word_in_eight_changed(text_of(item)), 0.7),
    "words left out": (lambda item: re.sub(r"((?:\S+\s+){9})\S+\s+", r"\1", text_of(item)), 0.7),
    "second half of the question": (lambda item: item.question[0][len(item.question[0]) // 2 :], 0.4),
}


@pytest.mark.parametrize("item", [BRIDGE, BAKER], ids=lambda item: item.id)
@pytest.mark.parametrize("plant", PLANTS)
def test_planted_item_is_found_and_named(plant: str, item: EvaluationItem) -> None:
    change, at_least = PLANTS[plant]
    score, found = contamination(f"{BEFORE}\n{change(item)}\n{AFTER}", index_of())
    assert found == item.id
    assert at_least <= score <= 1
    assert decide(score, found, CONFIG) == ("contaminated", f"{item.id} {score:.2f}")


@pytest.mark.parametrize(
    "text",
    [
        INNOCENT,
        BEFORE + AFTER,
        " ".join(BRIDGE.question[0].split()[:7]) + ". " + AFTER,
        "\n".join(BRIDGE.options[:2]) + AFTER,  # two options of four, and no question
        " ".join(sorted(BRIDGE.question[0].split())),
    ],
)
def test_innocent_text_stays(text: str) -> None:
    score, found = contamination(text, index_of())
    assert score < CONFIG.threshold
    assert decide(score, found, CONFIG) is None


def test_share_is_that_of_the_question_or_of_the_whole_item_by_hand() -> None:
    item = EvaluationItem("a/1", ("um dois três quatro cinco seis sete oito nove dez",), ("onze " * 10,))
    config = replace(CONFIG, n=3, min_words=4)
    index = index_of([item], config)
    assert contamination("zero um dois três quatro zero", index) == (pytest.approx(0.4), "a/1")
    assert contamination("zero um dois três zero", index) == (0.0, "")  # three words: under min_words
    assert contamination("um dois três x seis sete oito", index) == (pytest.approx(0.6), "a/1")
    # The option is one 3-gram at all its places, so three words of it are as good as ten: (10 + 0) / 20 words.
    assert contamination("onze onze onze", index) == (pytest.approx(0.5), "a/1")


def test_matches_far_apart_do_not_add_up() -> None:
    halves = BRIDGE.question[0].split()
    first, second = " ".join(halves[:20]), " ".join(halves[20:40])
    near, far = f"{first} {'e ' * 10} {second}", f"{first} {'e ' * 60} {second}"
    index = index_of()
    assert contamination(near, index)[0] > 1.8 * contamination(far, index)[0] > 0.4


def test_formula_of_many_items_is_no_evidence() -> None:
    formula = "Com base na situação descrita acima e nos termos da lei em vigor, assinale a alternativa correta."
    words = "abcdefghij"
    items = [
        EvaluationItem(f"f/{i}", (" ".join(f"{a}{b}{i}" for a in words[:3] for b in words[:4]) + " " + formula,))
        for i in range(6)
    ]
    index = index_of(items)
    assert index.formulae == 17 - 5 + 1
    assert contamination(formula, index) == (0.0, "")
    assert contamination(items[2].question[0], index) == (1.0, "f/2")
    assert contamination(formula, index_of(items[:4]))[0] > 0.5


def test_short_items_are_one_n_gram_or_cannot_be_found() -> None:
    items = [
        EvaluationItem("c/1", ("mais um lixo",)),
        EvaluationItem("c/2", ("que vergonha ver esse senhor de novo na tela",)),
        EvaluationItem("c/3", ("",)),
        EvaluationItem("c/4", ("... !!!",)),
    ]
    index = index_of(items, replace(CONFIG, n=13))
    assert index.unmatchable == ("c/1", "c/3", "c/4")
    assert "3 items too short" in index.describe()
    assert contamination("Ele disse: que vergonha ver esse senhor de novo na tela!", index) == (1.0, "c/2")
    assert contamination("que vergonha ver esse senhor de novo na rua", index) == (0.0, "")
    assert contamination("mais um lixo", index) == (0.0, "")
    assert index_of([items[0]], replace(CONFIG, min_words=3)).unmatchable == ()


@pytest.mark.parametrize("words", [1, 2, 3, 4, 5])
def test_item_of_a_few_words_is_found_where_that_is_wanted(words: int) -> None:
    item = EvaluationItem("c/1", (" ".join("alfa beta gama delta iota".split()[:words]),))
    index = index_of([item], replace(CONFIG, min_words=words))
    assert contamination(f"antes {item.question[0]} depois", index) == (1.0, "c/1")
    assert contamination("antes depois", index) == (0.0, "")


def test_item_given_twice_is_found_under_its_first_id() -> None:
    copies = [BRIDGE._replace(id=f"{name}/1") for name in "fedcba"]
    index = index_of([*copies, LIGHTHOUSE])
    assert index.doubles == ("b/1", "c/1", "d/1", "e/1", "f/1")
    assert contamination(text_of(BRIDGE), index) == (1.0, "a/1")


def test_of_equal_shares_the_first_id_is_named() -> None:
    one = EvaluationItem("z/1", ("alfa beta gama delta iota kapa lambda mi ni xi",))
    two = EvaluationItem("a/2", ("rato gato pato mato fato tato nato lato jato zato",))
    for order in ([one, two], [two, one]):
        for text in (f"{one.question[0]}. {two.question[0]}", f"{two.question[0]}. {one.question[0]}"):
            assert contamination(text, index_of(order)) == (1.0, "a/2")


def test_words_do_not_reach_across_the_parts_of_an_item() -> None:
    item = EvaluationItem("a/1", ("um dois três quatro", "cinco seis sete oito"))
    index = index_of([item], replace(CONFIG, n=4, min_words=1))
    assert contamination("três quatro cinco seis", index) == (0.0, "")
    assert contamination("cinco seis sete oito", index) == (0.5, "a/1")


VOCABULARY = (
    "a o de que não É água Água AGUA ação ac\u0327a\u0303o ﬁm fim ½ 1º ß ss İ 7 R$ x-y d'água 東京 صباح".split()
)
ODD = ["\x00", "\u200b", "\u0301", "_", "🙂", "\u3000", "\n", "...", "\u00ad"]


def random_text(rng: random.Random, length: int, items: Sequence[EvaluationItem] = ()) -> str:
    parts = []
    while len(parts) < length:
        if items and rng.random() < 0.1:
            source = " ".join(rng.choice(items).question).split(" ")
            start = rng.randrange(len(source) or 1)
            parts += source[start : start + rng.randrange(1, 14)]
        else:
            parts.append(
                rng.choice(ODD) if rng.random() < 0.05 else rng.choice(VOCABULARY) + rng.choice("abc" * 9 + " ")
            )
    return " ".join(parts[:length])


def words_by_brute_force(text: str) -> list[str]:
    plain = "".join("" if is_skipped(each) else fold(each) or " " for each in text)
    return plain.split()


def by_brute_force(text: str, items: Sequence[EvaluationItem], config: DecontaminationConfig) -> tuple[float, str]:
    """The definition, with sets of (part, word) and n-grams as tuples of strings."""
    seen, kept = set(), []
    for item in sorted(items):
        parts = [[words_by_brute_force(t) for t in texts] for texts in (item.question, item.options)]
        words = tuple(word for texts in parts for part in texts for word in part)
        if not words or words not in seen:
            kept.append((item.id, [*parts[0], *parts[1]], len(parts[0])))
            seen.add(words)
    holders = defaultdict(set)
    grams: list[dict[tuple[str, ...], set[tuple[int, int]]]] = []
    for number, (_, parts, _) in enumerate(kept):
        n = min(config.n, max((len(part) for part in parts), default=0))
        places = defaultdict(set)
        for p, part in enumerate(parts):
            for i in range(len(part) - n + 1 if n else 0):
                gram = tuple(part[i : i + n])
                holders[gram].add(number)
                places[gram] |= {(p, i + j) for j in range(n)}
        grams.append(places)
    words = words_by_brute_force(text)
    best, name = 0.0, ""
    for (id_, _, asking), places in zip(kept, grams, strict=True):
        places = {gram: at for gram, at in places.items() if len(holders[gram]) <= config.max_items}
        weigh = set().union(*places.values())
        n = len(next(iter(places))) if places else 0
        hits = [i for i in range(len(words) - n + 1 if n else 0) if tuple(words[i : i + n]) in places]
        passages: list[set[tuple[int, int]]] = []
        for i, before in zip(hits, [None, *hits], strict=False):
            if before is None or i - before > config.max_gap:
                passages.append(set())
            passages[-1] |= places[tuple(words[i : i + n])]
        for covered in passages:
            for parts in (range(asking), range(10**6)):
                count = sum(p in parts for p, _ in covered)
                if count >= config.min_words and count / sum(p in parts for p, _ in weigh) > best:
                    best, name = count / sum(p in parts for p, _ in weigh), id_
    return float(np.float32(best)), name


@pytest.mark.parametrize("seed", range(12))
def test_signal_equals_brute_force_on_random_items_and_texts(seed: int) -> None:
    rng = random.Random(seed)
    config = replace(
        CONFIG,
        n=rng.choice([1, 2, 3, 5, 8, 13]),
        min_words=rng.choice([1, 3, 8]),
        max_items=rng.choice([1, 2, 4]),
        max_gap=rng.choice([1, 5, 50]),
    )
    items = []
    for number in range(25):
        question = tuple(random_text(rng, rng.randrange(20)) for _ in range(rng.randrange(1, 3)))
        options = tuple(random_text(rng, rng.randrange(9)) for _ in range(rng.randrange(4)))
        items.append(EvaluationItem(f"t/{number}", question, options))
    items += [items[3]._replace(id="t/copy"), EvaluationItem("t/empty", ())]
    texts = ["", *(random_text(rng, rng.randrange(60), items) for _ in range(40)), text_of(items[5])]
    index = index_of(items, config)
    scores, found = contamination_batch(pa.array(texts, pa.string()), index)
    got = [(float(s), index.ids[i] if i >= 0 else "") for s, i in zip(scores, found, strict=True)]
    assert got == [by_brute_force(text, items, config) for text in texts]
    # Where single words count, nearly every text holds the whole of some item.
    assert len({score for score, _ in got}) > (5 if 1 < config.n <= 5 else 1), (
        "items and texts should share something, and not everything"
    )


def test_words_are_folded_as_written_here() -> None:
    text = "Ação, AÇÃO e ac\u0327a\u0303o: «Ler-se-á» n.º 12½ ﬁm_da ÆON;\tStraße STRASSE x²\u00adb 東京 \u200bzero"
    words = "acao acao e acao ler se a n o 1212 fim da æon strasse strasse x2b 東京 zero".split()
    assert words_by_brute_force(text) == words
    item = EvaluationItem("a/1", (" ".join(words),))
    assert contamination(text, index_of([item])) == (1.0, "a/1")


EMPTY = ["", " ", "\n\n", "\x00", "\x00" * 50, "!!! ... ???", "🙂" * 20, "\u0301", "a"]


@pytest.mark.parametrize("text", [*EMPTY, None])
def test_text_without_words_is_clean(text: str | None) -> None:
    assert contamination(text, index_of()) == (0.0, "")
    assert decide(0.0, "", CONFIG) is None


def test_batch_is_its_texts_one_by_one_whatever_the_array() -> None:
    texts = [text_of(BRIDGE), None, "", INNOCENT, "\x00" + text_of(BAKER), text_of(LIGHTHOUSE).lower(), None]
    index = index_of()
    alone = [contamination(text, index) for text in texts]
    assert [name for _, name in alone] == ["prova/7", "", "", *[alone[3][1]], "prova/8", "prova/9", ""]
    for kind in (pa.string(), pa.large_string()):
        whole = pa.array(["zzz", *texts, text_of(BAKER)], kind)
        for array in (pa.array(texts, kind), whole.slice(1, len(texts))):
            scores, found = contamination_batch(array, index)
            assert scores.dtype == np.float32
            assert found.dtype == np.int32
            assert list(zip(scores.tolist(), [index.ids[i] if i >= 0 else "" for i in found], strict=True)) == alone
    assert [len(part) for part in contamination_batch(pa.array([], pa.string()), index)] == [0, 0]


def test_index_is_the_same_whatever_the_order_of_items() -> None:
    rng = random.Random(3)
    items = [EvaluationItem(f"t/{i}", (random_text(rng, 30),), (random_text(rng, 9),)) for i in range(50)]
    first = index_of(items)
    rng.shuffle(items)
    second = index_of(items)
    assert first.ids == second.ids
    assert all(np.array_equal(a, b) for a, b in zip(first.table, second.table, strict=True))


def test_no_items_find_nothing() -> None:
    assert contamination(text_of(BRIDGE), index_of([])) == (0.0, "")


def test_huge_text_is_searched_in_time_and_found_at_its_end() -> None:
    index = index_of()
    filler = "palavra " * 1_000_000
    contamination(BEFORE, index)  # compiled by now
    begin = time.thread_time()  # other processes do not count
    assert contamination(filler + text_of(BAKER), index) == (1.0, "prova/8")
    assert contamination("a" * 10_000_000, index) == (0.0, "")
    assert time.thread_time() - begin < 5


def test_threshold_is_met_at_equality_and_removal_can_be_off() -> None:
    for threshold in (0.3, 0.7, 0.4):
        config = replace(CONFIG, threshold=threshold)
        assert decide(float(np.float32(threshold)), "a/1", config) == ("contaminated", f"a/1 {threshold:.2f}")
        assert decide(threshold - 0.001, "a/1", config) is None
    assert decide(1.0, "a/1", replace(CONFIG, remove=False)) is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"n": 0}, "n = 0: expected 1 or more"),
        ({"threshold": 0.0}, "threshold = 0.0: expected above 0"),
        ({"tasks": ["mmlu"], "folder": "x"}, "tasks = 'mmlu': expected one of assin, enem"),
        ({"tasks": ["enem"]}, "folder = '': expected where"),
        ({"enabled": True}, r"items = \[\]: expected files"),
    ],
)
def test_config_that_makes_no_sense_is_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(DecontaminationConfig, table, "test.toml")


def test_index_of_a_file_and_its_inputs_change_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "itens.csv"
    path.write_text(f'id,question\n7,"{BRIDGE.question[0]}"\n', "utf-8")
    config = DecontaminationConfig(enabled=True, items=(ItemFile(uri=str(path), task="prova"),))
    assert contamination(text_of(BRIDGE), load_index(config)) == (1.0, "prova/7")
    before = item_inputs(config)
    assert [given.uri for given in before] == [str(path)]
    path.write_text(path.read_text("utf-8") + "8,outra pergunta\n", "utf-8")
    assert item_inputs(config) != before
    assert item_inputs(replace(config, enabled=False)) == ()


def test_items_of_which_none_can_be_found_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "itens.csv"
    path.write_text("id,question\n1,curta demais\n", "utf-8")
    config = DecontaminationConfig(enabled=True, items=(ItemFile(uri=str(path)),))
    with pytest.raises(UserError, match="none of 1 items has 8 words that count"):
        load_index(config)
