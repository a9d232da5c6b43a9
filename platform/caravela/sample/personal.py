"""Personal data that belongs to nobody, in sentences that can be slipped into a page.

CPF, CNPJ and NIF are drawn at random and given their valid check digits; telephone numbers lie in blocks of zeros;
e-mail addresses are at the reserved ``.example`` domain; IP addresses come from 192.88.99.0/24, which was withdrawn
(RFC 7526) but counts as public, unlike the documentation blocks, which maskers leave alone on purpose.
"""

import random
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

CPF_WEIGHTS = (11, 10, 9, 8, 7, 6, 5, 4, 3, 2)
CNPJ_WEIGHTS = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
NIF_WEIGHTS = (9, 8, 7, 6, 5, 4, 3, 2)
AREA_CODES = ("11", "21", "31", "48", "71", "81", "85", "92")


class PersonalSentence(NamedTuple):
    """A sentence and how many items of each kind it holds. A decoy holds none."""

    text: str
    counts: dict[str, int]


def check_digit(digits: Sequence[int], weights: Sequence[int]) -> int:
    """The modulo-11 digit that CPF, CNPJ and NIF share: 11 minus the remainder, and 0 where that is 10 or 11."""
    remainder = sum(digit * weight for digit, weight in zip(digits, weights[-len(digits) :], strict=True)) % 11
    return 0 if remainder < 2 else 11 - remainder


def cpf(rng: random.Random) -> str:
    """Brazil's number for persons: nine digits and two check digits, with or without dots."""
    digits = [rng.randrange(10) for _ in range(9)]
    for _ in range(2):
        digits.append(check_digit(digits, CPF_WEIGHTS))
    d = "".join(map(str, digits))
    return rng.choice([f"{d[:3]}.{d[3:6]}.{d[6:9]}-{d[9:]}", f"{d[:3]}.{d[3:6]}.{d[6:9]}-{d[9:]}", f"{d[:9]}-{d[9:]}"])


def cnpj(rng: random.Random) -> str:
    """Brazil's number for companies: eight digits, the branch 0001 and two check digits."""
    digits = [rng.randrange(10) for _ in range(8)] + [0, 0, 0, 1]
    for _ in range(2):
        digits.append(check_digit(digits, CNPJ_WEIGHTS))
    d = "".join(map(str, digits))
    return f"{d[:2]}.{d[2:5]}.{d[5:8]}/{d[8:12]}-{d[12:]}"


def nif(rng: random.Random) -> str:
    """Portugal's tax number: eight digits, the first one that of a person, and a check digit."""
    digits = [rng.choice([1, 2])] + [rng.randrange(10) for _ in range(7)]
    digits.append(check_digit(digits, NIF_WEIGHTS))
    d = "".join(map(str, digits))
    return rng.choice([d, f"{d[:3]} {d[3:6]} {d[6:]}"])


def phone_br(rng: random.Random) -> str:
    area, last = rng.choice(AREA_CODES), f"{rng.randrange(10000):04d}"
    return rng.choice([f"({area}) 90000-{last}", f"+55 {area} 90000-{last}", f"({area}) 3000-{last}"])


def phone_pt(rng: random.Random) -> str:
    last = f"{rng.randrange(1000):03d}"
    return rng.choice([f"+351 910 000 {last}", f"910 000 {last}", f"21 000 0{last[0]} {last[1:]}"])


def ip(rng: random.Random) -> str:
    return f"192.88.99.{rng.randrange(1, 255)}"


def cep(rng: random.Random) -> str:
    return f"{rng.randrange(1000, 90000):05d}-000"


def postal_code_pt(rng: random.Random) -> str:
    return f"{rng.randrange(1000, 9000)}-{rng.randrange(1, 999):03d}"


MAKERS: Mapping[str, Callable[[random.Random], str]] = {
    "cpf": cpf,
    "cnpj": cnpj,
    "nif": nif,
    "phone_br": phone_br,
    "phone_pt": phone_pt,
    "ip": ip,
    "cep": cep,
    "postal_code_pt": postal_code_pt,
}


def personal_sentences(material: Mapping[str, Any], locale: str, rng: random.Random) -> list[PersonalSentence]:
    """Every sentence of a locale once, filled in; then its decoys (numbers that look personal and are not)."""
    section = material[locale]
    made = []
    for sentence in section["sentences"]:
        counts: Counter[str] = Counter()
        person = rng.choice(section["people"])
        values = {"person": person, "email": _email(person, locale)}
        for _, kind, _, _ in string.Formatter().parse(sentence):
            if kind and kind != "person":
                counts[kind] += 1
                if kind != "email":
                    values[kind] = MAKERS[kind](rng)
        made.append(PersonalSentence(sentence.format(**values), dict(counts)))
    return made + [PersonalSentence(decoy, {}) for decoy in section["decoys"]]


def _email(person: str, locale: str) -> str:
    plain = unicodedata.normalize("NFD", person.lower()).encode("ascii", "ignore").decode("ascii")
    return f"{plain.replace(' ', '.')}@{'correio.com.br' if locale == 'pt-BR' else 'correio.pt'}.example"
