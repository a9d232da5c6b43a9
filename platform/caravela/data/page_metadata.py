"""What a page says of itself: title, date, site and language.

In: the text of an HTML page, its URL and when it was fetched. Out: ``PageMetadata``; "" for what is not there. The
first 256 K characters are scanned once by tags, in bounded steps, without a tree. Price: 0.1 to 0.5 ms a page, where
trafilatura's own metadata take as long as its text.

All of it is what the author or the site's software claims. A date is kept if it is one: it exists, it is no default
of some software, and it is not after the page was fetched. It is the day as written, in whatever time zone that was.
"""

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ftfy import fixes

HEAD_CHARS = 1 << 18
"""Beyond this nothing is looked for; heads are a tenth of it."""
TAG_CHARS = 2000
MAX_TAGS = 2000
TITLE_CHARS = 500
TAG = re.compile(r"<(!--|(?:html|meta|title|script|style|body|time)(?=[\s/>]))", re.IGNORECASE)
ATTRIBUTE = re.compile(r"""[\s/]*([^\s=>"'/]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?""")
ENDS = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("title", "script", "style")}
LANGUAGE = re.compile(r"\s*([A-Za-z]{2,3})((?:[-_][A-Za-z0-9]{2,8}){0,3})\s*(?:,|$)")
HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(\[[^\]/?#]*\]|[^/?#:]+)")
LINKED_DATA_DATE = re.compile(r'"datePublished"\s{0,9}:\s{0,9}"([^"]{6,60})"')
# Names of meta elements for the day of publication, the surest first. Days of change are not taken.
DATE_NAMES = (
    "article:published_time",
    "datepublished",
    "og:published_time",
    "citation_publication_date",
    "citation_date",
    "dcterms.issued",
    "dc.date.issued",
    "dcterms.created",
    "dc.date.created",
    "dcterms.date",
    "dc.date",
    "publication_date",
    "publishdate",
    "publish-date",
    "pubdate",
    "sailthru.date",
    "parsely-pub-date",
    "created",
    "date",
)
SITE_NAMES = ("og:site_name", "application-name")
YEAR_FIRST = re.compile(r"\s*([12][0-9]{3})([-/.])([0-9]{1,2})\2([0-9]{1,2})(?![0-9])")
COMPACT = re.compile(r"\s*([12][0-9]{3})([0-9]{2})([0-9]{2})(?:[0-9]{4}(?:[0-9]{2})?)?(?![0-9])")
DAY_FIRST = re.compile(r"\s*([0-9]{1,2})([-/.])([0-9]{1,2})\2([12][0-9]{3})(?![0-9])")
DAY_AND_WORD = re.compile(
    r"\b([0-9]{1,2})(?:º|°|st|nd|rd|th)?[\s-]+(?:de\s+)?([a-zç]{3,10})\.?,?[\s-]+(?:de\s+)?([12][0-9]{3})\b"
)
WORD_AND_DAY = re.compile(r"\b([a-z]{3,10})\.?\s+([0-9]{1,2})(?:st|nd|rd|th)?,?\s+([12][0-9]{3})\b")
MONTHS = {
    name: 1 + number
    for number, names in enumerate(
        "jan fev/feb mar abr/apr mai/may jun jul ago/aug set/sep out/oct nov dez/dec".split()
    )
    for name in names.split("/")
}
OLDEST_YEAR = 1500
DEFAULTS = {datetime.date(1970, 1, 1), datetime.date(1969, 12, 31), datetime.date(1900, 1, 1)}
"""What software writes where it knows no date."""


@dataclass(frozen=True, slots=True)
class PageMetadata:
    """Empty strings where the page says nothing."""

    title: str = ""
    date: str = ""
    """Of publication, as YYYY-MM-DD."""
    site: str = ""
    """The site's own name for itself, else its host."""
    language: str = ""
    """As the page declares it (``pt-BR``), which proves nothing."""


@dataclass(slots=True)
class _Found:
    """What the scan gathers; of several the first."""

    metas: dict[str, str] = field(default_factory=dict)
    title: str = ""
    language: str = ""
    linked_data_date: str = ""
    marked_time: str = ""
    first_time: str = ""

    def dates(self) -> Iterator[str]:
        """Every claim, the surest first."""
        yield from (self.metas[name] for name in DATE_NAMES if name in self.metas)
        yield from (self.linked_data_date, self.marked_time, self.first_time)


def read_metadata(page: str, url: str = "", fetched: str = "") -> PageMetadata:
    """What the page claims; its date only if it is not after ``fetched``, where that is known."""
    found = _scan(page, parse_date(fetched))
    site = next((name for key in SITE_NAMES if (name := _plain(found.metas.get(key, "")))), "") or host_of(url)
    return PageMetadata(
        title=_plain(found.title) or _plain(found.metas.get("og:title", "")),
        date=_first_date(found, parse_date(fetched)),
        site=site[:TITLE_CHARS],
        language=_language(found.language) or _language(found.metas.get("content-language", "")),
    )


def parse_date(claim: str, latest: str = "") -> str:
    """``parse_date("5 de março de 2019") == "2019-03-05"``; "" for what is no day, or one after ``latest``.

    Of two numbers before a year the day is the first, as in Portuguese, unless only the second can be a day.
    """
    claim = claim[:100].lower()
    if match := YEAR_FIRST.match(claim):
        day = _day(match[1], match[3], match[4])
    elif match := COMPACT.match(claim):
        day = _day(match[1], match[2], match[3])
    elif match := DAY_FIRST.match(claim):
        day = _day(match[4], match[3], match[1]) or _day(match[4], match[1], match[3])
    elif match := DAY_AND_WORD.search(claim):
        day = _day(match[3], match[2], match[1])
    elif match := WORD_AND_DAY.search(claim):
        day = _day(match[3], match[1], match[2])
    else:
        return ""
    if day is None or day.year < OLDEST_YEAR or day in DEFAULTS:
        return ""
    # A day's grace: it may be tomorrow already where the page was written.
    if latest and day > datetime.date.fromisoformat(latest) + datetime.timedelta(days=1):
        return ""
    return day.isoformat()


def host_of(url: str) -> str:
    """``host_of("https://www.exemplo.pt:80/a") == "exemplo.pt"``."""
    match = HOST.match(url)
    return match[1].lower().strip(".").removeprefix("www.") if match else ""


def _scan(page: str, latest: str) -> _Found:
    found, position, end = _Found(), 0, min(len(page), HEAD_CHARS)
    for _ in range(MAX_TAGS):
        tag = TAG.search(page, position, end)
        if tag is None:
            break
        name, position = tag[1].lower(), tag.end()
        if name == "!--":
            closed = page.find("-->", position, end)
            if closed < 0:
                break
            position = closed
        elif name in ENDS:
            closing = ENDS[name].search(page, position, end)
            if closing is None:
                break
            if name == "title":
                found.title = found.title or page[position : closing.start()].partition(">")[2]
            elif name == "script" and "ld+json" in page[position : position + 200] and not found.linked_data_date:
                date = LINKED_DATA_DATE.search(page, position, closing.start())
                found.linked_data_date = date[1] if date else ""
            position = closing.end()
        elif name == "body":
            if _first_date(found, latest):
                break  # nothing else is looked for in the body
        else:
            _take(found, name, _attributes(page[position : position + TAG_CHARS]))
    return found


def _take(found: _Found, name: str, attributes: dict[str, str]) -> None:
    if name == "html":
        found.language = found.language or attributes.get("lang") or attributes.get("xml:lang", "")
    elif name == "meta":
        content = attributes.get("content", "")
        for key in ("property", "name", "itemprop", "http-equiv"):
            if content and key in attributes:
                found.metas.setdefault(attributes[key].strip().lower(), content)
    elif "datetime" in attributes:
        found.first_time = found.first_time or attributes["datetime"]
        if "pubdate" in attributes or attributes.get("itemprop", "").lower() == "datepublished":
            found.marked_time = found.marked_time or attributes["datetime"]


def _attributes(tag: str) -> dict[str, str]:
    """Of a tag that begins behind its name; of two of a name the first counts, as in browsers."""
    attributes: dict[str, str] = {}
    position = 0
    while match := ATTRIBUTE.match(tag, position):
        attributes.setdefault(match[1].lower(), match[2] or match[3] or match[4] or "")
        position = match.end()
    return attributes


def _first_date(found: _Found, latest: str) -> str:
    return next((date for claim in found.dates() if (date := parse_date(claim, latest))), "")


def _day(year: str, month: str, day: str) -> datetime.date | None:
    number = MONTHS.get(month[:3], 0) if month.isalpha() else int(month)
    try:
        return datetime.date(int(year), number, int(day))
    except ValueError:
        return None


def _plain(claim: str) -> str:
    """Without entities and line breaks, and not longer than a title is."""
    return " ".join(fixes.unescape_html(claim[: 4 * TITLE_CHARS]).split())[:TITLE_CHARS]


def _language(claim: str) -> str:
    """``_language("pt_br") == "pt-BR"``; "" for what is no language tag."""
    match = LANGUAGE.match(claim[:100])
    if match is None:
        return ""
    parts = match[2].replace("_", "-").split("-")[1:]
    return "-".join([match[1].lower(), *(part.upper() if len(part) == 2 else part for part in parts)])
