"""The search over a column names every text in which there is anything to look at."""

import random
import tomllib
from pathlib import Path

import pyarrow as pa
import pytest

from filters import personal_data_rules as rules
from filters.personal_data import PersonalDataConfig, mask
from filters.personal_data_search import may_hold_personal_data

PARTS = [
    *("1", "12", "2019", "123.456", "529.982.247-25", "@", "a@b.pt", "/", "/0001", "/00AB-12", "CNPJ", "CNP", "<CNPJ"),
    *(":", "::", ":f", "fe80", "PT5", "PT123456789", "xPT1", "é1", "_", ".", "-", "(", ")", " ", "\n", "*", "X", "ª2"),
    *("casa", "foi", "a", "A"),
]


def found(texts: list[str], *, public_ips_only: bool) -> set[int]:
    config = PersonalDataConfig(public_ips_only=public_ips_only)
    return set(may_hold_personal_data(pa.array(texts, pa.large_string()), config).tolist())


@pytest.mark.parametrize("public_ips_only", [True, False])
def test_search_names_every_text_with_an_anchor(public_ips_only: bool) -> None:
    chance = random.Random(7)
    texts = ["".join(chance.choices(PARTS, k=chance.randrange(1, 7))) for _ in range(30_000)]
    holding = {i for i, text in enumerate(texts) if next(rules.anchors(text, public_ips_only), None)}
    named = found(texts, public_ips_only=public_ips_only)
    assert holding <= named
    assert len(named - holding) < 0.1 * len(texts)


def test_search_names_every_text_in_which_something_is_replaced() -> None:
    config = PersonalDataConfig()
    cases = tomllib.loads((Path(__file__).parent / "personal_data.toml").read_text("utf-8"))
    texts = [value for value in strings_in(cases) if mask(value, config).counts]
    assert len(texts) > 50
    assert found(texts, public_ips_only=True) == set(range(len(texts)))


def strings_in(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for each in inner for text in strings_in(each)]


def test_search_passes_prose_with_years_and_small_numbers() -> None:
    texts = ["Em 1974, no dia 25, às 10 horas, 300 pessoas saíram (e/ou ficaram). A CNN: 42%.", "", "CN"]
    assert not found(texts, public_ips_only=True)
