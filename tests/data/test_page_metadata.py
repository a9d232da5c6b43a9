"""What pages say of themselves, in the forms that are found in the wild, and in junk."""

import random
import time

import pytest

from caravela.data.page_metadata import PageMetadata, host_of, parse_date, read_metadata


@pytest.mark.parametrize(
    ("claim", "date"),
    [
        ("2019-03-05", "2019-03-05"),
        ("2019-03-05T23:59:59-03:00", "2019-03-05"),
        ("2019-3-5 10:00", "2019-03-05"),
        ("2019/03/05", "2019-03-05"),
        ("  2019.03.05 ", "2019-03-05"),
        ("20190305", "2019-03-05"),
        ("20190305T101500Z", "2019-03-05"),
        ("20190305101500", "2019-03-05"),
        ("05/03/2019", "2019-03-05"),
        ("5-3-2019", "2019-03-05"),
        ("31.12.1999 às 10h", "1999-12-31"),
        ("03/25/2019", "2019-03-25"),
        ("5 de março de 2019", "2019-03-05"),
        ("1º de Dezembro de 2003", "2003-12-01"),
        ("Terça-feira, 5 de fevereiro de 2019", "2019-02-05"),
        ("5 Mar 2019", "2019-03-05"),
        ("05-mai-2019", "2019-05-05"),
        ("Tue, 05 Mar 2019 10:00:00 GMT", "2019-03-05"),
        ("Tue Mar 05 2019 10:00:00 GMT+0000", "2019-03-05"),
        ("March 5th, 2019", "2019-03-05"),
        ("1881-03-15", "1881-03-15"),
        ("2020-02-29", "2020-02-29"),
    ],
)
def test_parse_date_of_any_form_gives_the_day(claim: str, date: str) -> None:
    assert parse_date(claim) == date


@pytest.mark.parametrize(
    "claim",
    [
        "",
        "ontem",
        "2019",
        "2019-03",
        "2019-02-29",
        "2019-13-45",
        "0000-00-00",
        "0001-01-01T00:00:00",
        "1970-01-01T00:00:00Z",
        "1900-01-01",
        "32/01/2019",
        "2019-03-051",
        "123456789012",
        "5 de mirço de 2019",
        "99999999",
        "٢٠١٩-٠٣-٠٥",
        "2019-03/05",
        "-" * 5000,
        "9" * 5000,
        "a " * 5000,
    ],
)
def test_parse_date_of_what_is_no_day_gives_nothing(claim: str) -> None:
    assert parse_date(claim) == ""


@pytest.mark.parametrize(
    ("claim", "date"), [("2019-03-06", "2019-03-06"), ("2019-03-07", ""), ("2019-01-01", "2019-01-01")]
)
def test_parse_date_after_the_page_was_fetched_gives_nothing(claim: str, date: str) -> None:
    assert parse_date(claim, latest="2019-03-05") == date


FETCHED = "2021-06-01T12:00:00Z"
META = '<meta property="article:published_time" content="2019-03-05T10:00:00Z">'


@pytest.mark.parametrize(
    ("html", "date"),
    [
        (META, "2019-03-05"),
        (META.upper(), "2019-03-05"),
        ("<META CONTENT=2019-03-05 NAME=DC.Date>", "2019-03-05"),
        ("<meta itemprop='datePublished' content='2019-03-05'/>", "2019-03-05"),
        ("<meta name=date content='2018-01-01'>" + META, "2019-03-05"),
        ("<meta name=date content='2018-01-01'><meta name=date content='2017-01-01'>", "2018-01-01"),
        (
            "<meta property='article:published_time' content='2035-01-01'><meta name=date content=2018-01-01>",
            "2018-01-01",
        ),
        ("<meta property='article:modified_time' content='2019-03-05'>", ""),
        ("<meta name='description' content='em 2019-03-05'>", ""),
        (f"<!-- {META} -->", ""),
        (f"<script>var x = '{META}';</script>", ""),
        (f"<!-- {META}", ""),
        (
            '<script type="application/ld+json">{"@type":"X","datePublished" : "2019-03-05T08:00"}</script>',
            "2019-03-05",
        ),
        ('<script>{"datePublished":"2019-03-05"}</script>', ""),
        ("<body><time datetime='2019-03-05'>há dois anos</time><time datetime='2020-01-01'>x</time>", "2019-03-05"),
        ("<body><time datetime='2019-03-05'>a</time><time itemprop=datePublished datetime='2020-01-01'>", "2020-01-01"),
        ("<body><time datetime='10:00'>a</time>", ""),
        ("<body><time>2019-03-05</time>", ""),
        ("<metadata name=date content=2019-03-05>", ""),
        ("<meta title='a > b' name=date content=2019-03-05>", "2019-03-05"),
        ("<meta name=date content='2019-03-05", ""),
    ],
)
def test_read_metadata_date_is_that_of_the_surest_claim(html: str, date: str) -> None:
    assert read_metadata(f"<html><head>{html}", "", FETCHED).date == date


