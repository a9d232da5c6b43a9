"""Sentences and lines: hard cases split by hand, and what holds for any text."""

import random

import numpy as np
import pyarrow as pa
import pytest

from caravela.data.columns import utf8_buffers
from filters.dedup.sentences import split, units

# A bar stands where a sentence ends.
HARD = (
    "O Sr. Almeida e a Dra. Lúcia chegaram.|O Prof. Dias, não.",
    "A Av. Paulista fica longe da R. Augusta.|Pegue o metrô.",
    "O art. 5.º da Lei n.º 8.112 trata disso.|Veja a pág. 12 e a Fig. 3.",
    "O vol. II custa R$ 1.250,90.|O prazo é de 3.5 dias.|Foi em 2010.|12 pessoas viram.",
    "J. R. dos Santos leu Machado de A. Silva.|Gostou.",
    "Nasceu em 300 a.C. Morreu em Roma.",  # one sentence, for a.C. may stand before a capital as well
    "Vimos o mar.|Depois voltamos em 3 mar. 2010 e em set. 2011.",
    "Vamos ver.|O Ver. Moura votou.|Foi por mal.|O Mal. Deodoro assinou.",
    "Segundo Costa et al. (2019), não há.|Já Lima discorda.",
    "— Você vem? — perguntou ela.|— Não sei… talvez.|— Venha!",
    '"Quem bateu?", disse o porteiro.|"Fui eu."|Ele riu.',
    "«Está tudo bem.»|(Não estava.)|Ninguém disse nada...|Mas todos viram... e calaram.",
    "Quê?!|Não!!!|Foi assim.|E pronto",
    "O rio secou.[1]|A ponte caiu.[2][13]|Fim.",
    "Ah! como era bom.|Oh? talvez.|Ponto. final minúsculo.",
    "Acesse www.exemplo.com.br e escreva para ana@exemplo.pt.|Obrigado.",
    "O arquivo conf.py tem erros.Falta um espaço aqui.|Agora não.",
    "1. Introdução\n|1.2. Do método e do resto.|Outro passo.\n|IV. Das penas.|V. Das multas.",
    "Comprou pão, leite etc.|Depois saiu.",
    "😀 Que dia!|😂 Que noite.|É assim.|ÉPOCA nova.|¿Y ahora?|Nada.",
    "Decidiu o STF.|O resto calou.",
    "Fim. . .|E então voltou.",
    "* * *\n|—\n|...",
    "A manha\u0303 acabou.|A\u0301gua fria.",
)


@pytest.mark.parametrize("marked", HARD)
def test_split_ends_sentences_where_a_reader_would(marked: str) -> None:
    assert split(marked.replace("\n|", "\n").replace("|", " ")) == [piece.strip() for piece in marked.split("|")]


def test_split_into_lines_leaves_out_blank_ones() -> None:
    text = "\n  Um. Dois.  \r\n\n \t\nTrês\u00a0\n— \nfim"
    assert split(text, "lines") == ["Um. Dois.", "Três", "—", "fim"]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t\n", "\u00a0\u2003"])
def test_text_without_characters_has_no_units(text: str) -> None:
    assert split(text) == split(text, "lines") == []


PIECES = (
    *("Sr.", "Dra.", "art.", "5.º", "Ana", "foi", "à", "É", "IV", "2.5", "x", "J.", "...", "…", "?!", "!", ".", "etc."),
    *(
        " ",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\u00a0",
        "\u2028",
        "\r\n",
        "—",
        "- ",
        '"',
        "»",
        "[3]",
        "[",
        "(",
        ")",
        "😀",
    ),
)


def texts(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(PIECES, k=chance.randrange(60))) for _ in range(count)]


@pytest.mark.parametrize("unit", ["sentences", "lines"])
def test_units_hold_every_character_that_is_not_white_space_once(unit: str) -> None:
    for text in texts(1, 2000):
        found = split(text, unit)
        assert "".join("".join(found).split()) == "".join(text.split())
        assert all(piece and piece == piece.strip() for piece in found)
        assert all("\n" not in piece for piece in found)
        if unit == "lines":
            assert found == [line.strip() for line in text.split("\n") if line.strip()]


def test_paragraph_is_split_alike_wherever_it_stands() -> None:
    paragraphs = texts(2, 1000)
    for one, other in zip(paragraphs[::2], paragraphs[1::2], strict=True):
        assert split(f"{one}\n{other}") == split(one) + split(other)


def test_units_of_a_column_are_those_of_its_texts() -> None:
    rows: list[str | None] = [*texts(3, 200), None, "", "Oi! " * 5000]  # more units than there is room for at first
    column = pa.array(["Antes. Fora.", *rows, "Depois."])[1:-1]
    data, offsets = utf8_buffers(column)
    borders, firsts = units(data, offsets, True)
    found = [bytes(data[a:b]).decode() for a, b in borders.tolist()]
    assert [found[a:b] for a, b in np.column_stack((firsts[:-1], firsts[1:])).tolist()] == [
        split(r or "") for r in rows
    ]
    assert firsts[-1] - firsts[-2] == 5000
