"""HTML to text, on pages written here."""

import pytest

from caravela.data.extract import ExtractConfig, clean, extract

ARTICLE = (
    "A padaria da esquina abriu mais cedo naquele sábado, e o cheiro de pão quente desceu a ladeira até o porto.",
    "Os pescadores, que já voltavam com as redes vazias, pararam para ouvir a notícia: a ponte seria reaberta em maio.",
)


def page(body: str) -> bytes:
    menu = "<nav><ul><li><a href='/a'>Página inicial</a></li><li><a href='/b'>Assine já</a></li></ul></nav>"
    footer = "<footer><p>Todos os direitos reservados. Política de cookies.</p></footer>"
    return f"<html><head><title>O pão &amp; a ponte</title></head><body>{menu}{body}{footer}</body></html>".encode()


def test_extract_article_gives_paragraphs_without_menu() -> None:
    result = extract(page("<article>" + "".join(f"<p>{p}</p>" for p in ARTICLE) + "</article>"), "", ExtractConfig())
    assert result.text.split("\n") == list(ARTICLE)
    assert result.title == "O pão & a ponte"
    assert result.reason == ""


@pytest.mark.parametrize(
    ("html", "reason"),
    [(b"<html><body></body></html>", "no_text"), (b"\x00" * 50, "no_text"), (b"<" * 3000, "no_text")],
)
def test_extract_page_without_text_says_why(html: bytes, reason: str) -> None:
    assert extract(html, "", ExtractConfig()).reason == reason


def test_extract_large_page_is_set_aside_unparsed() -> None:
    assert extract(b"<p>" * 100, "", ExtractConfig(max_html_bytes=100)).reason == "too_large"


def test_extract_deeply_nested_page_does_not_crash() -> None:
    extract(b"<div>" * 50_000 + b"fim" + b"</div>" * 50_000, "", ExtractConfig())


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("informaÃ§Ã£o", "informação"),
        ("cafe\u0301", "café"),
        ("a\x00b\x07c", "abc"),
        ("ÂNGULO e PÃO, não", "ÂNGULO e PÃO, não"),
        ("linha\ne tabulação\t", "linha\ne tabulação\t"),
    ],
)
def test_clean_mends_what_is_broken_and_nothing_else(broken: str, mended: str) -> None:
    assert clean(broken) == mended