@pytest.mark.parametrize(
    ("html", "title"),
    [
        ("<title>O pão &amp; a\n ponte</title>", "O pão & a ponte"),
        ("<TITLE class=x>Pão</TITLE><title>Ponte</title>", "Pão"),
        ("<title></title><meta property=og:title content='O p&atilde;o'>", "O pão"),
        ("<title>Pão</title><meta property=og:title content='Ponte'>", "Pão"),
        ("<!-- <title>velho</title> --><title>novo</title>", "novo"),
        ("<title>sem fim", ""),
        ("<titled>x</titled>", ""),
        (f"<title>{'a' * 9000}</title>", "a" * 500),
    ],
)
def test_read_metadata_title_is_the_first_unescaped(html: str, title: str) -> None:
    assert read_metadata(html).title == title


@pytest.mark.parametrize(
    ("html", "url", "site"),
    [
        ("<meta property='og:site_name' content=' Gazeta  do &Oacute;bidos '>", "https://x.pt/", "Gazeta do Óbidos"),
        ("", "https://www.Exemplo.pt:8080/a?b#c", "exemplo.pt"),
        ("<meta property='og:site_name' content=' '>", "http://um:dois@exemplo.com.br", "exemplo.com.br"),
        ("", "http://[2001:db8::1]:80/", "[2001:db8::1]"),
        ("", "sem endereço", ""),
    ],
)
def test_read_metadata_site_is_its_own_name_else_its_host(html: str, url: str, site: str) -> None:
    assert read_metadata(html, url).site == site


@pytest.mark.parametrize(
    ("html", "language"),
    [
        ("<html lang=pt>", "pt"),
        ("<!doctype html><HTML class='a' LANG='PT_br'>", "pt-BR"),
        ("<html xml:lang='pt-PT'>", "pt-PT"),
        ("<html lang=''><meta http-equiv=Content-Language content='pt-BR, en'>", "pt-BR"),
        ("<html lang='{{ idioma }}'>", ""),
        ("<html lang='português'>", ""),
        ("<p lang=pt>", ""),
        ("<html lang=zh-Hant-tw>", "zh-Hant-TW"),
    ],
)
def test_read_metadata_language_is_a_tag_or_nothing(html: str, language: str) -> None:
    assert read_metadata(html).language == language


def test_host_of_junk_is_empty() -> None:
    assert [host_of(url) for url in ("", "http://", "//exemplo.pt/", "a" * 10_000, "://x")] == [""] * 5


@pytest.mark.parametrize(
    "junk",
    [
        *("<meta ", '<meta "', "<meta a='", "<time datetime=", "<!--", "<title>", "<script>", "<title></title>"),
        *("<meta a=b ", '<script type="application/ld+json">"datePublished" ', "<html lang='"),
        *("<meta name=date content=1 de a", " = "),
    ],
)
def test_read_metadata_of_a_page_full_of_junk_takes_no_time(junk: str) -> None:
    page = junk * (3_000_000 // len(junk))
    clock = time.process_time()
    read_metadata(page)
    assert time.process_time() - clock < 2


def test_read_metadata_of_random_markup_gives_plain_strings() -> None:
    draw = random.Random(7)
    pieces = [
        *("<meta ", "name=", "date", "content=", "'2019-03-05'", '"', "'", ">", "<title>", "</title>", "<!--", "-->"),
        *("<script>", "</script>", "<time ", "datetime=", "\n", "&#0;", "&#xD800;", "ção", "\x00", "<html lang="),
    ]
    for _ in range(2000):
        said = read_metadata("".join(draw.choices(pieces, k=40)), "http://x.pt", FETCHED)
        for claim in (said.title, said.date, said.site, said.language):
            claim.encode("utf-8")
            assert "\n" not in claim
        assert said.date in ("", "2019-03-05")


def test_read_metadata_of_nothing_is_empty() -> None:
    assert read_metadata("") == PageMetadata()
