"""What counts as personal data: the shapes that numbers and addresses have, and what must hold around them.

``anchors`` gives the places in a text where an item may begin (or, for an e-mail and a CNPJ with letters, where its
middle is); ``find`` says whether one is there. A rule is a shape, the lengths its first run of digits may have, and a
condition:

* numbers with check digits (CPF, CNPJ, NIF, NISS, cards) must fit them; NIF and NISS, where one number in ten does,
  must also be announced ("NIF", "contribuinte"), and so must cards written without blanks;
* a telephone needs its country or area code in the usual form, or must be announced ("tel.", "ligue para");
* an RG must follow "RG" or "identidade" directly, and fit São Paulo's check digit or name its issuer if it has one;
* CEP and postcode need an address around them: the word CEP, a street, or a town with its state.

Freephone and information numbers (0800, 707) are nobody's and stay, and so do numbers announced as something else
("pedido", "ISBN", "versão").
"""

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator
from typing import Literal, NamedTuple, get_args

from filters import check_digits
from filters.personal_data_labels import MASKED_EMAIL, Surroundings
from filters.personal_data_postcodes import is_cep, is_postal_code_pt

Kind = Literal[
    "cpf", "cnpj", "rg", "nif", "niss", "cep", "postal_code_pt", "phone_br", "phone_pt", "email", "ip", "card"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

# A number starts at a digit that follows neither a word character nor the dot or hyphen of a longer number, with four
# more characters of a number behind it; years and small numbers in prose, 4 of 5 there, are passed over in C.
_NUMBER = r"(?<=[0-9])(?:(?<![^\W][0-9])|(?<=\bPT[0-9]))(?<![0-9][.\-][0-9])(?=[0-9.:()/ \-a-fA-FxX*]{5})[0-9]*"
_ANCHOR = re.compile(
    rf"[0-9@/C](?:{_NUMBER}|(?<=@)|(?<=/)(?=[0-9A-Z]{{4}}-?[0-9]{{2}}(?![0-9A-Za-z]))|(?<=C)(?<!<C)(?=NPJ))"
)
_ANCHOR_WITH_COLON = re.compile(_ANCHOR.pattern.replace("[0-9@/C]", "[0-9@/C:]", 1)[:-1] + r"|(?<=:)(?=[0-9A-Fa-f:]))")
# An item ends where no word and no longer number goes on. "<(+" may begin what an item after it is replaced by.
_END = r"(?![\w@]|[.\-][0-9<(+])"


class Found(NamedTuple):
    """Characters ``start`` to ``end`` are an item of ``kind``; None: no item, to be passed over whole."""

    kind: Kind | None
    start: int
    end: int


def anchors(text: str, public_ips_only: bool) -> Iterator[re.Match[str]]:
    """The places to look at, from left to right."""
    return (_ANCHOR if public_ips_only else _ANCHOR_WITH_COLON).finditer(text)


def find(around: Surroundings, anchor: re.Match[str], kinds: Collection[Kind], public_ips_only: bool) -> Found | None:
    """The item at an anchor, if there is one of ``kinds``."""
    first = around.text[around.start]
    if first == "@":
        return _email(around) if "email" in kinds else None
    if first == "/":
        return _cnpj_at_slash(around) if "cnpj" in kinds else None
    if first == "C":
        return _cnpj_after_label(around) if "cnpj" in kinds else None
    if first == ":":
        return _ipv6_at_colon(around, public_ips_only) if "ip" in kinds else None
    then, has_country = around.text[anchor.end() : anchor.end() + 1], around.has_country
    if then and then in ".:abcdefABCDEF" and not has_country and "ip" in kinds:
        found = _ip(around, around.start, public_ips_only)
        if found is not None:
            return found
    length = len(anchor[0])
    for rule in _RULES_BY_START.get((length, then), _RULES_BY_START.get((length, ""), ())):
        if rule.kind is not None and (rule.kind not in kinds or (has_country and rule.kind != "nif")):
            continue
        match = rule.shape.match(around.text, around.start)
        if match and rule.condition(match, around):
            return Found(rule.kind, _with_prefix(around, match[0]), match.end())
    return None


def _with_prefix(around: Surroundings, item: str) -> int:
    """The item's start with the country, the plus sign and the opening parenthesis that belong to it."""
    start = around.start - 2 * around.has_country
    for sign in "+(" if item.count(")") > item.count("(") else "+":
        if start > around.done and around.text[start - 1] == sign:
            start -= 1
    if start == around.start and item.count(")") > item.count("("):  # "(+351)": the sign comes second
        start -= around.text[start - 1 : start] == "("
    return start


# E-mail

_LOCAL_PART = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-"
_DOMAIN = re.compile(r"@(?:[^\W_](?:[^\W_]|-){0,62}\.){1,6}([A-Za-z]{2,24})(?![\w@])")
_REPOSITORY = re.compile(r"(?<![A-Za-z0-9_])git\Z")
_MASKED_DOMAIN = MASKED_EMAIL[MASKED_EMAIL.index("@") :]
_NO_DOMAIN = frozenset("png jpg jpeg gif svg webp ico css js json html htm php py pdf zip".split())


def _email(around: Surroundings) -> Found | None:
    """name@domain; not a handle (@name@server), a picture (icon@2x.png) or a repository (git@host:path)."""
    text, at = around.text, around.start
    window = text[max(around.done, at - 65) : at]
    local = window[len(window.rstrip(_LOCAL_PART)) :].lstrip(".%+-")
    if not local or len(local) > 64 or not local[-1].isalnum() or _REPOSITORY.search(local):
        return None
    if text[at - len(local) - 1 : at - len(local)] == "@":
        return None
    domain = _DOMAIN.match(text, at)
    if domain is None or domain[1].lower() in _NO_DOMAIN or domain[0].startswith(_MASKED_DOMAIN):
        return None
    return Found("email", at - len(local), domain.end())


# CNPJ

_CNPJ_HEAD = re.compile(r"(?<![0-9A-Za-z.\-])(?:[0-9A-Z]{2}[. ]?[0-9A-Z]{3}[. ]?[0-9A-Z]{3})\Z")
_CNPJ_TAIL = re.compile(rf"/([0-9A-Z]{{4}})[-.]?([0-9]{{2}}){_END}")
_CNPJ_AFTER_LABEL = re.compile(
    rf"CNPJ[^\n0-9A-Za-z]{{0,3}}(?:n[.º°o]*)?[^\n0-9A-Za-z]{{0,3}}([0-9A-Z]{{12}}[0-9]{{2}}){_END}"
)


def _cnpj_at_slash(around: Surroundings) -> Found | None:
    """12.345.678/0001-95 or 12345678/0001-95, with letters or without."""
    slash = around.start
    head = _CNPJ_HEAD.search(around.text, max(around.done, slash - 10), slash)
    tail = _CNPJ_TAIL.match(around.text, slash)
    if head is None or tail is None or not check_digits.is_cnpj(_bare(head[0]) + tail[1] + tail[2]):
        return None
    return Found("cnpj", head.start(), tail.end())


def _cnpj_after_label(around: Surroundings) -> Found | None:
    """CNPJ 12ABC34501DE35: letters and digits without separators, directly after the word."""
    match = _CNPJ_AFTER_LABEL.match(around.text, around.start)
    if match is None or not check_digits.is_cnpj(match[1]):
        return None
    return Found("cnpj", match.start(1), match.end())


# IP addresses

_IPV4 = re.compile(rf"(?:(?:0|[1-9][0-9]{{0,2}})\.){{3}}(?:0|[1-9][0-9]{{0,2}}){_END}")
_IPV6 = re.compile(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:\.[0-9]{1,3}){0,3}(?![\w@:<]|[.\-][0-9<(+])")
_SPECIAL_V4 = frozenset((10, 100, 127, 169, 172, 192, 198, 203))  # first numbers of blocks that are not all public
_LOCAL_V6 = tuple(ipaddress.IPv6Network(net) for net in ("fe80::/10", "fc00::/7", "::1/128", "2001:db8::/32"))
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")


def _ip(around: Surroundings, start: int, public_ips_only: bool) -> Found | None:
    if match := _IPV4.match(around.text, start):
        fits = _is_ipv4(match[0], around, public_ips_only)
    elif match := _IPV6.match(around.text, start):
        fits = _is_ipv6(match[0], public_ips_only)
    return Found("ip", start, match.end()) if match and fits else None


def _ipv6_at_colon(around: Surroundings, public_ips_only: bool) -> Found | None:
    """For an address that begins with a letter or a colon: its first group ends here."""
    text, colon = around.text, around.start
    window = text[max(around.done, colon - 4) : colon]
    start = colon - len(window) + len(window.rstrip("0123456789abcdefABCDEF"))
    if start > 0 and (text[start - 1].isalnum() or text[start - 1] in "_:."):
        return None
    return _ip(around, start, public_ips_only)


def _is_ipv4(item: str, around: Surroundings, public_ips_only: bool) -> bool:
    """An address, not a version or a section number: four numbers below 100 must be announced as one."""
    octets = [int(octet) for octet in item.split(".")]
    if max(octets) > 255 or octets[0] == 0 or octets[0] >= 224:
        return False
    label = around.label
    if label == "other" or (max(octets) < 100 and (label != "ip" or _starts_line(around))):
        return False
    return not public_ips_only or octets[0] not in _SPECIAL_V4 or ipaddress.IPv4Address(item).is_global


def _starts_line(around: Surroundings) -> bool:
    return around.before(1) in ("", "\n")


def _is_ipv6(item: str, public_ips_only: bool) -> bool:
    try:
        address = ipaddress.IPv6Address(item)
    except ValueError:
        return False
    local = any(address in net for net in _LOCAL_V6)
    return (not public_ips_only and local) or (address in _GLOBAL_V6 and not local)


# Numbers with check digits


def _is_cpf(match: re.Match[str], around: Surroundings) -> bool:
    digits = _bare(match[0])
    if not check_digits.is_cpf(digits):
        return False
    if len(match[0]) > 11:
        return around.label != "other"
    return around.label == "cpf" or (around.label in ("", "rg") and not _is_mobile_br(digits))


def _is_bare_cnpj(match: re.Match[str], around: Surroundings) -> bool:
    """Fourteen digits: one date and time in a hundred fits the check digits, so "CNPJ" or a first branch is asked."""
    if not check_digits.is_cnpj(_bare(match[0])):
        return False
    return around.label == "cnpj" or (around.label == "" and match[0][8:12] == "0001")


def _is_nif(match: re.Match[str], around: Surroundings) -> bool:
    """Nine digits after "NIF", directly after "contribuinte", or with the country before them: PT123456789."""
    if not check_digits.is_nif(_bare(match[0])):
        return False
    name, adjoining = around.announced
    if name == "taxpayer":  # "o contribuinte pagou 123 456 789" does not count
        return adjoining or around.preceding.number_between
    return name == "nif" or (around.has_country and name != "other")


def _is_niss(match: re.Match[str], around: Surroundings) -> bool:
    return check_digits.is_niss(_bare(match[0])) and around.label == "niss"


def _is_card(match: re.Match[str], around: Surroundings) -> bool:
    if not check_digits.is_card(_bare(match[0])):
        return False
    return around.label == "card" or (around.label != "other" and not match[0].isdecimal())


_ISSUER = re.compile(
    r"[\s,\-–/(]{0,3}(?:expedid[oa] pel[oa] |emitid[oa] pel[oa] |d[oa] )?"
    r"(?:SSP|SDS|SESP|SEJUSP|PC|IFP|DETRAN|DIC|IIRGD|SJS|SPTC|SJTC|POLITEC|ITEP)(?![\w@])"
)


def _is_rg(match: re.Match[str], around: Surroundings) -> bool:
    if around.announced != ("rg", True):
        return False
    characters = _bare(match[0])
    if characters.count(characters[0]) == len(characters):
        return False
    if _ISSUER.match(around.text, match.end()):
        return True
    if len(characters) == 9:
        return check_digits.is_sao_paulo_rg(characters)
    return match[1] is None and bool(_RG_DIRECTLY.search(around.before(24)))


_RG_DIRECTLY = re.compile(
    r"(?i)(?:\bR\.?G\b|\bcarteira de identidade\b|\bregistro geral\b)[^\w\n]*(?:n?[.ºo°]{0,2})?\W*(?:\w{2}-)?\Z"
)


# Telephones

_NO_AREA_CODES = (20, 23, 25, 26, 29, 30, 36, 39, 40, 50, 52, 56, 57, 58, 59, 60, 70, 72, 76, 78, 80, 90)
_AREA_CODES = frozenset(range(11, 100)).difference(_NO_AREA_CODES)
_BRAZILIAN_WORDS = re.compile(r"(?i)\b(?:fones?|celular(?:es)?|cel|zap|ligue|contatos?)\b")
# A number grouped by thousands, not a telephone: followed by what it counts.
_COUNTED = re.compile(
    r"(?:[ .][0-9]{3}){0,3}(?:,[0-9]+)?\s{0,2}(?:de\s)?(?:€|%|euros?|reais|dólares|habitantes|pessoas|votos|eleitores|"
    r"toneladas|hectares|km|quilómetros|quilômetros|metros|milhões|mil|unidades|exemplares|contos|anos)(?![\w@])"
)


def _is_number_br(area: str, local: str) -> bool:
    """A valid area code and a subscriber: 9 and eight digits, or eight digits that do not begin with 0 or 1."""
    if area and int(area) not in _AREA_CODES:
        return False
    return local[0] == "9" if len(local) == 9 else local[0] in "23456789"


def _is_mobile_br(digits: str) -> bool:
    return digits[2] == "9" and int(digits[:2]) in _AREA_CODES


def _is_abroad_br(match: re.Match[str], around: Surroundings) -> bool:
    if not _is_number_br(match["area"], _bare(match["local"])):
        return False
    return _has_prefix(match, around) or around.label == "phone"


def _is_in_parentheses_br(match: re.Match[str], around: Surroundings) -> bool:
    opened = around.text[around.start - 1 : around.start] == "(" or match[0].startswith("(")
    return opened and around.label != "other" and _is_number_br(match["area"], _bare(match["local"]))


def _is_national_br(match: re.Match[str], around: Surroundings) -> bool:
    """11 98765-4321 as it stands; without the mobile's nine digits or the hyphen it must be announced."""
    local = _bare(match["local"])
    if not _is_number_br(match["area"], local):
        return False
    mobile = len(local) == 9 and "-" in match["local"] and around.label != "other"
    return around.label == "phone" or mobile


def _is_old_br(match: re.Match[str], around: Surroundings) -> bool:
    """011 221-5342: seven digits, as numbers were until the 2000s, if announced."""
    return int(match["area"]) in _AREA_CODES and around.label == "phone"


def _is_old_local_br(match: re.Match[str], around: Surroundings) -> bool:
    return around.announced == ("phone", True)


def _is_local_br(match: re.Match[str], around: Surroundings) -> bool:
    digits = _bare(match[0])
    if around.label != "phone" or not _is_number_br("", digits):
        return False
    years = len(digits) == 8 and all(1900 <= int(half) < 2100 for half in (digits[:4], digits[4:]))
    if len(digits) == 9 and _is_number_pt(digits):
        return bool(_BRAZILIAN_WORDS.search(around.before(64)))
    return not years


def _is_number_pt(digits: str) -> bool:
    """A mobile (91, 92, 93, 96), a landline (21 to 29) or a nomadic number (30)."""
    return digits[:2] in ("91", "92", "93", "96", "30") or (digits[0] == "2" and digits[1] in "123456789")


def _is_abroad_pt(match: re.Match[str], around: Surroundings) -> bool:
    if not _is_number_pt(_bare(match["local"])):
        return False
    return _has_prefix(match, around) or around.label == "phone"


def _is_national_pt(match: re.Match[str], around: Surroundings) -> bool:
    """Announced, or a mobile in three groups that counts nothing."""
    digits = _bare(match[0])
    if not _is_number_pt(digits):
        return False
    if around.label == "phone":
        return True
    grouped = len(match[0]) == 11 and match[0][3] == " " == match[0][7]
    return (
        grouped
        and digits[0] == "9"
        and around.label not in ("other", "nif", "taxpayer", "niss")
        and not _COUNTED.match(around.text, match.end())
        and around.before(2)[-2:].strip() not in ("€", "$")
    )


def _has_prefix(match: re.Match[str], around: Surroundings) -> bool:
    """Whether the country code is marked as one: +55, 0055, (55)."""
    before = around.text[max(around.done, around.start - 1) : around.start]
    return before == "+" or match[0].startswith("00") or (before == "(" and ")" in match[0][:6])


class Rule(NamedTuple):
    """A shape; kind None: a number to pass over whole.

    ``first_run`` gives the lengths that the first run of digits may have, ``then`` the characters that may follow it
    ("" where the shape may end there).
    """

    kind: Kind | None
    first_run: Collection[int]
    then: str
    shape: re.Pattern[str]
    condition: Callable[[re.Match[str], Surroundings], bool]


def _rule(
    kind: Kind | None,
    first_run: Collection[int],
    then: str,
    shape: str,
    condition: Callable[[re.Match[str], Surroundings], bool],
) -> Rule:
    return Rule(kind, first_run, then, re.compile(f"(?:{shape}){_END}"), condition)


def _always(match: re.Match[str], around: Surroundings) -> bool:
    return True


_LOCAL_BR = r"(?P<local>(?:9[ .]?[0-9]{4}|[2-9][0-9]{3})[ .\-]?[0-9]{4})"
_AREA_BR = r"(?P<area>[0-9]{2})"
_NINE_PT = r"(?P<local>[0-9](?:[ .\-]?[0-9]){8})"
_GROUPED_PT = (
    r"[0-9]{3}([ .\-]?)[0-9]{3}\1[0-9]{3}|[0-9]{2}([ .\-])[0-9]{3}\2[0-9]{2}\2[0-9]{2}|"
    r"[0-9]{3} [0-9]{2} [0-9]{2} [0-9]{2}|[0-9]{2} [0-9]{3} [0-9]{4}|[0-9]{2} [0-9]{7}|[0-9]{3} [0-9]{6}"
)
_RULES = (
    # Bank slips, and the 44 digits of an invoice in groups of four.
    _rule(None, {5}, ".", r"[0-9]{5}\.[0-9]{5} [0-9]{5}\.[0-9]{6} [0-9]{5}\.[0-9]{6} [0-9] [0-9]{14}", _always),
    _rule(None, {4}, " ", r"[0-9]{4}(?: [0-9]{4}){5,}", _always),
    _rule("cpf", {3}, ".", r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}[-./ ]?[0-9]{2}", _is_cpf),
    _rule("cpf", {3}, " ", r"[0-9]{3} [0-9]{3} [0-9]{3}[- ][0-9]{2}", _is_cpf),
    _rule("cpf", {9}, "-", r"[0-9]{9}-[0-9]{2}", _is_cpf),
    _rule("cpf", {11}, "", r"[0-9]{11}", _is_cpf),
    _rule("cnpj", {14}, "", r"[0-9]{14}", _is_bare_cnpj),
    _rule("cnpj", {2}, ". ", r"[0-9]{2}[. ][0-9]{3}[. ][0-9]{3}[. ][0-9]{4}[-. ][0-9]{2}", _is_bare_cnpj),
    _rule("niss", {11}, "", r"[0-9]{11}", _is_niss),
    _rule("niss", {3}, " ", r"[0-9]{3} [0-9]{3} [0-9]{3} [0-9]{2}", _is_niss),
    _rule("niss", {4}, " ", r"[0-9]{4} [0-9]{4} [0-9]{3}|[0-9]{4} [0-9]{3} [0-9]{4}", _is_niss),
    _rule("nif", {3}, " .-", r"[0-9]{3}([ .\-])[0-9]{3}\1[0-9]{3}", _is_nif),
    _rule("nif", {9}, "", r"[0-9]{9}", _is_nif),
    _rule("card", {4}, " -", r"[0-9]{4}([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}", _is_card),
    _rule("card", {4}, " -", r"3[0-9]{3}([ \-])[0-9]{6}\1[0-9]{4,5}", _is_card),
    _rule("card", range(13, 20), "", r"[0-9]{13,19}", _is_card),
    _rule("rg", {1, 2}, ".", r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}(-[0-9Xx])?(?!/[0-9<])", _is_rg),
    _rule("rg", range(6, 11), "", r"[0-9]{6,10}(-?[Xx]|-[0-9])?(?!/[0-9<])", _is_rg),
    _rule(
        "phone_br",
        {2, 4},
        " .-()",
        rf"(?:00)?55\)?[ .\-]{{0,2}}\(?0?{_AREA_BR}\)?[ .\-]{{0,2}}{_LOCAL_BR}",
        _is_abroad_br,
    ),
    _rule("phone_br", range(8, 16), "", rf"(?:00)?55{_AREA_BR}{_LOCAL_BR}", _is_abroad_br),
    _rule(
        "phone_br",
        {1, 2, 3},
        ")xX*",
        rf"(?:0(?:xx|XX|\*\*)?)?{_AREA_BR}\)[ .\-]{{0,2}}{_LOCAL_BR}",
        _is_in_parentheses_br,
    ),
    _rule("phone_br", {1, 2, 3}, " .-/xX", rf"0?(?:xx|XX)?{_AREA_BR}[ .\-/]{{1,3}}{_LOCAL_BR}", _is_national_br),
    _rule(
        "phone_br", {2, 3}, " .-/)", rf"0?{_AREA_BR}\)?[ .\-/]{{1,2}}(?P<local>[2-9][0-9]{{2}}-[0-9]{{4}})", _is_old_br
    ),
    _rule("phone_br", {3}, "-", r"[2-9][0-9]{2}-[0-9]{4}", _is_old_local_br),
    _rule("phone_br", {6, 7, 8, 10, 11, 12}, "", rf"0?{_AREA_BR}{_LOCAL_BR}", _is_national_br),
    _rule("phone_pt", {3, 4, 5, 6, 8, 12, 14}, "", rf"(?:00)?351\)?[ .\-]{{0,2}}{_NINE_PT}", _is_abroad_pt),
    _rule("phone_pt", {2, 3}, " .-", _GROUPED_PT, _is_national_pt),
    _rule("phone_pt", {9}, "", r"[0-9]{9}", _is_national_pt),
    _rule("phone_br", {1}, " .", _LOCAL_BR, _is_local_br),
    _rule("phone_br", {4, 5}, " .-", _LOCAL_BR, _is_local_br),
    _rule("phone_br", {8, 9}, "", _LOCAL_BR, _is_local_br),
    _rule("cep", {5}, "-", r"[0-9]{5}-[0-9]{3}", is_cep),
    _rule("cep", {2}, ".", r"[0-9]{2}\.[0-9]{3}-?[0-9]{3}", is_cep),
    _rule("cep", {8}, "", r"[0-9]{8}", is_cep),
    _rule("postal_code_pt", {4}, "-", r"[1-9][0-9]{3}-[0-9]{3}", is_postal_code_pt),
)
_RULES_BY_START = {
    (length, then): [
        rule for rule in _RULES if length in rule.first_run and (not rule.then or then in tuple(rule.then))
    ]
    for length in range(1, 20)
    for then in ("", *" .-/()xX*")
}


def _bare(item: str) -> str:
    """Letters and digits only."""
    return "".join(filter(str.isalnum, item))
