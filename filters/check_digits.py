"""Check digits of the numbers that identify a person or a company in Brazil and Portugal, and of payment cards.

Every function takes the characters of one number without separators, of the right length, and says whether its check
digits fit. Numbers of one digit repeated (111.111.111-11) fit some of the formulas; they are never issued and refused.

Sources: CPF and CNPJ, Receita Federal (the CNPJ with letters: IN RFB 2.229/2024, in use since July 2026: a character
counts as its ASCII code minus 48); NIF, modulus 11 as for the tax number of Decreto-Lei 14/2013; NISS, prime weights of
the Segurança Social; RG, São Paulo's modulus 11; cards, ISO/IEC 7812-1 annex B (Luhn).
"""

from collections.abc import Sequence

_CPF_WEIGHTS = (11, 10, 9, 8, 7, 6, 5, 4, 3, 2)
_CNPJ_WEIGHTS = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
_NIF_WEIGHTS = (9, 8, 7, 6, 5, 4, 3, 2)
_NISS_WEIGHTS = (29, 23, 19, 17, 13, 11, 7, 5, 3, 2)
_RG_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9)
_NIF_PREFIXES = (
    *("1", "2", "3", "5", "6", "8", "45", "70", "71", "72", "74", "75", "77", "78", "79"),
    *("90", "91", "98", "99"),
)


def is_cpf(digits: str) -> bool:
    """11 digits, the last two of which check the others."""
    return _not_repeated(digits) and _ends_in_modulus_11(digits, _CPF_WEIGHTS)


def is_cnpj(characters: str) -> bool:
    """12 digits or capital letters and two check digits."""
    return _not_repeated(characters) and characters[12:].isdecimal() and _ends_in_modulus_11(characters, _CNPJ_WEIGHTS)


def is_nif(digits: str) -> bool:
    """9 digits with a prefix in use, the last of which checks the others."""
    if not digits.startswith(_NIF_PREFIXES) or not _not_repeated(digits):
        return False
    return int(digits[8]) == _modulus_11(digits[:8], _NIF_WEIGHTS)


def is_niss(digits: str) -> bool:
    """11 digits, the first 1 (a person) or 2 (an employer)."""
    if digits[0] not in "12" or not _not_repeated(digits):
        return False
    return int(digits[10]) == 9 - _weighted(digits[:10], _NISS_WEIGHTS) % 10


def is_sao_paulo_rg(characters: str) -> bool:
    """8 digits and a check digit, which is X where it would be 10."""
    if not _not_repeated(characters):
        return False
    expected = -_weighted(characters[:8], _RG_WEIGHTS) % 11
    return characters[8].upper() == "0123456789X"[expected]


def is_card(digits: str) -> bool:
    """A card number of an issuer in use: its prefix, its length and Luhn's sum."""
    return len(digits) in _card_lengths(digits) and _luhn(digits)


def _card_lengths(digits: str) -> tuple[int, ...]:
    """Lengths that cards with this prefix have; none for a prefix that no issuer uses."""
    two, three, four, six = int(digits[:2]), int(digits[:3]), int(digits[:4]), int(digits[:6])
    if digits[0] == "4":  # Visa
        return (13, 16, 19)
    if two in (34, 37):  # American Express
        return (15,)
    if 300 <= three <= 305 or two in (36, 38):  # Diners Club; Hipercard has 16 digits
        return (14, 16) if six // 100 == 3841 else (14,)
    mastercard = 51 <= two <= 55 or 2221 <= four <= 2720
    discover_or_elo = four == 6011 or two == 65 or 644 <= three <= 649
    elo_or_hipercard = six in (504175, 606282, 627780, 636297, 636368) or 506699 <= six <= 506778 or four // 10 == 509
    jcb = 3528 <= four <= 3589
    maestro = four in (5018, 5020, 5038, 6304, 6759, 6761, 6762, 6763)
    return (16,) if mastercard or discover_or_elo or elo_or_hipercard or jcb or maestro else ()


def _luhn(digits: str) -> bool:
    odd = sum(map(int, digits[-1::-2]))
    even = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (odd + even) % 10 == 0


def _ends_in_modulus_11(characters: str, weights: Sequence[int]) -> bool:
    """Whether the last two characters are what ``weights`` (for the second; the first has one less) give."""
    first = _modulus_11(characters[:-2], weights[1:])
    return int(characters[-2]) == first and int(characters[-1]) == _modulus_11(characters[:-1], weights)


def _modulus_11(characters: str, weights: Sequence[int]) -> int:
    remainder = _weighted(characters, weights) % 11
    return 0 if remainder < 2 else 11 - remainder


def _weighted(characters: str, weights: Sequence[int]) -> int:
    return sum((ord(c) - 48) * weight for c, weight in zip(characters, weights, strict=True))


def _not_repeated(characters: str) -> bool:
    return characters.count(characters[0]) < len(characters)
