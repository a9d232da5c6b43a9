"""A web page to the text a person reads, with its encoding mended.

In: a page's bytes and what is known of it (``Page``). Out: ``Extraction``: text (one block a line), title, date, site,
or the reason why there is no text. Here it takes as long as it takes, in the process that calls;
``caravela.data.extract_process`` does the same work within limits of time and memory.

Two extractors find the main text. trafilatura gives text for more pages, at about 50 pages/s on one core, the dearest
part of curation; resiliparse is three times as fast (``benchmarks/extraction.py``).
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import ftfy
import trafilatura
from lxml import etree

from caravela.config import ConfigError
from caravela.data import charset
from caravela.data.page_metadata import read_metadata

# UTF-8 read as Windows-1252 leaves such pairs; text without them is not worth ftfy's 2 MB/s.
MOJIBAKE = re.compile("[ÃÂâ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹Œ\u2018\u2019\u201c\u201d•–—˜™š›œžŸ]")
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
# What &#150; becomes, which is a dash in every browser.
HIGH_CONTROLS = re.compile("[\x80-\x9f]")
REPAIRS = ftfy.TextFixerConfig(
    unescape_html=False, fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False, explain=False
)
WHITE_SPACE = re.compile(r"[^\S\n]+")
LEAST_MEMORY_MB = 256


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """How HTML becomes text."""

    extractor: Literal["trafilatura", "resiliparse"] = "trafilatura"
    """What finds the main text: trafilatura loses fewer pages, resiliparse is three times as fast."""
    mode: Literal["precision", "balanced", "recall"] = "precision"
    """The trade between leaving menus out and keeping all of the article; with resiliparse recall is the whole page."""
    max_html_bytes: int = 8 << 20
    """Larger pages are set aside: nothing of that size is prose, and parsing costs 50 times the bytes in memory."""
    time_limit_seconds: float = 10.0
    """CPU seconds that a page may take before it is set aside: hundreds of times the median, so that a slow machine
    decides nothing; and if one page in 100,000 is stuck, that costs one hundredth. 0: no limits, no process of its
    own."""
    memory_limit_mb: int = 2048
    """What the process that parses may take before the page is set aside: five times what max_html_bytes costs."""

    def __post_init__(self) -> None:
        if self.max_html_bytes < 1:
            raise ConfigError(f"max_html_bytes = {self.max_html_bytes}: expected 1 or more")
        if self.time_limit_seconds != 0 and not 0.05 <= self.time_limit_seconds <= 3600:
            raise ConfigError(
                f"time_limit_seconds = {self.time_limit_seconds}: expected 0.05 to 3600, or 0 for no limits"
            )
        if self.memory_limit_mb < LEAST_MEMORY_MB:
            raise ConfigError(
                f"memory_limit_mb = {self.memory_limit_mb}: expected {LEAST_MEMORY_MB} or more; the libraries alone "
                "take half of that"
            )


class Page(NamedTuple):
    """What is to be extracted, and what helps."""

    html: bytes
    header_charset: str = ""
    """As its server named it; "" if it did not."""
    url: str = ""
    """Gives the site's name where the page does not."""
    fetched: str = ""
    """When it was fetched (anything that begins with a day); a page is not younger."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """``reason`` is empty where ``text`` is not."""

    text: str = ""
    title: str = ""
    encoding: str = ""
    reason: str = ""
    """``too_large``, ``unparseable``, ``no_text``; from a process with limits also ``timeout``, ``crashed`` and
    ``out_of_memory``."""
    date: str = ""
    """Of publication, YYYY-MM-DD, as the page says."""
    site: str = ""
    """The site's name for itself, else its host."""
    declared_language: str = ""
    """As ``pt-BR``; what a page declares proves nothing."""


def extract(html: bytes, header_charset: str, config: ExtractConfig, *, url: str = "", fetched: str = "") -> Extraction:
    """The main text of a page, or why there is none: ``too_large``, ``unparseable``, ``no_text``."""
    if len(html) > config.max_html_bytes:
        return Extraction(reason="too_large")
    page, encoding = charset.decode(html, header_charset)
    page = page.replace("\x00", "")
    try:
        text = MAIN_TEXT[config.extractor](page, config.mode)
    except (
        etree.LxmlError,
        RecursionError,
        ValueError,
        AttributeError,
        TypeError,
    ):  # what odd pages were seen to raise
        return Extraction(encoding=encoding, reason="unparseable")
    if HIGH_CONTROLS.search(text):
        text = HIGH_CONTROLS.sub("", ftfy.fixes.fix_c1_controls(text))
    text = clean(text)
    if not text.strip():
        return Extraction(encoding=encoding, reason="no_text")
    said = read_metadata(page, url, fetched)
    return Extraction(
        text=text,
        title=clean(said.title),
        encoding=encoding,
        date=said.date,
        site=clean(said.site),
        declared_language=said.language,
    )


def clean(text: str) -> str:
    """Mojibake mended, Unicode NFC, control characters removed. Returns text as it is where nothing is wrong."""
    if MOJIBAKE.search(text):
        text = ftfy.fix_encoding(text, REPAIRS)
    return unicodedata.normalize("NFC", CONTROLS.sub("", text))


def _by_trafilatura(page: str, mode: str) -> str:
    found: str | None = trafilatura.extract(
        page,
        favor_precision=mode == "precision",
        favor_recall=mode == "recall",
        include_comments=False,
        include_tables=True,
        deduplicate=False,
        with_metadata=False,
    )
    return found or ""


def _by_resiliparse(page: str, mode: str) -> str:
    # Loaded for those alone who choose it.
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(page)
    if mode != "recall":
        _keep_lists_of_prose(tree)
    text = extract_plain_text(
        tree,
        main_content=mode != "recall",
        post_meta=mode != "precision",
        comments=False,
        preserve_formatting=True,
        list_bullets=False,
        alt_texts=False,
    )
    lines = (line.strip() for line in WHITE_SPACE.sub(" ", text).split("\n"))
    return "\n".join(line for line in lines if line)


def _keep_lists_of_prose(tree: Any) -> None:
    """Makes <ol> of each <ul> of which less than half is links.

    resiliparse takes every <ul> for a menu and leaves it out of the main text: the ingredients of a recipe, the clauses
    of a law. It leaves numbered lists in.
    """
    for bulleted in tree.document.query_selector_all("ul"):
        linked = sum(len(link.text) for link in bulleted.query_selector_all("a"))
        if 2 * linked < len(bulleted.text):
            numbered = tree.create_element("ol")
            for name in ("class", "id"):
                numbered.set_attribute(name, bulleted.get_attribute(name, ""))
            numbered.append(*bulleted.child_nodes)
            bulleted.replace_with(numbered)


MAIN_TEXT = {"trafilatura": _by_trafilatura, "resiliparse": _by_resiliparse}
