"""Texts made to fall on either side of each limit, and of every kind that splits or counts oddly; by a seed.

``hard_cases`` gives (kind, text). Half are those of ``hard_texts``; the others are of the kinds in ``KINDS``: texts
around one threshold each of FineWeb-2's Portuguese recipe, odd white space, scripts, marks, spaCy's exceptions and
affixes, addresses, digits. ``large_cases`` are texts of ten megabytes. For tests on a sample, for benchmarks in full.
"""

import random
from collections.abc import Callable, Iterator

from filters.quality import QualityConfig
from tests.filters.hard_texts import ODDITIES, WORDS, hard_texts, sample_texts

CONFIG = QualityConfig()
WHITE_SPACE = [
    *" \n\t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\u00a0\u1680\u2000\u2009\u2028\u2029\u202f\u205f\u3000",
    "\r\n",
    "\n\n",
]
NO_SPACE = [*"\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u0000\u034f"]
SCRIPTS = (
    *(
        "Привет мир",
        "你好，世界。",
        "こんにちは。",
        "مرحبا بالعالم؟",
        "नमस्ते दुनिया।",
        "สวัสดีชาวโลก",
        "안녕하세요.",
        "Γειά σου;",
    ),
    *("שלום עולם!", "Բարեւ։", "გამარჯობა", "ሰላም።", "ជំរាបសួរ", "𝒜𝒷𝒸 𝟙𝟚", "𐍈𐌰", "Ⅻ ㎏ ½", "ﬁm ǅ ſ İ ß", "١٢٣ ४५६"),
)
EMOJI = ("🙂", "👩🏽‍🚀", "🇧🇷", "🇵🇹", "❤️", "1️⃣", "☺", "👍🏿", "🏴‍☠️", "🫠", "\U0001f1e6", "\ufe0f")
COMBINING = (
    "e\u0301",
    "a\u0303o",
    "c\u0327",
    "\u0301",
    "n\u0303\u0301\u0302",
    "o\u0338",
    "Z\u0351\u036b\u0343",
    "\u20dd",
)
PUNCTUATION = [
    *".,;:!?…—–-\"'“”‘’«»()[]{}<>/\\|@#$%^&*_+=~`´¨ªº°§•·¿¡。！？、；：「」،؟۔।॥",
    "...",
    "....",
    "--",
    "?!",
    "!!!",
]
AFFIXES = (
    *("d'água", "D'Ávila", "n'água", "l'Oréal", "copo-d'água", "pé-d'água", "sr.", "Sr.", "SR.", "sra.", "dr.", "Dr.a"),
    *("R$", "R$10", "R$ 10,50", "US$5", "€10", "10€", "3º", "3.º"),
    *("1ª", "n.º", "nº5", "art.", "art.º", "pág.", "págs."),
    *("etc.", "etc...", "p.ex.", "i.e.", "a.C.", "S.A.", "Ltda.", "E.U.A.", "EUA.", "Ph.D.", "km/h", "e/ou", "S/A"),
    *("disse-lhe", "dar-se-ia", "fá-lo-emos", "guarda-chuva", "pré-escolar", "ex-", "-se", "segunda-feira.", "UTF-8"),
    *("palavra.Outra", "palavra.outra", "A.b", "a,b", "1,5", "1.5"),
    *("1,a", "a:b", "a=b", "a/b/c", "x^2", "2x", "5km.", "20°C"),
    *(":)", ":-(", "xD", "<3", "foo:)", ":)))", "(:", "¯\\_(ツ)_/¯", "^_^", "8)", "v.v", "O_o", "=D", ":-P.", ">.<"),
    *("(texto", "texto)", "“texto”", "'texto'", "«texto»,"),
    *("texto...", "…texto", "texto…", "texto?!", "[1]", "{x}", "*t*"),
)
ADDRESSES = (
    *("https://www.exemplo.pt/a/b?c=d&e=f#g", "http://x.yz"),
    *("www.exemplo.com.br", "exemplo.pt,", "ftp://a.b/c.txt", "a.b.c"),
    *("nome.apelido@exemplo.com.pt", "mailto:a@b.pt", "@pessoa"),
    *("#etiqueta", "(https://a.pt/(b))", "http://", "://", "a@b"),
    *("192.168.0.1", "2001:db8::1", "10.0.0.0/8", "C:\\pasta\\f.txt", "/usr/bin", "ficheiro.tar.gz", "exemplo.pt/ação"),
)
FILLER = (
    *("casa", "mar", "feira", "vinho", "porto", "sexta", "chuva", "coração", "época", "jardim", "escola", "cidade"),
    *("tempo", "noite", "ribeira", "janela", "caminho", "palavra", "pedra", "árvore"),
)
STOP_WORDS = CONFIG.signals.stop_words


