"""Personal data: sentences with true items and look-alikes, and what holds for every text.

The sentences stand in ``personal_data.toml``. Check digits are tested against published examples and by counting.
"""

import itertools
import json
import random
import re
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from caravela.config import ConfigError
from caravela.sample.crawl import LABELS_FILE, build_crawl
from filters import check_digits
from filters.personal_data import PLACEHOLDERS, PersonalDataConfig, items, mask
from filters.personal_data_rules import KINDS
from tests.filters.hard_texts import SAMPLE_TEXTS, hard_texts

DEFAULT = PersonalDataConfig()
MASKED = PersonalDataConfig(style="masked")
EVERY_IP = PersonalDataConfig(public_ips_only=False)
SENTENCES = tomllib.loads(Path(__file__).with_name("personal_data.toml").read_text(encoding="utf-8"))
MARKED = re.compile(r"\{(\w+):([^}]*)\}")


class Sentence(NamedTuple):
    """A text and the items in it."""

    text: str
    items: list[tuple[str, str]]


PERSONAL = [
    Sentence(MARKED.sub(r"\2", marked), MARKED.findall(marked))
    for sentences in SENTENCES["personal"].values()
    for marked in sentences
]
LOOK_ALIKES = [text for sentences in SENTENCES["look_alikes"].values() for text in sentences]


def found_in(text: str, config: PersonalDataConfig = DEFAULT) -> list[tuple[str, str]]:
    return [(item.kind, text[item.start : item.end]) for item in items(text, config)]


def test_the_test_set_is_large_and_each_kind_has_its_share() -> None:
    counts = Counter(kind for sentence in PERSONAL for kind, _ in sentence.items)
    assert sum(counts.values()) >= 150
    assert len(LOOK_ALIKES) >= 150
    assert set(counts) == set(KINDS)
    assert min(counts.values()) >= 12


def test_precision_and_recall_are_at_least_95_percent_overall_and_per_kind() -> None:
    right, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    for text, expected in [*PERSONAL, *(Sentence(text, []) for text in LOOK_ALIKES)]:
        predicted = found_in(text)
        right.update(kind for kind, _ in (Counter(predicted) & Counter(expected)).elements())
        found.update(kind for kind, _ in predicted)
        wanted.update(kind for kind, _ in expected)
    assert right.total() / found.total() >= 0.95
    assert right.total() / wanted.total() >= 0.95
    for kind in KINDS:
        assert right[kind] / found[kind] >= 0.95, kind
        assert right[kind] / wanted[kind] >= 0.95, kind


def test_check_digits_of_published_examples() -> None:
    assert check_digits.is_cpf("52998224725")
    assert check_digits.is_cnpj("11222333000181")
    assert check_digits.is_cnpj("12ABC34501DE35")  # the example of the Receita Federal for letters
    assert check_digits.is_nif("123456789")
    assert check_digits.is_card("4111111111111111")
    assert check_digits.is_card("378282246310005")
    # NISS 1234567890?: 29+46+57+68+65+66+49+40+27+0 = 447, and 9 - 7 = 2.
    assert check_digits.is_niss("12345678902")
    # RG 12345678-?: 2+6+12+20+30+42+56+72 = 240 = 21·11 + 9, and 11 - 9 = 2.
    assert check_digits.is_sao_paulo_rg("123456782")


@pytest.mark.parametrize(
    ("fits", "number", "alphabet", "places", "share"),
    [
        (check_digits.is_cpf, "52998224725", "0123456789", (9, 10), 1 / 100),
        (check_digits.is_cnpj, "11222333000181", "0123456789", (12, 13), 1 / 100),
        (check_digits.is_nif, "123456789", "0123456789", (8,), 1 / 10),
        (check_digits.is_niss, "12345678902", "0123456789", (10,), 1 / 10),
        (check_digits.is_sao_paulo_rg, "123456782", "0123456789X", (8,), 1 / 11),
        (check_digits.is_card, "4111111111111111", "0123456789", (15,), 1 / 10),
    ],
)
def test_one_ending_fits_and_every_slip_of_one_digit_is_noticed(
    fits: Callable[[str], bool], number: str, alphabet: str, places: tuple[int, ...], share: float
) -> None:
    endings = ["".join(ending) for ending in itertools.product(alphabet, repeat=len(places))]
    assert sum(fits(number[: places[0]] + ending) for ending in endings) / len(endings) == pytest.approx(share)
    slips = [number[:i] + d + number[i + 1 :] for i in range(len(number)) for d in "0123456789" if d != number[i]]
    # Modulus 11 gives 0 for a remainder of 10 as well, and of NISS's weights two share a factor with its modulus 10.
    assert sum(map(fits, slips)) <= len(slips) * 0.06


