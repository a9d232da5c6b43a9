"""HTML pages: a main text set in the furniture of a site.

In: a site (host, template), a page (title, main HTML, date), and a random generator for what varies between pages.
Out: one HTML string. Templates are the files of ``templates/``, with ``$names``; the words of menus, cookie notices,
adverts, comments and footers are in ``furniture.toml``, in the language of the site.
"""

import datetime
import functools
import html
import html.entities
import random
import re
import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

INLINE_TAGS = ("strong", "em", "a")
INLINE_SHARE = 0.3
OLD_TEMPLATES = frozenset({"office", "print", "tables"})
NAMED_ENTITIES = {code: f"&{name};" for code, name in html.entities.codepoint2name.items() if code > 127}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A host that publishes pages of some registers in one design and one language."""

    host: str
    name: str
    template: str
    locale: str
    registers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a template needs beside the site's own words."""

    url: str
    title: str
    main: str
    """HTML of the main part."""
    date: datetime.date
    declared_language: str | None
    """The ``lang`` of the document; None where the page says nothing."""
    others: Sequence[str]
    """Titles of other pages, for the related and most-read lists."""


@functools.cache
def load_toml(name: str) -> Mapping[str, Any]:
    """A data file of this package."""
    return tomllib.loads((resources.files(__package__) / name).read_text(encoding="utf-8"))


@functools.cache
def load_sites() -> tuple[Site, ...]:
    """All sites, in the order of the file."""
    return tuple(
        Site(locale=locale, **{**site, "registers": tuple(site["registers"])})
        for locale, furniture in load_toml("furniture.toml").items()
        for site in furniture["sites"]
    )


@functools.cache
def _template(name: str) -> string.Template:
    return string.Template((resources.files(__package__) / "templates" / f"{name}.html").read_text(encoding="utf-8"))


def paragraphs_html(paragraphs: Sequence[str], site: Site, rng: random.Random) -> str:
    """Paragraphs as the site's editor makes them: ``<p>`` or ``<br>``, a word here and there in bold or a link.

    The portal and the blog put an advert after the second paragraph.
    """
    blocks = [_with_inline_tag(html.escape(p, quote=False), rng) for p in paragraphs]
    if site.template in OLD_TEMPLATES:
        return "<br><br>\n".join(blocks)
    blocks = [f"<p>{block}</p>" for block in blocks]
    if site.template in ("portal", "blog") and len(blocks) > 2:
        words = load_toml("furniture.toml")[site.locale]
        name = "publicidade" if site.template == "portal" else "ad-box"
        advert = html.escape(rng.choice(words["adverts"]))
        blocks.insert(2, f'<aside class="{name}"><small>{words["advert"]}</small> {advert}</aside>')
    return "\n".join(blocks)


def _with_inline_tag(block: str, rng: random.Random) -> str:
    """Marks up one word of about a third of the paragraphs; the text stays as it was."""
    words = list(re.finditer(r"(?<= )[^\W\d_]{4,}(?= )", block))
    if not words or rng.random() > INLINE_SHARE:
        return block
    word, tag = rng.choice(words), rng.choice(INLINE_TAGS)
    attribute = f' href="/tema/{rng.randrange(1000)}"' if tag == "a" else ""
    return f"{block[: word.start()]}<{tag}{attribute}>{word.group()}</{tag}>{block[word.end() :]}"


def list_html(items: Iterable[str]) -> str:
    """Every item a link in a list."""
    return "<ul>\n" + "\n".join(f"<li>{_link(item)}</li>" for item in items) + "\n</ul>"


def table_html(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells; the first row is the head."""
    head, *body = rows
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in body]
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def named_entities(page: str) -> str:
    """The page as old editors saved it: ``&ccedil;&atilde;o``."""
    return page.translate(NAMED_ENTITIES)


def render(site: Site, page: Page, meta_charset: str | None, rng: random.Random) -> str:
    """The whole page."""
    words = load_toml("furniture.toml")[site.locale]
    others = [html.escape(title, quote=False) for title in page.others]
    half = len(others) // 2
    month = words["months"][page.date.month - 1]
    section = rng.choice(words["categories"])
    adverts = rng.sample(words["adverts"], 2)
    values = {
        "lang": f' lang="{page.declared_language}"' if page.declared_language else "",
        "charset": _charset_tag(site, meta_charset),
        "title": html.escape(page.title, quote=False),
        "main": page.main,
        "url": page.url,
        "site": html.escape(site.name),
        "section": section.lower().split()[0],
        "section_name": section,
        "author": rng.choice(words["authors"]),
        "date": f"{page.date.day} {month} {page.date.year}",
        "iso_date": page.date.isoformat(),
        "year": str(page.date.year),
        "views": str(rng.randrange(20, 20000)),
        "price": f"{words['currency']} {rng.randrange(19, 1900)},{rng.choice(['00', '90', '99'])}",
        "nav": _items(words["nav"]),
        "nav_links": " ".join(map(_link, words["nav"])),
        "related_items": _items(others[:half]),
        "most_read_items": _items(others[half:]),
        "toc": _items([page.title, words["related"], words["tags"]]),
        "share": _items(words["share"]),
        "share_links": " | ".join(map(_link, words["share"])),
        "share_last": words["share"][-1],
        "tags": ", ".join(map(_link, rng.sample(words["categories"], 3))),
        "tags_title": words["tags"],
        "archive_items": _items([f"{name} {page.date.year}" for name in rng.sample(words["months"], 5)]),
        "comments": _comments(words, rng),
        "comments_title": words["comments"],
        "review_items": "".join(f"<li>★★★★ {html.escape(text)}</li>" for text in words["review_texts"]),
        "footer": " | ".join(map(_link, words["footer"])),
        "footer_items": _items(words["footer"]),
        "cookie_buttons": " ".join(f"<button>{label}</button>" for label in words["cookie_buttons"]),
        "advert_1": html.escape(adverts[0]),
        "advert_2": html.escape(adverts[1]),
    }
    plain = {key: html.escape(value) for key, value in words.items() if isinstance(value, str)}
    return _template(site.template).substitute({**plain, **values})


def _charset_tag(site: Site, charset: str | None) -> str:
    if charset is None:
        return ""
    if site.template in OLD_TEMPLATES:
        return f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">\n'
    return f'<meta charset="{charset}">\n'


def _link(label: str) -> str:
    return f'<a href="/{re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")}">{label}</a>'


def _items(labels: Iterable[str]) -> str:
    return "".join(f"<li>{_link(label)}</li>" for label in labels)


def _comments(words: Mapping[str, Any], rng: random.Random) -> str:
    texts = rng.sample(words["comment_texts"], rng.randrange(1, 4))
    return "\n".join(
        f'<div class="comment"><b class="comment-author">{rng.choice(words["comment_authors"])}</b>'
        f'<p>{html.escape(text)}</p><a class="reply" href="#respond">{words["reply"]}</a></div>'
        for text in texts
    )
