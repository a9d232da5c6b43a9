"""Generated texts on which word splitting and quality rules go wrong first; the same seed gives the same texts."""

import random
from collections.abc import Iterator
from pathlib import Path

import spacy

SAMPLE_TEXTS = Path(__file__).parents[2] / "platform/caravela/sample/texts"

_WORDS = """
a casa o mar de São João que não foi à feira comprar pão com manteiga e vinho do Porto na sexta-feira guarda-chuva
disse-lhe dar-se-ia d'água coração ação õ ÉPOCA IBGE Dr. Sr. Sra. etc. p.m. e/ou km/h S/A art. 5º nº 12 1.º R$
1.234,56 10% 20°C. 5km 3,5kg 12h30 2024-01-31 31/01/2024 192.168.0.1 C++ Ph.D. U.S.A. EUA. a.C. d.C. pág. 7
"""
_ODDITIES = """
https://www.exemplo.pt/a/b?c=d&e=f#g www.exemplo.com.br, (http://x.yz). nome.apelido@exemplo.com.pt mailto:a@b.pt
«aspas» “curvas” ‘simples’ "retas" (parêntesis), [colchetes]; {chavetas} ... … .... ?! !? !!! ??? -- --- — – - • * #
## #hashtag @pessoa $100 €5 100€ £3,20 <b>negrito</b> &nbsp; \\t \\n \\") 's 'tá n'água '' ’’ _sub_ a_b **forte** ½ ²
🙂 👩🏽\u200d🚀 🇧🇷 ❤\ufe0f 1\ufe0f\u20e3 ☺ café\u0301 e\u0301\u0302 a\u0300 \u0301 Z\u0351\u036b\u0343a\u0301lgo \x00
a\x00b \x01 \x7f \x9f zero\u200blargura \ufeffBOM soft\u00adhyphen \u202eRTL\u202c Привет, мир! 你好，世界。
こんにちは。 مرحبا؟ नमस्ते। สวัสดี 한국어. ㎏ Ⅻ ª º ﬁm ǅ ß İ ſ 𝒜𝒷 𐍈 a/b/c x=y a.b.c ..a.. -a- _ __ a-b-c -1 +1 5-6 A.B.
lower.Upper iPhone15
"""
WORDS, ODDITIES = _WORDS.split(), _ODDITIES.split()
ODD_SPACES = ["\n\n", "\n\n\n", "  ", " \n ", "\r\n", *"\t\r\u00a0\u3000\u2009\u2028\x0b\x0c\x1c\x1f\x85"]
SPACES = [" "] * 30 + ["\n"] * 4 + ODD_SPACES
EMOTICON_CHARACTERS = ":;=()-'’_oODPpx3<>8/|[]*^.#a"

EXTREMES = (
    *(
        "",
        " ",
        "\n",
        "\n\n\n",
        "\t \u00a0\n",
        "\x00",
        "a",
        ".",
        "•",
        "…",
        "#",
        "-",
        "🙂",
        "\u0301",
        "e\u0301",
        "IS_LOWER",
        "\n.\n",
    ),
    "palavra",
    "a " * 1500,
    "a" * 10_000,
    "ab\n" * 500,
    "!" * 1000,
    ". " * 500,
    "- item\n" * 200,
    "👩🏽‍🚀" * 100,
    "e\u0301" * 500,
    "https://exemplo.pt/" + "a/" * 300,
    "linha sem fim de palavras portuguesas, sempre iguais; " * 100,
    "\u2028".join(f"linha {n} termina bem." for n in range(100)),
    "\r\n".join(f"linha {n} de outro sistema." for n in range(100)),
    "\n".join("" if n % 2 else f"Parágrafo {n} e mais nada." for n in range(200)),
    "x\u00a0y\u3000z\u2009w " * 100,
)


def hard_texts(seed: int, count: int) -> Iterator[str]:
    """``count`` texts of every kind below, in turn, and before them the extremes."""
    yield from EXTREMES
    rng = random.Random(seed)
    special_cases = [case for case in spacy.blank("pt").tokenizer.rules if not case.isspace()]
    sample = sample_texts()
    kinds = (
        lambda: _mixture(rng, WORDS + ODDITIES),
        lambda: _mixture(rng, WORDS + WORDS + special_cases),
        lambda: _glued(rng, special_cases),
        lambda: _emoticons(rng),
        lambda: _repetitive(rng, rng.choice(sample)),
        lambda: _mangled(rng, rng.choice(sample)),
    )
    for index in range(count):
        yield kinds[index % len(kinds)]()


def sample_texts() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(SAMPLE_TEXTS.rglob("*.txt"))]


def _mixture(rng: random.Random, pieces: list[str]) -> str:
    return "".join(rng.choice(pieces) + rng.choice(SPACES) for _ in range(rng.randrange(1, 250)))


def _glued(rng: random.Random, special_cases: list[str]) -> str:
    """Special cases stuck to words, to one another and to punctuation, with few blanks between."""
    pieces = special_cases + WORDS[:20] + list(".,:;)('-")
    return "".join(rng.choice(pieces) + rng.choice(["", "", " ", " ", "  ", "\n"]) for _ in range(rng.randrange(2, 60)))


def _emoticons(rng: random.Random) -> str:
    """Random walks over the characters that emoticons are made of."""
    return "".join(rng.choice(EMOTICON_CHARACTERS + "  ") for _ in range(rng.randrange(1, 120)))


def _repetitive(rng: random.Random, text: str) -> str:
    """Lines, paragraphs or spans of words that come again, more or less often."""
    separator = rng.choice(["\n", "\n\n", " "])
    parts = text.split(separator)[: rng.randrange(1, 120)]
    for _ in range(rng.randrange(len(parts) + 1)):
        start = rng.randrange(len(parts))
        parts[rng.randrange(len(parts)) : 0] = parts[start : start + rng.randrange(1, 14)]
    return separator.join(parts)


def _mangled(rng: random.Random, text: str) -> str:
    """A piece of a good text whose lines became a list, lost their ends or were sprinkled with symbols."""
    start = rng.randrange(len(text))
    lines = text[start : start + rng.randrange(1, 3000)].split("\n")
    before, after = (
        rng.choice(["", "", "- ", "• ", "#", "1. "]),
        rng.choice(["", "", "...", "…", " …", " ", ",", " | ##"]),
    )
    keep_end = rng.random() < 0.5
    lines = [f"{before}{line if keep_end else line.rstrip('.!?')}{after}" for line in lines]
    if rng.random() < 0.3:
        lines = [line.replace(" ", rng.choice(["\n", " # ", " 12 ", " ... ", "  "])) for line in lines]
    return "\n".join(lines)