@pytest.mark.parametrize("digit", "0123456789")
def test_one_digit_repeated_is_never_a_number(digit: str) -> None:
    assert not check_digits.is_cpf(digit * 11)
    assert not check_digits.is_cnpj(digit * 14)
    assert not check_digits.is_nif(digit * 9)
    assert not check_digits.is_niss(digit * 11)
    assert not check_digits.is_sao_paulo_rg(digit * 9)
    assert not check_digits.is_card(digit * 16)


@pytest.mark.parametrize(
    ("number", "is_one"),
    [
        ("4222222222222", True),  # Visa of 13
        ("5555555555554444", True),
        ("2223003122003222", True),  # Mastercard's newer range
        ("6011111111111117", True),
        ("3530111333300000", True),
        ("30569309025904", True),
        ("411111111111111", False),  # Visa of 15: Luhn or not, no such length
        ("9999999999999995", False),  # Luhn's sum fits; nobody issues it
    ],
)
def test_cards_have_issuers_and_lengths(number: str, is_one: bool) -> None:
    assert check_digits.is_card(number) == is_one


def test_items_are_replaced_by_their_names_and_counted() -> None:
    text = "Rosa, CPF 529.982.247-25, tel. (11) 98765-4321 e 3456-7890, rosa@correio.example"
    masked, counts = mask(text, DEFAULT)
    assert masked == "Rosa, CPF <CPF>, tel. <TELEFONE> e <TELEFONE>, <EMAIL>"
    assert counts == {"cpf": 1, "phone_br": 2, "email": 1}


def test_masked_style_keeps_the_form_with_zeros() -> None:
    text = "CPF 529.982.247-25, RG 12.345.678-2, +351 912 345 678, rosa@correio.example, IP 201.17.88.140"
    expected = "CPF 000.000.000-00, RG 00.000.000-0, +000 000 000 000, nome@exemplo.invalid, IP 0.0.0.0"
    assert mask(text, MASKED).text == expected


def test_only_the_kinds_asked_for_are_replaced() -> None:
    text = "CPF 529.982.247-25, rosa@correio.example, IP 201.17.88.140"
    for kind in ("cpf", "email", "ip"):
        assert mask(text, PersonalDataConfig(kinds=(kind,))).counts == {kind: 1}
    assert mask(text, PersonalDataConfig(kinds=())) == (text, {})


@pytest.mark.parametrize("address", ["192.168.0.1", "10.0.0.25", "127.0.0.1", "fe80::1", "::1", "fd00:1:2:3:4:5:6:7"])
def test_local_addresses_are_replaced_only_on_demand(address: str) -> None:
    text = f"o IP {address} respondeu"
    assert mask(text, DEFAULT).counts == {}
    assert mask(text, EVERY_IP) == ("o IP <IP> respondeu", {"ip": 1})


@pytest.mark.parametrize(
    ("before", "is_nif"),
    [
        ("NIF ", True),
        ("contribuinte n.º ", True),
        ("PT", True),
        ("", False),
        ("pedido ", False),
        ("o contribuinte já pagou ", False),
        ("NIF" + " e mais" * 12 + " ", False),  # too far away
    ],
)
def test_nine_digits_are_a_nif_where_they_are_announced(before: str, is_nif: bool) -> None:
    assert mask(f"{before}123456789.", DEFAULT).counts == ({"nif": 1} if is_nif else {})


def test_other_numbers_give_way_to_a_kind_named_in_the_same_clause() -> None:
    assert mask("Telefone para pedidos: 912345678", DEFAULT).counts == {"phone_pt": 1}
    assert mask("Telefone 912345678; pedido 935112004", DEFAULT).counts == {"phone_pt": 1}
    assert mask("Pedido 912345678, telefone 935112004", DEFAULT).text == "Pedido 912345678, telefone <TELEFONE>"


@pytest.mark.parametrize("config", [DEFAULT, MASKED, EVERY_IP], ids=["placeholder", "masked", "every_ip"])
def test_masking_twice_changes_nothing_more(config: PersonalDataConfig) -> None:
    """Items, labels and separators strung together at random, where one replacement may expose the next number."""
    known = [item for sentence in PERSONAL for _, item in sentence.items]
    words = "tel pedido CPF NIF CNPJ RG SSP Rua contribuinte cartão IP CEP - SP euros PT Lisboa Social".split()
    odd = ["<CPF>", "000.000.000-00", "nome@exemplo.invalid", "0::0", "😀", "\0", "Segurança Social", "x" * 60]
    separators = [" ", "", ".", "-", "/", ",", ", ", "; ", "\n", ": ", " (", ") ", "@", "+", "<", ">", " e "]
    rng = random.Random(9)
    for _ in range(2000):
        chosen = [
            rng.choice(rng.choice((known, known, words, odd, [str(rng.randrange(10 ** rng.randrange(1, 10)))])))
            for _ in range(rng.randrange(2, 14))
        ]
        text = "".join(piece + rng.choice(separators) for piece in chosen)
        once = mask(text, config)
        assert mask(once.text, config) == (once.text, {}), text


