"""HTML to text, on pages written here."""

import pytest

from caravela.data.extract import ExtractConfig, clean, extract
from caravela.errors import UserError

ARTICLE = (
    "A padaria da esquina abriu mais cedo naquele sábado, e o cheiro de pão quente desceu a ladeira até o porto.",
    "Os pescadores, que já voltavam com as redes vazias, pararam para ouvir a notícia: a ponte seria reaberta em maio.",
)
EXTRACTORS = [ExtractConfig(extractor="trafilatura"), ExtractConfig(extractor="resiliparse")]
both_extractors = pytest.mark.parametrize("config", EXTRACTORS, ids=lambda config: config.extractor)


def page(body: str, charset: str = "") -> str:
    menu = "<nav><ul><li><a href='/a'>Página inicial</a></li><li><a href='/b'>Assine já</a></li></ul></nav>"
    footer = "<footer><p>Todos os direitos reservados. Política de cookies.</p></footer>"
    meta = f"<meta charset='{charset}'>" if charset else ""
    head = f"<head>{meta}<title>O pão &amp; a ponte</title></head>"
    return f"<html lang='pt-PT'>{head}<body>{menu}{body}{footer}</body></html>"


def article(paragraphs: tuple[str, ...] = ARTICLE) -> str:
    return "<article>" + "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs) + "</article>"


@both_extractors
def test_extract_article_gives_paragraphs_without_menu(config: ExtractConfig) -> None:
    result = extract(page(article()).encode(), "", config)
    assert result.text.split("\n") == list(ARTICLE)
    assert result.title == "O pão & a ponte"
    assert result.reason == ""


@both_extractors
@pytest.mark.parametrize(
    ("encoding", "header", "meta"),
    [
        ("utf-8", "", ""),
        ("utf-8", "iso-8859-1", "iso-8859-1"),
        ("cp1252", "", ""),
        ("cp1252", "utf-8", "utf-8"),
        ("cp1252", "", "iso-8859-1"),
        ("iso8859-15", "iso-8859-15", ""),
        ("mac-roman", "", "macintosh"),
        ("utf-16", "", ""),
    ],
)
def test_extract_page_in_any_charset_gives_its_text(
    config: ExtractConfig, encoding: str, header: str, meta: str
) -> None:
    result = extract(page(article(), meta).encode(encoding), header, config)
    assert result.text.split("\n") == list(ARTICLE)


@both_extractors
def test_extract_gives_a_line_to_each_block_and_one_to_a_paragraph_that_is_broken_in_the_source(
    config: ExtractConfig,
) -> None:
    items = "<ul><li>Primeiro, o fermento e a água morna.</li><li>Depois, a farinha de milho peneirada.</li></ul>"
    broken = ARTICLE[0].replace(" e o ", "\n\t e   o\r\n")
    body = f"<article><h2>Como se faz o pão de todos os dias</h2><p>{broken}</p><p>{ARTICLE[1]}</p>{items}</article>"
    lines = [line.removeprefix("- ") for line in extract(page(body).encode(), "", config).text.split("\n")]
    assert lines == [
        "Como se faz o pão de todos os dias",
        *ARTICLE,
        "Primeiro, o fermento e a água morna.",
        "Depois, a farinha de milho peneirada.",
    ]


@both_extractors
@pytest.mark.parametrize("entity", ["&#150;", "&#x96;", "–", "&ndash;"])
def test_extract_numbers_of_windows_1252_become_what_browsers_show(config: ExtractConfig, entity: str) -> None:
    text = extract(page(article((ARTICLE[0] + f" Era sábado {entity} dia de feira.", ARTICLE[1]))).encode(), "", config)
    assert "Era sábado – dia de feira." in text.text


@both_extractors
@pytest.mark.parametrize("html", [b"", b"<html><body></body></html>", b"\x00" * 50, b"<!--", b"<p>&#7;</p>"])
def test_extract_page_without_text_says_why(html: bytes, config: ExtractConfig) -> None:
    result = extract(html, "", config)
    assert (result.text, result.reason) == ("", "no_text")


def test_extract_large_page_is_set_aside_unparsed() -> None:
    assert extract(b"<p>" * 100, "", ExtractConfig(max_html_bytes=100)).reason == "too_large"


def test_extract_deeply_nested_page_does_not_crash() -> None:
    extract(b"<div>" * 50_000 + b"fim" + b"</div>" * 50_000, "", ExtractConfig())


def test_extract_recall_keeps_what_precision_leaves_out() -> None:
    html = page(article() + "<aside>Leia também: as marés de maio.</aside>").encode()
    texts = {
        mode: extract(html, "", ExtractConfig(extractor="resiliparse", mode=mode)).text
        for mode in ("precision", "recall")
    }
    assert "marés" not in texts["precision"]
    assert "marés" in texts["recall"]
    assert "Assine já" in texts["recall"]


@both_extractors
def test_extract_keeps_title_date_site_and_declared_language(config: ExtractConfig) -> None:
    head = (
        "<head><meta property='og:site_name' content='Gazeta do Cais'>"
        "<meta name='date' content='12/05/2019'><meta property='og:title' content='Outro'>"
    )
    html = page(article()).replace("<head>", head).encode()
    result = extract(html, "", config, url="https://www.gazeta.example/pao", fetched="2020-01-01T00:00:00Z")
    found = (result.title, result.date, result.site, result.declared_language)
    assert found == ("O pão & a ponte", "2019-05-12", "Gazeta do Cais", "pt-PT")


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


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"time_limit_seconds": -1.0}, "time_limit_seconds = -1.0: expected 0.05 to 3600, or 0"),
        ({"time_limit_seconds": 0.01}, "time_limit_seconds = 0.01"),
        ({"time_limit_seconds": float("nan")}, "time_limit_seconds = nan"),
        ({"memory_limit_mb": 100}, "memory_limit_mb = 100: expected 256 or more"),
        ({"max_html_bytes": 0}, "max_html_bytes = 0: expected 1 or more"),
    ],
)
def test_extract_config_out_of_range_names_the_value(setting: dict[str, float], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        ExtractConfig(**setting)  # type: ignore[arg-type]
