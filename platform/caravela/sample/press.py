"""Drafts become records: a site, a URL, a charset, an HTTP response, and the label that tells the truth about them.

Charsets and body encodings are dealt from a wheel, so that every seed has each of them about as often; what else
varies on a page is drawn from a generator of its own, so that a page does not change when another one is added.
"""

import dataclasses
import datetime
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import format_datetime
from typing import NamedTuple

from caravela.sample.noise import Draft
from caravela.sample.page import (
    Page,
    Site,
    list_html,
    load_sites,
    load_toml,
    named_entities,
    paragraphs_html,
    render,
    table_html,
)
from caravela.sample.texts import load_texts
from caravela.sample.warc import WarcWriter, date_of, http_response

FIRST_PAGE, LAST_PAGE = datetime.date(2019, 1, 1), datetime.date(2026, 11, 20)
SERVERS = ("nginx", "Apache/2.4.62", "cloud-front-end", "Microsoft-IIS/10.0")
WRONG_LANGUAGE = {"pt-BR": "en-US", "pt-PT": "pt-BR", "es": "en"}
ENTITY_SHARE = 0.08
UNREADABLE = ("broken", "truncated")


class Charset(NamedTuple):
    """How a page is encoded, and what the HTTP header and the meta tag say of it."""

    true: str
    header: str | None
    meta: str | None


UTF_8, LATIN_1, WINDOWS = "utf-8", "iso-8859-1", "windows-1252"
# One turn of the wheel that pages are dealt from: 27 pages, of which 5 declare a wrong charset and 4 none at all.
CHARSETS = (
    *[Charset(UTF_8, UTF_8, UTF_8)] * 8,
    *[Charset(UTF_8, UTF_8, None)] * 3,
    *[Charset(UTF_8, None, UTF_8)] * 3,
    *[Charset(UTF_8, None, None)] * 2,
    Charset(UTF_8, LATIN_1, None),
    Charset(UTF_8, LATIN_1, UTF_8),
    Charset(LATIN_1, LATIN_1, None),
    Charset(LATIN_1, None, LATIN_1),
    Charset(LATIN_1, None, None),
    Charset(LATIN_1, UTF_8, None),
    Charset(WINDOWS, WINDOWS, None),
    Charset(WINDOWS, None, WINDOWS),
    Charset(WINDOWS, LATIN_1, None),
    Charset(WINDOWS, None, None),
    Charset(WINDOWS, UTF_8, WINDOWS),
)
NO_CHARSET = Charset("", None, None)
# Every so many pages, the body goes over the wire in one of these ways.
BODY_ENCODINGS = (("gzip",), ("chunked",), ("gzip",), ("chunked",), ("gzip", "chunked"))
ENCODED_EVERY = 24
NO_ENCODINGS: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Label:
    """The truth about one response record."""

    record_id: str
    """WARC-Record-ID, which is the document's id downstream."""
    url: str
    file: str
    kind: str
    """text, near_duplicate, mirror, or the kind of junk."""
    language: str | None
    variant: str | None
    """pt-BR or pt-PT; null for other languages and for junk without sentences."""
    register: str | None
    charset: str | None
    """What the bytes are in."""
    declared_charset: str | None
    """What the HTTP header says, or else the meta tag."""
    body_encodings: tuple[str, ...]
    status: int
    cluster: str | None
    """The key of the text that this page and its copies come from."""
    jaccard: float | None
    """Similarity to that text: 1.0 for its own page and for mirrors."""
    recipe: str | None
    """How a near-duplicate was made."""
    keep: bool
    """Whether a perfect pipeline keeps it before deduplication."""
    junk_reason: str | None
    personal_data: Mapping[str, int]
    """Number of items per kind; empty for decoys."""
    title: str | None
    text: str | None
    """What perfect extraction gives: the main text, a paragraph a line, without the title."""