@pytest.mark.parametrize("config", [DEFAULT, MASKED], ids=["placeholder", "masked"])
def test_every_text_comes_back_whole_and_alike(config: PersonalDataConfig) -> None:
    for text in hard_texts(seed=5, count=100):
        found = list(items(text, config))
        assert all(a.end <= b.start for a, b in itertools.pairwise(found))
        once = mask(text, config)
        assert once == mask(text, config)
        assert sum(once.counts.values()) == len(found)
        assert len(once.text) == len(text) + sum(len(i.replacement) - (i.end - i.start) for i in found)
        assert mask(once.text, config) == (once.text, {})


@pytest.mark.parametrize(
    "text", ["", " ", "\0", "@", "1", "😀", "Sem número nenhum.", "\ud800", "٣٤٥٦٧٨٩٠", "CPF", "@@@"]
)
def test_texts_without_items_come_back_as_they_are(text: str) -> None:
    assert mask(text, DEFAULT) == (text, {})


def test_characters_beyond_ascii_do_not_shift_what_is_replaced() -> None:
    assert mask("😀\0ção 👍🏽 CPF\u00a0529.982.247-25\0 é", DEFAULT).text == "😀\0ção 👍🏽 CPF\u00a0<CPF>\0 é"


@pytest.mark.parametrize(
    "unit",
    [
        *("1 ", "1.", "912345678 ", "01310-100 ", "200.9.9.9 ", "a@a.", "tel 3456-7890 ", "529.982.247-25 "),
        *("/0001-95 ", "11 98765-432 ", ":2001", "RG 12.345.678 "),
    ],
)
def test_a_megabyte_of_anything_takes_linear_time_and_seconds_at_most(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    measured = []
    for _ in range(3):  # what else runs on the machine can only add to a time
        quarter, whole, reference = seconds(text[: len(text) // 4]), seconds(text), reference_seconds()
        if whole < 10 * reference and whole < 6 * quarter + reference:
            return
        measured.append((quarter, whole, reference))
    pytest.fail(f"seconds for a quarter, the whole and the reference: {measured}")


def reference_seconds() -> float:
    """Processor time of a work that does not change: 0.25 to 0.6 s where masking a megabyte takes 0.2 to 4."""
    text = prose(1_000_000)
    clock = time.process_time()
    for _ in range(8):
        re.findall(r"\w+", text)
    return time.process_time() - clock


def prose(num_characters: int) -> str:
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(SAMPLE_TEXTS.glob("pt-*/**/*.txt")))
    return (text * (1 + num_characters // len(text)))[:num_characters]


def seconds(text: str) -> float:
    """Processor time of one masking."""
    clock = time.process_time()
    mask(text, DEFAULT)
    return time.process_time() - clock


def test_prose_is_masked_at_30_megabytes_a_second() -> None:
    text = prose(4_000_000)
    assert len(text.encode()) / min(seconds(text) for _ in range(3)) > 30e6


def test_items_planted_in_the_sample_crawl_are_found_and_its_decoys_are_not(tmp_path: Path) -> None:
    build_crawl(str(tmp_path), 1)
    labels = [json.loads(line) for line in (tmp_path / LABELS_FILE).read_text(encoding="utf-8").splitlines()]
    pages = [label for label in labels if label["keep"] and label.get("text")]
    planted = sum((Counter(page["personal_data"]) for page in pages), Counter[str]())
    assert planted.total() >= 30
    for page in pages:
        assert mask(page["text"], DEFAULT).counts == page["personal_data"], page["text"][-300:]


def test_settings_are_checked_with_the_value_in_the_message() -> None:
    with pytest.raises(ConfigError, match=r"kinds = \['pis'\]: expected some of cpf"):
        PersonalDataConfig(kinds=("pis",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="style = 'stars': expected placeholder or masked"):
        PersonalDataConfig(style="stars")  # type: ignore[arg-type]


def test_every_kind_has_a_placeholder_without_digit_or_at_sign() -> None:
    assert set(PLACEHOLDERS) == set(KINDS)
    assert not any(re.search(r"[0-9@]", placeholder) for placeholder in PLACEHOLDERS.values())
