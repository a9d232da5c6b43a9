"""What a crawl brings home beside texts: spam, link lists, repeated lines, stubs, tables, error pages, other formats.

Out: drafts, that is pages before they have a site, an encoding and a record. Everything is drawn from a seed; the
words are in ``junk.toml``.
"""

import calendar
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from caravela.sample.page import load_toml

ONE_PIXEL_GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
HTML = "text/html"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A page to be: its main part and all that its label says of it."""

    kind: str
    key: str
    """Unique; seeds what varies on the page and names its URL."""
    locale: str
    title: str = ""
    paragraphs: tuple[str, ...] = ()
    layout: str = "paragraphs"
    """How the paragraphs are set: ``paragraphs``, ``list`` or ``table`` (a row each, cells parted by a tab)."""
    register: str | None = None
    cluster: str | None = None
    jaccard: float | None = None
    recipe: str | None = None
    junk_reason: str | None = None
    personal_data: Mapping[str, int] = field(default_factory=dict)
    status: int = 200
    content_type: str = HTML
    raw: bytes | None = None
    """The whole body, where it is no page of a site."""


def junk_drafts(seed: int) -> list[Draft]:
    """All pages that are no text, in a fixed order."""
    material = load_toml("junk.toml")
    rng = random.Random(f"{seed}/junk")
    return [
        *_spam(material["spam"], rng),
        *_link_lists(material, rng),
        *_repeated(material["repeated"], rng),
        *_short(material["short"]),
        *_tables(material["table"], rng),
        *_errors(material["error"]),
        *_other_formats(),
    ]


def _variant(index: int) -> str:
    return "pt-PT" if index % 3 == 2 else "pt-BR"


def _spam(words: Mapping[str, Any], rng: random.Random) -> list[Draft]:
    """Keyword lists, doorway pages, shouting, and salads of key words without sentences, in turn."""
    drafts = []
    for i in range(16):
        keyword = words["keywords"][i % len(words["keywords"])]
        style = ("keywords", "doorway", "shouting", "salad")[i % 4]
        if style == "keywords":
            pairs = [f"{keyword} {rng.choice(words['modifiers'])} {rng.choice(words['towns'])}" for _ in range(70)]
            paragraphs = [", ".join(pairs[j : j + 14]) for j in range(0, 70, 14)]
        elif style == "doorway":
            paragraphs = [
                " ".join(
                    s.format(keyword=keyword, town=t, modifier=rng.choice(words["modifiers"])) for s in words["doorway"]
                )
                for t in rng.sample(words["towns"], 8)
            ]
        elif style == "shouting":
            lines = [rng.choice(words["shouts"]) for _ in range(30)]
            paragraphs = [
                s.format(keyword=keyword.upper(), modifier=rng.choice(words["modifiers"]).upper()) for s in lines
            ]
        else:
            pool = [*words["keywords"], *words["modifiers"], *words["towns"]]
            paragraphs = [" ".join(rng.choice(pool) for _ in range(60)) for _ in range(5)]
        drafts.append(
            Draft(
                kind="spam",
                key=f"spam/{style}-{i}",
                locale=_variant(i),
                title=f"{keyword.capitalize()} {rng.choice(words['modifiers'])}",
                paragraphs=tuple(paragraphs),
                junk_reason="keyword_stuffing",
            )
        )
    return drafts


def _link_lists(material: Mapping[str, Any], rng: random.Random) -> list[Draft]:
    words, towns = material["link_list"], material["spam"]["towns"]
    drafts = []
    for i, subject in enumerate(words["subjects"]):
        items = [
            f"{rng.choice(words['prefixes'])}{s} em {town}" for s in rng.sample(words["subjects"], 6) for town in towns
        ]
        rng.shuffle(items)
        drafts.append(
            Draft(
                kind="link_list",
                key=f"links/{i}",
                locale=_variant(i),
                title=f"{subject}: todos os endereços",
                paragraphs=tuple(items[: rng.randrange(30, 60)]),
                layout="list",
                junk_reason="link_list",
            )
        )
    return drafts


def _repeated(words: Mapping[str, Any], rng: random.Random) -> list[Draft]:
    """One line over and over; every third page has two or three in turn."""
    drafts = []
    for i, line in enumerate(words["lines"]):
        cycle = [line, *rng.sample(words["lines"], i % 3)]
        drafts.append(
            Draft(
                kind="repeated_lines",
                key=f"repeated/{i}",
                locale=_variant(i),
                title=line.split(".")[0],
                paragraphs=tuple(cycle * (rng.randrange(30, 50) // len(cycle))),
                junk_reason="repeated_lines",
            )
        )
    return drafts


def _short(words: Mapping[str, Any]) -> list[Draft]:
    return [
        Draft(
            kind="short", key=f"short/{i}", locale=_variant(i), title=title, paragraphs=(line,), junk_reason="too_short"
        )
        for i, (title, line) in enumerate(words["pages"])
    ]


def _tables(words: Mapping[str, Any], rng: random.Random) -> list[Draft]:
    """A year's calendar, a price list, a bus timetable and a league table, for three years."""
    drafts: list[Draft] = []
    for year in (2020, 2021, 2022):
        weeks = [week for month in range(1, 13) for week in calendar.monthcalendar(year, month)]
        prices = [(product, rng.randrange(300, 4000)) for product in words["products"]]
        tables = {
            "Calendário": [words["weekdays"], *([str(day or "-") for day in week] for week in weeks)],
            "Tabela de preços": [["Produto", "Preço"], *([p, f"{c // 100},{c % 100:02d}"] for p, c in prices)],
            "Horários": [
                words["stops"],
                *([f"{hour:02d}:{(stop * 7 + hour) % 60:02d}" for stop in range(8)] for hour in range(5, 24)),
            ],
            "Classificação": [
                ["Equipe", "P", "J", "V", "E", "D"],
                *([team, *(str(rng.randrange(40)) for _ in range(5))] for team in words["teams"]),
            ],
        }
        for name, rows in tables.items():
            number = len(drafts)
            drafts.append(
                Draft(
                    kind="table",
                    key=f"table/{number}",
                    locale=_variant(number),
                    title=f"{name} {year}",
                    paragraphs=tuple("\t".join(row) for row in rows),
                    layout="table",
                    junk_reason="table",
                )
            )
    return drafts