class Press:
    """Turns drafts into records, one after the other, and remembers the URLs that are taken."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.urls: set[str] = set()
        self.fetches = 0
        self.pages = 0
        self.wheel = list(CHARSETS)
        random.Random(f"{seed}/charsets").shuffle(self.wheel)

    def write(self, draft: Draft, writer: WarcWriter, file: str) -> Label:
        """Writes one draft and gives its label."""
        rng = random.Random(f"{self.seed}/{draft.key}")
        site = _site_of(draft, self.seed)
        date = FIRST_PAGE + datetime.timedelta(days=rng.randrange((LAST_PAGE - FIRST_PAGE).days))
        url = self._url(site, draft, date, rng)
        charset, encodings = NO_CHARSET, NO_ENCODINGS
        if draft.raw is None:
            charset, encodings = self._turn_of_the_wheel()
            draft = _typeset(draft) if charset.true == WINDOWS else draft
            body = _encoded_page(draft, site, url, date, charset, rng)
        else:
            body = draft.raw
        response = http_response(draft.status, _headers(draft, url, charset, self.fetches, rng), body, encodings)
        if draft.kind == "broken":
            response = response.replace(b"HTTP/1.1 200 OK\r\nDate: ", b"\x16\x03TTP 2x0\r\nDate ", 1)
        identity = writer.write_fetch(self.fetches, url, response, truncate=draft.kind == "truncated")
        self.fetches += 1
        return _label(draft, identity, url, file, charset, encodings)

    def _turn_of_the_wheel(self) -> tuple[Charset, tuple[str, ...]]:
        turn, self.pages = self.pages, self.pages + 1
        encodings = NO_ENCODINGS
        if turn % ENCODED_EVERY == ENCODED_EVERY - 1:
            encodings = BODY_ENCODINGS[turn // ENCODED_EVERY % len(BODY_ENCODINGS)]
        return self.wheel[turn % len(self.wheel)], encodings

    def _url(self, site: Site, draft: Draft, date: datetime.date, rng: random.Random) -> str:
        """A URL in the manner of the site, free of clashes."""
        slug = draft.key.partition("#")[0].rpartition("/")[2]
        number = rng.randrange(1000, 99999)
        path = {
            "portal": f"noticia/{date:%Y/%m}/{slug}.html",
            "magazine": slug,
            "blog": f"{date:%Y/%m}/{slug}/",
            "wiki": f"wiki/{slug.capitalize().replace('-', '_')}",
            "shop": f"produto/{slug}-{number}",
            "office": f"texto.php?id={number}",
            "tables": f"prefeituras/ler.asp?cod={number}",
            "forum": f"viewtopic.php?f={number % 9}&t={number}",
            "print": f"imprimir/{date:%Y%m%d}/{slug}",
        }[site.template]
        if draft.raw is not None:
            path = slug
        scheme = "http" if site.template in ("office", "tables", "forum") else "https"
        url, n = f"{scheme}://{site.host}/{path}", 2
        while url in self.urls:
            url, n = f"{scheme}://{site.host}/{path}{'&' if '?' in path else '?'}v={n}", n + 1
        self.urls.add(url)
        return url


def _site_of(draft: Draft, seed: int) -> Site:
    """A text's own page stands on a site that publishes its register; a copy on another site; junk on any."""
    sites = [site for site in load_sites() if site.locale == draft.locale]
    if draft.kind == "text":
        sites = [site for site in sites if draft.register in site.registers]
        return random.Random(f"{seed}/{draft.key}/site").choice(sites)
    if draft.cluster is not None:
        home = _site_of(dataclasses.replace(draft, kind="text", key=draft.cluster), seed)
        sites = [s for s in sites if s != home and (s.template != "shop" or draft.register == "shop")]
    return random.Random(f"{seed}/{draft.key}/site").choice(sites)


def _typeset(draft: Draft) -> Draft:
    """Curly quotes, dashes and ellipses, as word processors leave them in Windows-1252 pages."""
    changed = []
    for paragraph in draft.paragraphs:
        paragraph = re.sub(r'"([^"]*)"', r"“\1”", paragraph).replace("...", "…").replace(" - ", " – ")
        changed.append(paragraph.replace("'", "’"))
    return dataclasses.replace(draft, paragraphs=tuple(changed))


def _encoded_page(
    draft: Draft, site: Site, url: str, date: datetime.date, charset: Charset, rng: random.Random
) -> bytes:
    """The page's bytes; characters that the charset lacks become numeric references."""
    others = [text.title for text in load_texts() if text.locale == site.locale and text.title != draft.title]
    language: str | None = load_toml("furniture.toml")[site.locale]["lang"]
    chance = rng.random()
    if chance < 0.1:
        language = None
    elif chance < 0.2:
        language = WRONG_LANGUAGE.get(site.locale, "pt-BR")
    page = Page(
        url=url,
        title=draft.title,
        main=_main_html(draft, site, rng),
        date=date,
        declared_language=language,
        others=rng.sample(others, min(8, len(others))),
    )
    content = render(site, page, charset.meta, rng)
    if rng.random() < ENTITY_SHARE:
        content = named_entities(content)
    return content.encode(charset.true, "xmlcharrefreplace")


def _main_html(draft: Draft, site: Site, rng: random.Random) -> str:
    if draft.layout == "list":
        return list_html(draft.paragraphs)
    if draft.layout == "table":
        return table_html([row.split("\t") for row in draft.paragraphs])
    return paragraphs_html(draft.paragraphs, site, rng)


def _headers(draft: Draft, url: str, charset: Charset, fetch: int, rng: random.Random) -> dict[str, str]:
    name = charset.header if charset.header is None or rng.random() < 0.5 else charset.header.upper()
    headers = {
        "Date": format_datetime(date_of(fetch), usegmt=True),
        "Server": rng.choice(SERVERS),
        "Content-Type": draft.content_type if name is None else f"{draft.content_type}; charset={name}",
    }
    if draft.status == 301:
        headers["Location"] = url.rpartition("/")[0] + "/"
    return headers


def _label(draft: Draft, identity: str, url: str, file: str, charset: Charset, encodings: Sequence[str]) -> Label:
    readable = draft.raw is None and draft.kind not in UNREADABLE
    language = draft.locale.partition("-")[0] if draft.raw is None else None
    return Label(
        record_id=identity,
        url=url,
        file=file,
        kind=draft.kind,
        language=language,
        variant=draft.locale if language == "pt" and draft.register else None,
        register=draft.register,
        charset=charset.true or None,
        declared_charset=charset.header or charset.meta,
        body_encodings=tuple(encodings),
        status=draft.status,
        cluster=draft.cluster,
        jaccard=None if draft.jaccard is None else round(draft.jaccard, 6),
        recipe=draft.recipe,
        keep=draft.junk_reason is None,
        junk_reason=draft.junk_reason,
        personal_data=draft.personal_data,
        title=draft.title or None,
        text="\n".join(line.replace("\t", " ") for line in draft.paragraphs) if readable else None,
    )
