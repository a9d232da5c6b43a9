"""Texts to sentences or lines, compiled: straight from Arrow's UTF-8 buffers, no Python object per sentence.

In: UTF-8 bytes with the borders of the texts. Out: the borders of the units, without the white space around them; what
is not white space lies in one of them. A line break ends a unit of either kind, and a blank line is none.

A sentence ends at ``.``, ``?``, ``!`` or ``…``, several of them too, with the quotes, brackets and note marks (``[1]``)
that close behind them, where white space follows and the next letter or digit of the line is no small letter. So
``"Quem é?", perguntou`` and ``— Vem! — disse ele`` go on. No sentence ends

* before its first letter, nor behind a Roman number that is all there is of it: ``1.2. Do pedido``, ``IV. Das penas``;
* at a full stop behind one letter (``J. K. Rowling``, ``300 a.C.``, ``p. 7``) or an abbreviation of ``ABBREVIATIONS``.

The rules look at a line alone, so the same paragraph is split in the same way wherever it stands. That matters more
here than a border that a reader would set elsewhere: a sentence too long is compared with the same one too long.
"""

# To mypy an item of an array is no int; to Numba it is.
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"

import functools
import unicodedata
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from filters.byte_kernels import I64, U8, U64, code_at
from filters.dedup.folded_words import folding_table

U16 = npt.NDArray[np.uint16]

OTHER, SPACE, SMALL, CAPITAL, CASELESS, DIGIT, TERMINATOR, CLOSER = range(8)
"""Classes of code points."""
IF_CAPITAL, BEFORE_NUMBER, ALWAYS = 1, 2, 4
"""When a word with a full stop is an abbreviation: where it begins with a capital, where a digit follows, or always."""

ABBREVIATIONS: dict[int, str] = {
    ALWAYS: "sr sra srs sras srta srtas dr dra drs dras drª srª prof profa profas profs profª exmo exma ilmo ilma eng "
    "enga engª arq adv av rod art arts cap caps vol vols fig figs tab pag pags pp fl fls sec secs num nr nº nºs inc "
    "obs ref refs cf op ed eds org orgs coord trad ibid aprox dec proc rel tel fax cel vs",
    IF_CAPITAL: "al alm bel brig cb cia cons dep depto dept des dir est fr gal gen gov inst ir jd lgo maj mal min mons "
    "pca pe pq pref pres prov rev sen sgt st sta sto ten trav tv univ ver visc vl",
    BEFORE_NUMBER: "al ap apto bl cep cx insc km lt mat par qd reg res jan fev mar abr mai jun jul ago set out nov dez",
}
"""Without accents and in small letters. What is also a word of its own (mar, ver) is one only under a condition."""

LONGEST_ABBREVIATION = 8
LONGEST_ROMAN = 6
BYTES_PER_UNIT = 32
"""Room is made for so many units at first; sentences take about 100 bytes."""
_NEWLINE = 10
_FULL_STOP = 46
_BEYOND = 1 << 16


class Tables(NamedTuple):
    """What the kernel knows of characters and abbreviations."""

    classes: U8
    """Code point of the Basic Multilingual Plane → its class; those beyond are OTHER."""
    fold: U16
    """Code point → without case and accents, as ``folding_table`` has it."""
    abbreviations: U64
    """Folded letters, a byte each, ascending."""
    conditions: U8


@functools.cache
def tables() -> Tables:
    """Made once per process, in a tenth of a second."""
    classes = np.zeros(_BEYOND, np.uint8)
    of_category = {"Ll": SMALL, "Lu": CAPITAL, "Lt": CAPITAL, "Nd": DIGIT, "Nl": DIGIT, "No": DIGIT}
    for code in range(_BEYOND):
        category = unicodedata.category(chr(code))
        if chr(code).isspace():
            classes[code] = SPACE
        elif category[0] in "LMN":
            classes[code] = of_category.get(category, CASELESS)
    classes[[ord(character) for character in ".?!…"]] = TERMINATOR
    classes[[ord(character) for character in "\"'”’»›)]}*_"]] = CLOSER
    fold = folding_table(False)
    conditions: dict[int, int] = {}
    for condition, words in ABBREVIATIONS.items():
        for word in words.split():
            assert len(word) <= LONGEST_ABBREVIATION, word
            packed = 0
            for character in word:
                packed = packed << 8 | (int(fold[ord(character)]) & 0xFF)
            conditions[packed] = conditions.get(packed, 0) | condition
    ordered = sorted(conditions)
    return Tables(
        classes=classes,
        fold=fold,
        abbreviations=np.array(ordered, np.uint64),
        conditions=np.array([conditions[packed] for packed in ordered], np.uint8),
    )


