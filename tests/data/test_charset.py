"""Decoding of pages whose declared and true encodings differ."""

import pytest

from caravela.data import charset

TEXT = "<html><body>Não há promoção: a maçã está à venda por 3 € na praça — “hoje”.</body></html>"


def page(encoding: str, declared: str) -> bytes:
    return f'<meta charset="{declared}">'.encode() + TEXT.encode(encoding)


@pytest.mark.parametrize("declared", ["utf-8", "iso-8859-1", "windows-1252", "", "no-such-charset"])
@pytest.mark.parametrize("header", ["utf-8", "ISO-8859-1", ""])
@pytest.mark.parametrize("true", ["utf-8", "cp1252"])
def test_decode_western_page_whatever_is_declared_gives_its_text(true: str, header: str, declared: str) -> None:
    text, encoding = charset.decode(page(true, declared), header)
    assert TEXT in text
    assert encoding == true


def test_decode_iso_8859_1_bytes_that_are_windows_1252_become_quotes() -> None:
    assert charset.decode("“ção”".encode("cp1252"), "iso-8859-1")[0] == "“ção”"


def test_decode_utf8_with_one_bad_byte_keeps_the_rest() -> None:
    data = TEXT.encode() + b" \xe7 " + TEXT.encode()
    assert charset.decode(data, "")[0] == f"{TEXT} ç {TEXT}"


def test_decode_other_declared_charset_is_used() -> None:
    assert charset.decode("Привет, мир".encode("koi8-r"), "koi8-r") == ("Привет, мир", "koi8-r")


def test_decode_byte_order_mark_wins() -> None:
    assert charset.decode("\ufeffolá".encode("utf-16-le"), "utf-8")[0] == "olá"


def test_decode_every_byte_string_gives_text() -> None:
    every = bytes(range(256))
    for header in ("utf-8", "ascii", "latin-1", "utf-16", "base64", "idna", "punycode", "rot13"):
        assert isinstance(charset.decode(every, header)[0], str)