def _errors(words: Mapping[str, Any]) -> list[Draft]:
    """Two honest 404s, one that says 200, a 500, and two login pages."""
    pages = [
        ("not_found", 404),
        ("not_found", 404),
        ("not_found", 200),
        ("server", 500),
        ("login", 200),
        ("login", 200),
    ]
    return [
        Draft(
            kind="login" if name == "login" else "error_page",
            key=f"error/{name}-{i}",
            locale=_variant(i),
            title=words[name][0],
            paragraphs=(words[name][1],),
            status=status,
            junk_reason="login" if name == "login" else "error_page",
        )
        for i, (name, status) in enumerate(pages)
    ]


def _other_formats() -> list[Draft]:
    """Records without a text: an empty body, a script alone, PDF, image, JSON and two redirects."""
    script = (
        b'<!DOCTYPE html><html><head><script src="/app.js"></script></head><body><div id="root"></div></body></html>'
    )
    data = '{"cidade": "Pedra Lisa", "temperatura": 23.5, "céu": "nublado"}'.encode()
    moved = b"<html><head><title>301 Moved Permanently</title></head><body><h1>Moved Permanently</h1></body></html>"
    made = [
        ("empty", "vazia", HTML, b"", "empty", 200),
        ("no_text", "aplicativo", HTML, script, "no_text", 200),
        ("pdf", "edital.pdf", "application/pdf", tiny_pdf("Edital de teste"), "not_html", 200),
        ("image", "logo.gif", "image/gif", ONE_PIXEL_GIF, "not_html", 200),
        ("data", "tempo.json", "application/json", data, "not_html", 200),
        ("redirect", "antiga", HTML, moved, "redirect", 301),
        ("redirect", "muito-antiga", HTML, moved, "redirect", 301),
    ]
    return [
        Draft(
            kind=kind, key=f"other/{key}", locale="pt-BR", content_type=mime, raw=raw, junk_reason=reason, status=status
        )
        for kind, key, mime, raw, reason, status in made
    ]


def tiny_pdf(line: str) -> bytes:
    """A valid one-page PDF with one line of text and a right cross-reference table."""
    stream = zlib.compress(f"BT /F1 18 Tf 72 760 Td ({line}) Tj ET".encode("latin-1"), 9)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return body + (
        b"xref\n0 %d\n0000000000 65535 f \n%btrailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (len(objects) + 1, table, len(objects) + 1, len(body))
    )
