"""Bytes of a web page to text, when what the server says, what the page says and what it is may all differ.

In: bytes, the charset of the HTTP header (or ""). Out: text and the name of the encoding used.

The rule, in order: a byte-order mark; bytes that are valid UTF-8 are UTF-8, whatever was declared (Windows-1252 prose
that happens to be valid UTF-8 does not occur); the declared encoding, the header's before the page's, if the bytes fit
it; then UTF-8 with single bad bytes read as Windows-1252 if most of its multi-byte sequences are good, else
Windows-1252. ISO-8859-1 means Windows-1252, as in the WHATWG Encoding Standard §4.2.
"""

import codecs
import re

META_BYTES = 4096
META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.\-]{2,40})""", re.IGNORECASE)
XML_ENCODING = re.compile(rb"""<\?xml[^>]{0,100}?encoding\s*=\s*["']([A-Za-z0-9_:.\-]{2,40})""", re.IGNORECASE)
ASCII = bytes(range(0x80))
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# A web page that declares one of these is Windows-1252; Python's own table refuses five bytes that browsers accept.
LATIN = {"iso8859-1", "latin-1", "cp1252", "ascii"}
# Python has these beside the encodings of pages; a page that names one would have its backslashes read as escapes.
NOT_OF_PAGES = {"unicode-escape", "raw-unicode-escape", "utf-7", "charmap", "idna", "punycode", "undefined"}


def decode(data: bytes, header_charset: str = "") -> tuple[str, str]:
    """Text, and the encoding it was read with (Python's name)."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace"), encoding
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    said_by_page = _python_name(meta_charset(data))
    if said_by_page.startswith(("utf-16", "utf-32")):
        said_by_page = ""  # the letters that say so could not be read if it were true
    for encoding in (_python_name(header_charset), said_by_page):
        if encoding and encoding not in LATIN and encoding != "utf-8":
            try:
                return data.decode(encoding), encoding
            except (UnicodeError, LookupError):  # LookupError: a codec that is not of text, such as base64
                continue
        if encoding in LATIN:
            break
    # Counted by translation: a list of 30 million matches would take a gigabyte.
    in_sequences = len(data.decode("utf-8", errors="ignore").encode("utf-8").translate(None, ASCII))
    if 2 * in_sequences > len(data.translate(None, ASCII)):
        return data.decode("utf-8", errors="caravela-cp1252"), "utf-8"
    return windows_1252(data), "cp1252"


def windows_1252(data: bytes) -> str:
    """As browsers read it: the five bytes that the code page leaves open become C1 controls."""
    return data.decode("cp1252", errors="caravela-cp1252")


def meta_charset(data: bytes) -> str:
    """What the page says of itself, in a meta element or an XML declaration; "" if nothing."""
    match = META_CHARSET.search(data, 0, META_BYTES) or XML_ENCODING.search(data, 0, META_BYTES)
    return match[1].decode("ascii") if match else ""


def header_charset(content_type: str) -> str:
    """``header_charset('text/html; charset="utf-8"') == "utf-8"``."""
    match = re.search(r"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.\-]{2,40})""", content_type, re.IGNORECASE)
    return match[1] if match else ""


def _python_name(declared: str) -> str:
    """The codec that a declaration means; "" if none, or none that pages are in."""
    try:
        name = codecs.lookup(declared).name
    except LookupError:
        return ""
    return "" if name.replace("_", "-") in NOT_OF_PAGES else name


def _bad_bytes_as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError), f"registered for decoding only, got {error!r}"
    bad = error.object[error.start : error.end]
    return "".join(
        bytes([b]).decode("cp1252") if b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(b) for b in bad
    ), error.end


codecs.register_error("caravela-cp1252", _bad_bytes_as_windows_1252)
