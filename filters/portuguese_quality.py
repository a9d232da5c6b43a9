r"""Eight more quality signals, for what FineWeb-2's rules confuse in Portuguese: menus with verse, code with recipes.

In: a text, or an Arrow array of texts. Out: ``measure`` gives one number per name in ``SIGNALS``, defined for every
text, the empty one too; ``measure_batch`` the same numbers, bit for bit, for a whole array (over 100 MB/s on one core).
Rules and limits are those of ``filters.quality``, section ``portuguese_quality``.

A word is a row of letters (``str.isalpha``); a line is what ``split("\n")`` gives, if it holds a word. What each
signal is for:

* ``function_word_ratio``: words that are among ``FUNCTION_WORDS``, over words. Two in five in prose, one in three in
  verse, one in four in recipes and command references; next to none in code, keywords, names, Latin filler, and text
  whose small words were taken away. No punctuation and no digit enters, unlike in Gopher's share of alphabetic words.
* ``capital_ratio``: words behind the first of their line that begin with a capital, over words behind the first.
  Shouting, roll calls, stock tickers and headings of link lists; verse begins its lines so, and is not counted.
* ``label_ratio``: words in labels, over words. A label is a line that begins with a capital, ends in no sentence mark,
  and in which at most a third of the words are function words: an item of a menu or of a table of contents.
* ``fragment_ratio``: the same whatever the line begins with: code, slugs, listings.
* ``letter_ratio``: letters over characters that are no white space. Code, style sheets and data are full of signs.
* ``long_chunk_ratio``: characters in chunks of more than 40 characters between blanks, over characters that are no
  white space: base64, addresses, minified scripts.
* ``broken_ratio``: replacement characters, and pairs that UTF-8 read as Windows-1252 leaves, over words: what the
  repair of encodings could not mend.
* ``cut_lines_ratio``: lines that break off in an ellipsis, which may have three words behind it ("… Leia mais"), over
  lines: teasers. A text may trail off at its end, so its last line is never counted as cut.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caravela.data.extract import MOJIBAKE
from filters import portuguese_kernels as kernels
from filters.byte_kernels import U8, U64
from filters.portuguese_kernels import COUNTS, LONG_CHUNK, MOST_WORDS_BEHIND
from filters.quality_batch import utf8_buffers

F64 = npt.NDArray[np.float64]

FUNCTION_WORDS = frozenset(
    """
    o a os as um uma uns umas de do da dos das em no na nos nas por pelo pela pelos pelas para pra pro com sem sob sobre
    entre até após desde contra perante ante ao aos à às dum duma num numa nuns numas dele dela deles delas nele nela
    neles nelas deste desta destes destas desse dessa desses dessas disto disso daquele daquela daqui daí dali neste
    nesta nestes nestas nesse nessa nisso nisto naquele naquela àquele àquela e ou mas nem que se como porque pois porém
    quando onde embora enquanto conforme caso logo então assim também já ainda eu tu ele ela nós vós eles elas você
    vocês me te lhe lhes vos mim ti si comigo contigo consigo este esta estes estas esse essa esses essas isto isso
    aquele aquela aqueles aquelas aquilo meu minha meus minhas teu tua teus tuas seu sua seus suas nosso nossa nossos
    nossas vosso vossa qual quais quem cujo cuja cujos cujas quanto quanta quantos quantas todo toda todos todas tudo
    cada outro outra outros outras mesmo mesma mesmos mesmas algum alguma alguns algumas nenhum nenhuma nada ninguém
    alguém algo qualquer não sim mais menos muito muita muitos muitas pouco pouca tão tanto tanta só apenas bem mal
    sempre nunca hoje ontem agora depois antes aqui ali lá aí cá talvez quase é são era eram foi foram ser sendo sido
    será serão seria seja sejam fosse fossem sou és somos está estão estava estavam estar esteve estou esteja tem têm
    tinha tinham ter teve tiveram terá tenho temos tenha tendo teria há havia houve haver hei hão haja vai vão ia iam ir
    vou vamos pode podem podia poder pôde poderá posso deve devem deveria faz fazer fez dizer disse diz
    he hum huma elle ella elles ellas delle della delles dellas nelle nella aquelle aquella esse mui
    """.split()
)
"""Articles, prepositions and their contractions, pronouns, conjunctions, common adverbs and auxiliary verbs, of today
and, in the last line, as they were spelt before 1911. None has more than eight letters, all of them Latin-1: a kernel
compares them as one number."""

SENTENCE_MARKS = ".!?…:"
CLOSERS = "\"”»)'’]*_"
"""What may stand behind a sentence mark: quotes, brackets, marks of emphasis."""

_RATIOS = {
    "function_word_ratio": ("function_words", "words"),
    "capital_ratio": ("capitals", "inner_words"),
    "label_ratio": ("label_words", "words"),
    "fragment_ratio": ("fragment_words", "words"),
    "letter_ratio": ("letters", "signs"),
    "long_chunk_ratio": ("long_chunk_signs", "signs"),
    "broken_ratio": ("broken", "words"),
    "cut_lines_ratio": ("cut_lines", "lines"),
}
SIGNALS = tuple(_RATIOS)


def measure(text: str) -> dict[str, float]:
    """One number per name in ``SIGNALS``, unrounded. A ratio over nothing is 0."""
    counts = dict.fromkeys(COUNTS, 0)
    cut = False
    for line in text.split("\n"):
        words = _words(line)
        if not words:
            continue
        counts["lines"] += 1
        counts["cut_lines"] += cut
        function_words = sum(word.lower() in FUNCTION_WORDS for word in words)
        ends_sentence = _last_mark(line) in SENTENCE_MARKS
        cut = _breaks_off(line, ends_sentence)
        counts["words"] += len(words)
        counts["function_words"] += function_words
        counts["inner_words"] += len(words) - 1
        counts["capitals"] += sum(word[0].isupper() for word in words[1:])
        if not ends_sentence and 3 * function_words <= len(words):
            counts["fragment_words"] += len(words)
            if words[0][0].isupper():
                counts["label_words"] += len(words)
    chunks = text.split()
    counts["letters"] = sum(map(str.isalpha, text))
    counts["signs"] = sum(map(len, chunks))
    counts["long_chunk_signs"] = sum(len(chunk) for chunk in chunks if len(chunk) > LONG_CHUNK)
    counts["broken"] = text.count("\ufffd") + len(MOJIBAKE.findall(text))
    return {name: counts[part] / counts[whole] if counts[whole] else 0.0 for name, (part, whole) in _RATIOS.items()}


def measure_batch(text: pa.Array) -> dict[str, F64]:
    """Every signal of every text, equal to ``measure``; a null counts as empty."""
    data, borders = utf8_buffers(text)
    counts = np.zeros((len(text), len(COUNTS)), np.int64)
    kernels.count_texts(data, borders, _kinds(), _function_word_slots(), counts)
    by_name = {name: counts[:, k] for k, name in enumerate(COUNTS)}
    signals = {}
    for name, (part, whole) in _RATIOS.items():
        over = by_name[whole]
        signals[name] = np.divide(by_name[part], over, out=np.zeros(len(over)), where=over != 0)
    return signals


def _words(text: str) -> Sequence[str]:
    return [word for word in re.split(" +", "".join(c if c.isalpha() else " " for c in text)) if word]


def _last_mark(line: str) -> str:
    """The last character that is neither white space nor a closer."""
    rest = line.rstrip()
    while rest and rest[-1] in CLOSERS:
        rest = rest[:-1].rstrip()
    return rest[-1:] or " "


def _breaks_off(line: str, ends_sentence: bool) -> bool:
    place = max(line.rfind("..."), line.rfind("…"))
    if place < 0:
        return False
    behind = len(_words(line[place:]))
    return behind == 0 or (behind <= MOST_WORDS_BEHIND and not ends_sentence)


@functools.cache
def _kinds() -> U8:
    """Code point → what it is, in the bits of ``portuguese_kernels``."""
    kinds = np.zeros(0x110000, np.uint8)
    for code in range(0x110000):
        character = chr(code)
        if character.isalpha():
            kinds[code] = kernels.LETTER | (kernels.UPPER if character.isupper() else 0)
        elif character.isspace():
            kinds[code] = kernels.SPACE
    kinds[[ord(character) for character in SENTENCE_MARKS]] |= kernels.SENTENCE_MARK
    kinds[[ord(character) for character in CLOSERS]] |= kernels.CLOSER
    kinds[[code for code in range(0x80, 0x3000) if MOJIBAKE.fullmatch("Ã" + chr(code))]] |= kernels.MOJIBAKE_TAIL
    return kinds


@functools.cache
def _function_word_slots() -> U64:
    """The function words as an open-addressing table of the kernels' keys."""
    slots = np.zeros(kernels.SLOTS, np.uint64)
    for word in sorted(FUNCTION_WORDS):
        kernels.add_word(slots, np.uint64(int.from_bytes(word.encode("latin-1"), "big")))
    return slots
