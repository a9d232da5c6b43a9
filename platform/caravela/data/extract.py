"""A web page to the text a person reads, with its encoding mended.

In: the bytes of an HTML page and the charset its server named. Out: ``Extraction``: text (paragraphs by line), title,
or the reason why there is none. trafilatura finds the main text; favouring precision loses some text and keeps menus
out. Price: about 100 pages/s on one core, the dearest part of curation.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

import ftfy
import trafilatura
from lxml import etree

from caravela.data import charset

# UTF-8 read as Windows-1252 leaves such pairs; text without them is not worth ftfy's 2 MB/s.
MOJIBAKE = re.compile("[ÃÂâ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹Œ\u2018\u2019\u201c\u201d•–—˜™š›œžŸ]")
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
REPAIRS = ftfy.TextFixerConfig(
    unescape_html=False, fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False, explain=False
)


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """How HTML becomes text."""

    mode: Literal["precision", "balanced", "recall"] = "precision"
    """trafilatura's trade between leaving menus out and keeping all of the article."""
    max_html_bytes: int = 8 << 20
    """Larger pages are set aside: nothing of that size is prose, and parsing costs 50 times the bytes in memory."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """``reason`` is empty where ``text`` is not."""

    text: str = ""
    title: str = ""
    encoding: str = ""
    reason: str = ""


def extract(html: bytes, header_charset: str, config: ExtractConfig) -> Extraction:
    """The main text of a page, or why there is none: ``too_large``, ``unparseable``, ``no_text``."""
    if len(html) > config.max_html_bytes:
        return Extraction(reason="too_large")
    page, encoding = charset.decode(html, header_charset)
    page = page.replace("\x00", "")
    try:
        text = trafilatura.extract(
            page,
            favor_precision=config.mode == "precision",
            favor_recall=config.mode == "recall",
            include_comments=False,
            include_tables=True,
            deduplicate=False,
            with_metadata=False,
        )
    except (
        etree.LxmlError,
        RecursionError,
        ValueError,
        AttributeError,
        TypeError,
    ):  # what odd pages were seen to raise
        return Extraction(encoding=encoding, reason="unparseable")
    if not text or not text.strip():
        return Extraction(encoding=encoding, reason="no_text")
    return Extraction(text=clean(text), title=clean(_title(page)), encoding=encoding)


def clean(text: str) -> str:
    """Mojibake mended, Unicode NFC, control characters removed. Returns text as it is where nothing is wrong."""
    if MOJIBAKE.search(text):
        text = ftfy.fix_encoding(text, REPAIRS)
    return unicodedata.normalize("NFC", CONTROLS.sub("", text))


def _title(page: str) -> str:
    match = TITLE.search(page, 0, 200_000)
    return " ".join(ftfy.fixes.unescape_html(match[1]).split())[:500] if match else ""
