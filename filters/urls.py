"""URLs taken apart for comparison, and sets of millions of hosts in little memory.

In: any string that claims to be a URL. Out: host and path in the one form that rules and sites are compared in. Never
raises: no scheme, a strange one, user names, ports, capitals, names beyond ASCII and plain garbage all give parts, a
host being empty where there is none.
"""

import bisect
import re
import unicodedata
import urllib.parse
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xxhash

MAX_HOST_LENGTH = 253
SCHEME = re.compile(r"([a-z][a-z0-9+\-]*):(?!\d)", re.IGNORECASE)
WEB_SCHEMES = ("http", "https", "ftp")
PLAIN_HOST = re.compile(r"[a-z0-9_\-]+(?:\.[a-z0-9_\-]+)*")
IDEOGRAPHIC_DOTS = str.maketrans(dict.fromkeys("\u3002\uff0e\uff61", "."))


@dataclass(frozen=True, slots=True)
class UrlParts:
    """A URL taken apart, in the form that rules are compared in."""

    host: str
    """Lower-case ASCII, without user, port and trailing dot; empty where there is none."""
    path: str
    """From the first slash, with the query, without the fragment; lower case, percent signs decoded."""


def parts_of(url: str) -> UrlParts:
    """Takes any string apart; never raises. ``parts_of("HTTP://a@B.pt:80/X%41") == UrlParts("b.pt", "/xa")``."""
    rest = "".join(ch for ch in url if ch >= " ").strip().replace("\\", "/")
    if rest.startswith("//"):
        rest = rest[2:]
    elif scheme := SCHEME.match(rest):
        rest = rest[scheme.end() :]
        if not rest.startswith("//") and scheme[1].lower() not in WEB_SCHEMES:
            return UrlParts("", "")  # mailto:, data:, urn: and the like have no host
        rest = rest.lstrip("/")
    end = next((i for i, ch in enumerate(rest) if ch in "/?#"), len(rest))
    path = urllib.parse.unquote(rest[end:].partition("#")[0], errors="replace").lower()
    return UrlParts(as_host(rest[:end]), path)


def as_host(authority: str) -> str:
    """``as_host("user@WWW.Exemplo.PT:8080") == "www.exemplo.pt"``; empty where it cannot be a host."""
    if PLAIN_HOST.fullmatch(authority) and len(authority) <= MAX_HOST_LENGTH:
        return authority
    host = authority.rpartition("@")[2].strip()
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    host = urllib.parse.unquote(host.partition(":")[0], errors="replace").translate(IDEOGRAPHIC_DOTS)
    host = unicodedata.normalize("NFKC", host).lower().strip(". ")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            return ""
    return host if len(host) <= MAX_HOST_LENGTH and PLAIN_HOST.fullmatch(host) else ""


def suffixes_of(host: str) -> Iterator[str]:
    """``a.b.pt``: ``a.b.pt``, ``b.pt``, ``pt``; of an address only itself."""
    yield host
    if host.startswith("[") or host.replace(".", "").isdigit():
        return
    dot = host.find(".")
    while dot >= 0:
        yield host[dot + 1 :]
        dot = host.find(".", dot + 1)


def words_of(text: str) -> list[str]:
    """The words of a URL or of a rule: lower case, without accents, cut at whatever is no letter or digit."""
    if not text.isascii():
        text = "".join(ch for ch in unicodedata.normalize("NFKD", text) if not unicodedata.combining(ch))
    return re.findall(r"[^\W_]+", text.lower())


def as_page(line: str) -> str:
    """``as_page("https://A.pt/b/") == "a.pt/b"``: host and path as page lists have them; empty without a host."""
    parts = parts_of(line)
    return parts.host + parts.path.rstrip("/") if parts.host else ""


def pages_above(parts: UrlParts) -> Iterator[str]:
    """``a.pt/b/c?d``: ``a.pt/b/c?d``, ``a.pt/b/c``, ``a.pt/b``, ``a.pt``."""
    page = (parts.host + parts.path).rstrip("/")
    yield page
    page, query, _ = page.partition("?")
    if query:
        page = page.rstrip("/")
        yield page
    while "/" in page:
        page = page.rpartition("/")[0]
        yield page


class HashedLines:
    """A set of strings of which only the hashes are kept; grows with 8 bytes a string."""

    def __init__(self, lines: Iterable[str]) -> None:
        hashes = np.unique(np.fromiter(map(xxhash.xxh3_64_intdigest, lines), np.uint64))
        self._hashes = array("Q", hashes.tobytes())  # bisect asks it for numbers four times as fast as numpy's

    def __contains__(self, line: str) -> bool:
        digest = xxhash.xxh3_64_intdigest(line.encode("utf-8", "replace"))
        place = bisect.bisect_left(self._hashes, digest)
        return place < len(self._hashes) and self._hashes[place] == digest

    def __len__(self) -> int:
        return len(self._hashes)