def units(data: U8, offsets: I64, by_sentence: bool) -> tuple[I64, I64]:
    """Borders of all units as ``[unit, (begin, end)]``; and for each text the number of its first unit, and the end."""
    firsts = np.zeros(len(offsets), np.int64)
    borders = np.empty((64 + int(offsets[-1] - offsets[0]) // BYTES_PER_UNIT, 2), np.int64)
    count = _fill(data, offsets, by_sentence, tables(), borders, firsts)
    if count > len(borders):
        borders = np.empty((count, 2), np.int64)
        _fill(data, offsets, by_sentence, tables(), borders, firsts)
    return borders[:count], firsts


@numba.njit(cache=True, nogil=True)
def _fill(data: U8, offsets: I64, by_sentence: bool, known: Tables, borders: I64, firsts: I64) -> int:
    """Writes as many borders as there is room for, and returns how many there are.

    An array that grows inside the loop would make it three times slower.
    """
    classes, fold, count = known.classes, known.fold, 0
    for text in range(offsets.shape[0] - 1):
        i, end = offsets[text], offsets[text + 1]
        begin, last = -1, i
        letters, all_roman = 0, True  # of the unit
        word_letters, packed, word_is_capital, in_word = 0, np.uint64(0), False, False
        while i < end:
            code, step = code_at(data, i)
            kind = classes[code] if code < _BEYOND else OTHER
            if kind == SPACE:
                in_word = False
                if code == _NEWLINE and begin >= 0:
                    count = _pushed(borders, count, begin, last)
                    begin = -1
                i += step
                continue
            if begin < 0:
                begin, letters, all_roman = i, 0, True
            i += step
            last = i
            if SMALL <= kind <= CASELESS:
                if not in_word:
                    in_word, word_letters, packed, word_is_capital = True, 0, np.uint64(0), kind == CAPITAL
                folded = fold[code]
                if folded != 0xFFFF:
                    packed = (packed << np.uint64(8)) | np.uint64(folded & 0xFF)
                    word_letters += 1
                    letters += 1
                    all_roman = all_roman and kind == CAPITAL and _is_roman(folded)
                continue
            if kind == TERMINATOR and by_sentence:
                stop, is_plain = _end_of_run(data, i - step, end, classes)
                follows = _following(data, stop, end, classes)
                ends = follows >= CAPITAL and letters > 0
                if ends and is_plain:
                    ends = not (all_roman and letters <= LONGEST_ROMAN)
                    if ends and in_word:
                        ends = not _is_abbreviation(word_letters, packed, word_is_capital, follows, known)
                i = last = stop
                if ends:
                    count = _pushed(borders, count, begin, last)
                    begin = -1
            in_word = False
        if begin >= 0:
            count = _pushed(borders, count, begin, last)
        firsts[text + 1] = count
    return count


@numba.njit(cache=True, nogil=True)
def _pushed(borders: I64, count: int, begin: int, end: int) -> int:
    if count < borders.shape[0]:
        borders[count, 0], borders[count, 1] = begin, end
    return count + 1


@numba.njit(cache=True, nogil=True)
def _is_roman(folded: int) -> bool:
    return folded in (99, 100, 105, 108, 109, 118, 120)  # c d i l m v x


@numba.njit(cache=True, nogil=True)
def _end_of_run(data: U8, i: int, end: int, classes: U8) -> tuple[int, bool]:
    """Where the marks that begin at ``i``, and what closes behind them, end; and whether they are one full stop."""
    start = i
    while i < end:
        code, step = code_at(data, i)
        kind = classes[code] if code < _BEYOND else OTHER
        if kind in (TERMINATOR, CLOSER):
            i += step
        elif code == 91 and i + 2 < end:  # [12]
            j = i + 1
            while j < end and 48 <= data[j] <= 57:
                j += 1
            if j == i + 1 or j == end or data[j] != 93:
                break
            i = j + 1
        else:
            break
    return i, i == start + 1 and data[start] == _FULL_STOP


@numba.njit(cache=True, nogil=True)
def _following(data: U8, i: int, end: int, classes: U8) -> int:
    """The class of the first letter or digit that follows on the line; OTHER where no sentence can begin."""
    first = True
    while i < end:
        code, step = code_at(data, i)
        kind = classes[code] if code < _BEYOND else OTHER
        if code == _NEWLINE or kind == TERMINATOR or (first and kind != SPACE):
            return OTHER
        if SMALL <= kind <= DIGIT:
            return np.int64(kind)
        first = False
        i += step
    return OTHER


@numba.njit(cache=True, nogil=True)
def _is_abbreviation(letters: int, packed: np.uint64, is_capital: bool, follows: int, known: Tables) -> bool:
    """Whether a full stop behind this word belongs to it."""
    if letters == 1:
        return True
    if letters > LONGEST_ABBREVIATION:
        return False
    place = np.searchsorted(known.abbreviations, packed)
    if place == known.abbreviations.shape[0] or known.abbreviations[place] != packed:
        return False
    condition = known.conditions[place]
    return (
        (condition & ALWAYS) != 0
        or ((condition & IF_CAPITAL) != 0 and is_capital)
        or ((condition & BEFORE_NUMBER) != 0 and follows == DIGIT)
    )


def split(text: str, unit: str = "sentences") -> list[str]:
    """The ``sentences`` or ``lines`` of one text: for tests, and to look at."""
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    borders, _ = units(data, np.array([0, len(data)], np.int64), unit == "sentences")
    return [bytes(data[begin:end]).decode("utf-8") for begin, end in borders.tolist()]