class Writer:
    """Words and lines that do not repeat unless asked to."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count = 0

    def word(self) -> str:
        """A word that occurred nowhere before, of letters alone."""
        self.count += 1
        letters, number = "", self.count
        while number:
            number, digit = divmod(number, 26)
            letters += chr(ord("a") + digit)
        return self.rng.choice(FILLER) + letters

    def words(self, count: int) -> list[str]:
        return [self.word() for _ in range(max(0, count))]

    def sentence(self, count: int) -> str:
        return " ".join(["o", *self.words(count - 2), "de"]) + "."

    def text(self, characters: int) -> str:
        """Lines that every filter likes, of about so many characters."""
        lines, size = [], 0
        while size < characters:
            lines.append(self.sentence(self.rng.randrange(8, 20)))
            size += len(lines[-1]) + 1
        return "\n".join(lines)[: max(1, characters)]


def near(rng: random.Random, value: float) -> float:
    """A number at a limit, or just beside it."""
    return value * rng.choice([0.9, 0.97, 0.99, 0.995, 0.999, 1.0, 1.001, 1.005, 1.01, 1.03, 1.1])


def repeated_n_gram(rng: random.Random) -> str:
    """A phrase of n words that comes again, with as much other text as brings its share near the limit for n."""
    write, n, times = Writer(rng), rng.randrange(2, 11), rng.randrange(2, 6)
    repetition = CONFIG.gopher_repetition
    limit = getattr(repetition, f"top_{n}_gram" if n < 5 else f"duplicated_{n}_n_grams")
    phrase = write.words(n)
    compact = len(" ".join(phrase)) * times if n < 5 else len("".join(phrase)) * (times - 1)
    rest = max(1, int(compact / near(rng, limit)) - len(" ".join(phrase)) * times)
    pieces = [write.text(rest // times) for _ in range(times)]
    return rng.choice([" ", " ", "\n"]).join(f"{' '.join(phrase)} {piece}" for piece in pieces)


def joined_otherwise(rng: random.Random) -> str:
    """n-grams that are equal only when their words are written together, or only up to case or marks."""
    letters = "".join(rng.choices("abcde", k=40))
    cuts = [sorted(rng.sample(range(1, 40), rng.randrange(4, 11))) for _ in range(4)]
    pieces = [" ".join(letters[a:b] for a, b in zip([0, *cut], [*cut, 40], strict=True)) for cut in cuts]
    return Writer(rng).text(rng.randrange(10, 400)) + " " + rng.choice([" ", "\n", ". "]).join(pieces)


def repeated_lines(rng: random.Random) -> str:
    """Lines or paragraphs that come again, near the limits for lines and for their characters."""
    write, lines = Writer(rng), rng.randrange(4, 60)
    share = near(rng, rng.choice([0.287, 0.1]))
    text = [write.sentence(rng.randrange(6, 20)) for _ in range(lines)]
    text += rng.choices(text, k=max(1, round(share * lines / (1 - min(0.9, share)))))
    rng.shuffle(text)
    return rng.choice(["\n", "\n", "\n\n", "\n\n\n", " \n", "\r\n", "\n "]).join(text)


def line_ends(rng: random.Random) -> str:
    """Lines with and without an end of sentence; ends of many kinds."""
    write, count = Writer(rng), rng.randrange(5, 90)
    with_end = round(near(rng, CONFIG.fineweb_quality.line_punct_thr) * count)
    ends = ["."] * with_end + rng.choices(
        ["", ",", ";", " ", ".a", "。", "…", "...", '"', ".\u200b", ". ", ".\u00a0"], k=count
    )
    lines = [write.sentence(12).rstrip(".") + end for end in ends[:count]]
    rng.shuffle(lines)
    return "\n".join(lines)


def list_ratio(rng: random.Random) -> str:
    """Line breaks over words near the limit."""
    write, words = Writer(rng), rng.randrange(40, 300)
    breaks = round(near(rng, CONFIG.fineweb_quality.new_line_ratio) * words)
    pieces = [*write.words(words - 2), "de", "que."]
    places = set(rng.sample(range(words), min(breaks, words)))
    return "".join(piece + ("." * (i % 3 == 0) + "\n" if i in places else " ") for i, piece in enumerate(pieces))


def few_words(rng: random.Random) -> str:
    """A number of words around the least, some of them marks alone."""
    count = rng.choice([0, 1, 2, 47, 48, 49, 50, 51, 52])
    pieces = ["de", "que", *Writer(rng).words(count)][: max(count, 1)] + rng.choices(
        [*PUNCTUATION, "$5", "5"], k=rng.randrange(4)
    )
    rng.shuffle(pieces)
    return " ".join(pieces) + rng.choice(["", ".", " ."])


def word_lengths(rng: random.Random) -> str:
    """A mean length of words around the least or the most."""
    count, mean = rng.randrange(50, 200), near(rng, rng.choice([3, 13]))
    letters = "abcdefghijklmnopqrstuvwxyzçãé"
    sizes = [max(1, round(mean + rng.choice([-1, 0, 1]))) for _ in range(count)]
    return " ".join("".join(rng.choices(letters, k=size)) for size in sizes) + " de que."


def symbols(rng: random.Random) -> str:
    """Hashes or ellipses over words near the limit, glued or apart."""
    write, count = Writer(rng), rng.randrange(50, 200)
    sign = rng.choice(["#", "...", "…", "....", "......", "##"])
    pieces = [*write.words(count), "de que"]
    for _ in range(round(near(rng, 0.1) * count)):
        at = rng.randrange(len(pieces))
        pieces[at] = rng.choice([sign + pieces[at], pieces[at] + sign, f"{pieces[at]} {sign}"])
    return " ".join(pieces) + "."


def bullets(rng: random.Random) -> str:
    """Lines that begin with a bullet or end in an ellipsis, near the limits; some only look like it."""
    write, count = Writer(rng), rng.randrange(5, 60)
    front, back = near(rng, 0.9) * count, near(rng, 0.3) * count
    marks = ["•", "-", "- ", "• ", "\u00a0-", "\t•", "‣", "–", "*", "·", "\u200b-"]
    ends = ["...", "…", "... ", "…\u00a0", "....", "..", "…\u200b"]
    lines = [
        (rng.choice(marks) if i < front else "")
        + write.sentence(9).rstrip(".")
        + (rng.choice(ends) if i < back else ".")
        for i in range(count)
    ]
    rng.shuffle(lines)
    return rng.choice(["\n", "\n", "\n\n", "\r\n", "\u2028", "\x85"]).join(lines)


def few_letters(rng: random.Random) -> str:
    """Words without a letter over words near the limit."""
    count = rng.randrange(50, 200)
    without = round((1 - near(rng, CONFIG.gopher_quality.min_alpha_words_ratio)) * count)
    others = ["12", "3,5", "—", "…", "10%", "٣", "½", "²", "🙂", "$", "\u0301", "2024-01-31", "º", "Ⅻ", "12h", "_", "ª"]
    pieces = [*Writer(rng).words(count - without), *rng.choices(others, k=max(0, without))]
    rng.shuffle(pieces)
    return "o que " + " ".join(pieces) + " de."


def few_stop_words(rng: random.Random) -> str:
    stop = rng.choices([*STOP_WORDS, "De", "QUE", "e\u0301", "É", "d'", "à", "dé"], k=rng.randrange(4))
    pieces = Writer(rng).words(70) + stop
    rng.shuffle(pieces)
    return "\n".join(" ".join(pieces[i : i + 12]) + "." for i in range(0, len(pieces), 12))


def odd_white_space(rng: random.Random) -> str:
    """Good sentences whose blanks and line breaks became others, or nothing that shows."""
    text = Writer(rng).text(rng.randrange(50, 900))
    spaces, odds = rng.sample(WHITE_SPACE, 3), rng.random() / 2
    return "".join(
        rng.choice(spaces + NO_SPACE) if character.isspace() and rng.random() < odds else character
        for character in text
    )


def mixed(rng: random.Random, pieces: tuple[str, ...] | list[str]) -> str:
    """Pieces of one kind among words, with blanks or glued."""
    share = rng.choice([0.1, 0.5, 1.0])
    joints = rng.choice([[" "], [" ", "\n"], ["", " "], [""], [" ", *WHITE_SPACE]])
    chosen = [rng.choice(pieces) if rng.random() < share else rng.choice(WORDS) for _ in range(rng.randrange(1, 160))]
    return "".join(piece + rng.choice(joints) for piece in chosen)


def digits(rng: random.Random) -> str:
    pieces = [str(rng.randrange(10 ** rng.randrange(1, 60))) for _ in range(rng.randrange(1, 60))]
    return rng.choice([" ", "\n", ".", ",", "-", ""]).join(pieces)


def one_thing(rng: random.Random) -> str:
    """One character, word or line, from once to thousands of times."""
    unit = rng.choice(
        [*PUNCTUATION, *EMOJI, *COMBINING, *WHITE_SPACE, *NO_SPACE, *AFFIXES[:20], *WORDS, "a ", ". ", "a\n", "# "]
    )
    return unit * rng.choice([0, 1, 2, 3, 10, 60, 200])


def one_line(rng: random.Random) -> str:
    """A line of thousands of characters, or a word of hundreds."""
    if rng.random() < 0.5:
        return Writer(rng).text(rng.randrange(2000, 9000)).replace("\n", " ")
    return "".join(rng.choices("abcdefghijé-.'", k=rng.randrange(200, 1500)))


def sample_damaged(rng: random.Random) -> str:
    """A good text with a few characters replaced by odd ones."""
    characters = list(rng.choice(SAMPLE)[: rng.randrange(100, 4000)])
    odd = [*WHITE_SPACE, *NO_SPACE, *PUNCTUATION, *EMOJI, *COMBINING, *ODDITIES, *AFFIXES, ""]
    for _ in range(rng.randrange(1, 1 + len(characters) // 20)):
        characters[rng.randrange(len(characters))] = rng.choice(odd)
    return "".join(characters)


SAMPLE = sample_texts()
KINDS: dict[str, Callable[[random.Random], str]] = {
    **{
        kind.__name__: kind
        for kind in (repeated_n_gram, joined_otherwise, repeated_lines, line_ends, list_ratio, few_words)
    },
    **{kind.__name__: kind for kind in (word_lengths, symbols, bullets, few_letters, few_stop_words, odd_white_space)},
    "scripts": lambda rng: mixed(rng, SCRIPTS),
    "emoji": lambda rng: mixed(rng, EMOJI),
    "combining": lambda rng: mixed(rng, COMBINING),
    "punctuation": lambda rng: mixed(rng, PUNCTUATION),
    "affixes": lambda rng: mixed(rng, AFFIXES),
    "addresses": lambda rng: mixed(rng, ADDRESSES),
    "no space": lambda rng: mixed(rng, NO_SPACE),
    **{kind.__name__: kind for kind in (digits, one_thing, one_line, sample_damaged)},
}


def hard_cases(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """``count`` texts and their kinds, in turn; the same for the same seed."""
    rng = random.Random(seed)
    others = hard_texts(seed, count)
    kinds = list(KINDS.items())
    for index in range(count):
        if index % 2:
            yield "hard text", next(others)
        else:
            name, kind = kinds[index // 2 % len(kinds)]
            yield name, kind(rng)


def large_cases(seed: int, characters: int = 10_000_000) -> Iterator[tuple[str, str]]:
    """Texts of so many characters: good ones, one line, repeated lines, many kinds mixed."""
    rng = random.Random(seed)
    yield "large: good", Writer(rng).text(characters)
    yield "large: one line", Writer(rng).text(characters).replace("\n", " ")
    yield (
        "large: lines again",
        "\n".join(rng.choices(Writer(rng).text(20_000).split("\n"), k=characters // 100))[:characters],
    )
    pieces = [text for _, text in hard_cases(seed, 4000)]
    yield "large: mixed", "\n".join(rng.choices(pieces, k=characters // 600))[:characters]
