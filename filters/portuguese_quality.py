r"""Eight more quality signals, for what FineWeb-2's rules confuse in Portuguese: menus with verse, code with recipes.

In: a text and its words as ``filters.words`` gives them. Out: ``measure`` gives one number per name in ``SIGNALS``,
defined for every text, the empty one too; ``filters.quality_batch`` gives the same for whole columns. Rules and limits
are those of ``filters.quality``, section ``portuguese_quality``.

A word counts here if it holds a letter; a line is what ``split("\n")`` gives, if it holds such a word. What each signal
is for:

* ``function_word_ratio``: words that are among ``FUNCTION_WORDS``, over words. Nearly half in prose and verse, a third
  in recipes and command references; next to none in code, keywords, names, Latin filler, and text whose small words
  were taken away. No punctuation mark and no number enters, unlike in Gopher's share of alphabetic words.
* ``capital_ratio``: words behind the first of their line that begin with a capital, over words behind the first.
  Shouting, roll calls, stock tickers and headings of link lists; verse begins its lines so, and is not counted.
* ``label_ratio``: words in labels, over words. A label is a line that begins with a capital, ends in no sentence mark,
  and in which at most a third of the words are function words: an item of a menu or of a table of contents.
* ``fragment_ratio``: the same whatever the line begins with (code, slugs, listings), each line weighing as much as
  ``LINE_WEIGHT`` words: a page of labels around one long comment is mostly labels.
* ``letter_ratio``: letters over characters that are no white space. Code, style sheets and data are full of signs.
* ``long_chunk_ratio``: characters in chunks of more than 40 characters between blanks, over characters that are no
  white space: base64, addresses, minified scripts.
* ``broken_ratio``: words with a replacement character, or with a pair that UTF-8 read as Windows-1252 leaves, over
  words: what the repair of encodings could not mend.
* ``cut_lines_ratio``: lines that break off in an ellipsis, which may have three words behind it ("… Leia mais"), over
  lines: teasers. A text may trail off at its end, so its last line is never counted as cut.
"""

import itertools
from collections.abc import Iterator, Sequence

from caravela.data.extract import MOJIBAKE

_WORDS = """
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
    he hum huma elle ella elles ellas delle della delles dellas nelle nella aquelle aquella mui
""".split()
FUNCTION_WORDS = frozenset(
    itertools.chain.from_iterable((word, word.capitalize(), word.upper()) for word in _WORDS),
)
"""Articles, prepositions and their contractions, pronouns, conjunctions, common adverbs and auxiliary verbs, of today
and, in the last line, as they were spelt before 1911: written small, with a capital, and in capitals."""

SENTENCE_MARKS = ".!?…:"
CLOSERS = "\"”»)'’]*_"
"""What may stand behind a sentence mark: quotes, brackets, marks of emphasis."""
ELLIPSES = ("...", "…")
LONG_CHUNK = 40
"""Characters; longer than any word, and than what hyphens and slashes join in prose."""
MOST_WORDS_BEHIND = 3
"""Behind the ellipsis of a line that breaks off: "Continuar a ler"."""
LINE_WEIGHT = 10

COUNTS = (
    *("words", "function_words", "inner_words", "capitals", "label_words", "fragments", "words_and_lines"),
    *("letters", "signs", "long_chunk_signs", "broken", "lines", "cut_lines"),
)
"""``signs`` are characters that are no white space; ``inner_words`` stand behind the first word of their line;
``words_and_lines`` are words and ``LINE_WEIGHT`` for each line, and ``fragments`` the same of fragments alone."""
RATIOS = {
    "function_word_ratio": ("function_words", "words"),
    "capital_ratio": ("capitals", "inner_words"),
    "label_ratio": ("label_words", "words"),
    "fragment_ratio": ("fragments", "words_and_lines"),
    "letter_ratio": ("letters", "signs"),
    "long_chunk_ratio": ("long_chunk_signs", "signs"),
    "broken_ratio": ("broken", "words"),
    "cut_lines_ratio": ("cut_lines", "lines"),
}
SIGNALS = tuple(RATIOS)


def measure(text: str, words: Sequence[str]) -> dict[str, float]:
    """One number per name in ``SIGNALS``, unrounded. A ratio over nothing is 0."""
    counts = dict.fromkeys(COUNTS, 0)
    cut = False
    for line, in_line in _words_by_line(text, words):
        lettered = [any(map(str.isalpha, word)) for word in in_line]
        count = sum(lettered)
        if not count:
            continue
        first = lettered.index(True)
        function_words = sum(word in FUNCTION_WORDS for word in in_line)
        capitals = [word[0].isupper() for word, holds_letter in zip(in_line, lettered, strict=True) if holds_letter]
        ends_sentence = line.rstrip(CLOSERS)[-1:] in tuple(SENTENCE_MARKS)
        counts["lines"] += 1
        counts["cut_lines"] += cut
        cut = _breaks_off(in_line, lettered, ends_sentence)
        counts["words"] += count
        counts["function_words"] += function_words
        counts["inner_words"] += count - 1
        counts["capitals"] += sum(capitals[1:])
        if not ends_sentence and 3 * function_words <= count:
            counts["fragments"] += count + LINE_WEIGHT
            counts["label_words"] += count if in_line[first][0].isupper() else 0
    counts["words_and_lines"] = counts["words"] + LINE_WEIGHT * counts["lines"]
    chunks = text.split()
    counts["letters"] = sum(map(str.isalpha, text))
    counts["signs"] = sum(map(len, chunks))
    counts["long_chunk_signs"] = sum(len(chunk) for chunk in chunks if len(chunk) > LONG_CHUNK)
    counts["broken"] = sum("\ufffd" in word or MOJIBAKE.search(word) is not None for word in words)
    return {name: counts[part] / counts[whole] if counts[whole] else 0.0 for name, (part, whole) in RATIOS.items()}


def _words_by_line(text: str, words: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Each line without its white space, and its words: together they are the same characters."""
    begin = 0
    for line in text.split("\n"):
        compact = "".join(line.split())
        left, end = len(compact), begin
        while left:
            left -= len(words[end])
            end += 1
        yield compact, words[begin:end]
        begin = end


def _breaks_off(words: Sequence[str], lettered: Sequence[bool], ends_sentence: bool) -> bool:
    """Whether a line ends in an ellipsis, or has one with few words and no sentence mark behind it."""
    places = [place for place, word in enumerate(words) if word.endswith(ELLIPSES)]
    if not places:
        return False
    behind = sum(lettered[places[-1] + 1 :])
    return behind == 0 or (behind <= MOST_WORDS_BEHIND and not ends_sentence)
