"""Rules on a document's URL: datatrove's lists, and one's own lists of domains, hosts, paths and words.

In: a URL, of any shape. Out: ``UrlRules.decide`` gives None (the document stays) or its reason and a detail that names
the rule: ``("deny_domain", "exemplo.com")``, ``("list.adult", "x.example")``, ``("datatrove.hard_blacklisted", ...)``.

**Precedence: allow goes before deny.** A URL that any allow rule fits stays, whatever else fits it. Of the deny rules
the first speaks, in the order domain, host, path, word, lists as they are named, datatrove's lists.

How URLs are read: hosts in lower case, without user, port, trailing dot; names beyond ASCII as ``xn--``; no scheme, a
strange one or a broken URL is no error, only a URL without a host. Paths and words in lower case, percent signs
decoded. A document without a URL stays.

Decisions, with their price:

* A list is kept as the sorted 64-bit hashes of its lines, 8 bytes each: datatrove's 4.6 million domains take 36 MB in
  a worker and not 500, load in 6 s (mended: 10 s), and are asked in a microsecond per label of the host. That two names
  share a hash, and so a wrong one is found, has a chance of 1 in 10¹² a look-up.
* ``integrated = "datatrove"`` decides as datatrove's URLFilter does, flaws included: it does not see a listed domain
  written in capitals, its list of page URLs fits nothing, as the list has no schemes, and its IP addresses fit nothing
  either. ``"mended"`` sees all three, and whatever lies below a listed domain.

Cost: 18 µs a URL with rules of one's own, however many; 25 µs more with datatrove's lists.
"""

import fnmatch
import gzip
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from caravela import storage
from caravela.config import ConfigError
from caravela.errors import UserError
from caravela.manifest import Input
from filters.url_integrated import IntegratedLists
from filters.urls import (
    PLAIN_HOST,
    HashedLines,
    UrlParts,
    as_host,
    as_page,
    pages_above,
    parts_of,
    suffixes_of,
    words_of,
)

ADDRESS_IN_HOSTS_FILE = re.compile(r"(?:0\.0\.0\.0|127\.0\.0\.1|::1?)\s+")


@dataclass(frozen=True, kw_only=True)
class UrlPatterns:
    """Rules written in the config itself."""

    domains: tuple[str, ...] = ()
    """Domains, with every host below them: "exemplo.com" fits loja.exemplo.com too, "xxx" all of that top level."""
    hosts: tuple[str, ...] = ()
    """Single hosts, without those below."""
    paths: tuple[str, ...] = ()
    """Patterns with * and ? for the path and query: "/tag/*" on every site, "exemplo.com/forum/*" on one domain."""
    words: tuple[str, ...] = ()
    """Words or word sequences of host, path and query: "casino" fits /casino-online and not /casinos."""

    def __post_init__(self) -> None:
        for kind in ("domains", "hosts"):
            for name in getattr(self, kind):
                if not as_host(name) or "/" in name:
                    raise ConfigError(f"{kind} = {name!r}: expected a host name without scheme and path")
        for pattern in self.paths:
            if "/" not in pattern:
                raise ConfigError(f"paths = {pattern!r}: expected /path or domain/path, with * for any characters")
        for word in self.words:
            if not words_of(word):
                raise ConfigError(f"words = {word!r}: expected letters or digits")


@dataclass(frozen=True, kw_only=True)
class UrlList:
    """A file of rules, one a line; lines that begin with # are comments."""

    name: str
    """What the reason says: ``list.<name>``."""
    uri: str
    """Local or s3://, plain text or gzip."""
    kind: Literal["domains", "hosts", "urls", "words"] = "domains"
    """What a line is. ``urls``: host and path without a scheme, fitting this page and those below it. Domains and
    hosts may stand as in a hosts file, behind an address."""
    action: Literal["deny", "allow"] = "deny"
    """Whether documents that it fits go, or stay in spite of other rules."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", storage.absolute(self.uri))  # workers have another working directory


@dataclass(frozen=True, kw_only=True)
class UrlConfig:
    """Which documents their URL alone removes; by default none."""

    allow: UrlPatterns = field(default_factory=UrlPatterns)
    deny: UrlPatterns = field(default_factory=UrlPatterns)
    lists: tuple[UrlList, ...] = ()
    """Adult, spam and other lists as files."""
    integrated: Literal["off", "datatrove", "mended"] = "off"
    """The lists that come with datatrove, as its URLFilter applies them or without that one's blind spots."""
    soft_word_threshold: int = 2
    """How many of datatrove's softly banned words a URL must have to go."""

    def __post_init__(self) -> None:
        if self.soft_word_threshold < 1:
            raise ConfigError(f"soft_word_threshold = {self.soft_word_threshold}: expected 1 or more")
        names = [found.name for found in self.lists]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"lists = {twice[0]!r}: expected each name once")

    @property
    def enabled(self) -> bool:
        """Whether there is any rule."""
        return bool(self.lists) or self.integrated != "off" or self.deny != UrlPatterns()


def list_inputs(config: UrlConfig) -> tuple[Input, ...]:
    """What identifies the list files, for the fingerprint of the stage that uses them.

    Raises:
        UserError: a list is not there.
    """
    inputs = []
    for found in config.lists:
        try:
            info = storage.stat(found.uri)
        except FileNotFoundError:
            raise UserError(f"url.lists: {found.uri}: no such file (list {found.name!r})") from None
        inputs.append(
            Input(name=f"url list {found.name}", fingerprint=f"{info['size']}-{info['version']}", uri=found.uri)
        )
    return tuple(inputs)


class UrlRules:
    """All rules of a config, loaded; make one per process."""

    def __init__(self, config: UrlConfig) -> None:
        self._allow = _Patterns(config.allow)
        self._deny = _Patterns(config.deny)
        loaded = [(found.action, _LoadedList(found)) for found in config.lists]
        self._allow_lists = [rules for action, rules in loaded if action == "allow"]
        self._deny_lists = [rules for action, rules in loaded if action == "deny"]
        self._integrated = None
        if config.integrated != "off":
            self._integrated = IntegratedLists(config.integrated == "mended", config.soft_word_threshold)

    def decide(self, url: str) -> tuple[str, str] | None:
        """Why a document from this URL goes, as (reason, detail); None for one to keep, or without a URL."""
        if not url:
            return None
        parts = parts_of(url)
        words = words_of(f"{parts.host} {parts.path}")
        if self._allow.match(parts, words) or any(rules.match(parts, words) for rules in self._allow_lists):
            return None
        if found := self._deny.match(parts, words):
            return f"deny_{found[0]}", found[1]
        for rules in self._deny_lists:
            if rule := rules.match(parts, words):
                return f"list.{rules.name}", rule
        return self._integrated.decide(url) if self._integrated else None


class _Patterns:
    """The rules of one ``UrlPatterns``, laid out for look-up."""

    def __init__(self, patterns: UrlPatterns) -> None:
        self.domains = frozenset(map(as_host, patterns.domains))
        self.hosts = frozenset(map(as_host, patterns.hosts))
        self.words = _WordRules(patterns.words)
        by_domain: dict[str, list[str]] = {}
        for pattern in patterns.paths:
            domain, slash, path = pattern.partition("/")
            by_domain.setdefault(as_host(domain) if domain else "", []).append(slash + path)
        self.paths = {domain: _PathRules(domain, found) for domain, found in by_domain.items()}

    def match(self, parts: UrlParts, words: list[str]) -> tuple[str, str] | None:
        """The first rule that fits, as (kind, rule)."""
        suffixes = list(suffixes_of(parts.host)) if parts.host else []
        if domain := next((s for s in suffixes if s in self.domains), None):
            return "domain", domain
        if parts.host in self.hosts:
            return "host", parts.host
        if self.paths:
            for domain in [*suffixes, ""]:
                if domain in self.paths and (rule := self.paths[domain].match(parts.path)):
                    return "path", rule
        if word := self.words.match(words):
            return "word", word
        return None


class _PathRules:
    """The path patterns of one domain as one expression."""

    def __init__(self, domain: str, patterns: list[str]) -> None:
        self.rules = [f"{domain}{pattern}" for pattern in patterns]
        groups = (f"(?P<r{i}>{fnmatch.translate(p.lower())})" for i, p in enumerate(patterns))
        self.expression = re.compile("|".join(groups))

    def match(self, path: str) -> str | None:
        found = self.expression.match(path or "/")
        return self.rules[int(found.lastgroup[1:])] if found and found.lastgroup else None


class _WordRules:
    """Words and word sequences; a URL's runs of words are looked up, so that many rules cost what one does."""

    def __init__(self, rules: Iterable[str]) -> None:
        sequences = [words_of(rule) for rule in rules]
        self.lengths = sorted({len(words) for words in sequences if words})
        self.rules = frozenset(" ".join(words) for words in sequences)

    def match(self, words: list[str]) -> str | None:
        for length in self.lengths:
            for start in range(len(words) - length + 1):
                run = " ".join(words[start : start + length])
                if run in self.rules:
                    return run
        return None


class _LoadedList:
    """One list file."""

    def __init__(self, source: UrlList) -> None:
        self.name, self.kind = source.name, source.kind
        lines = read_list(source.uri)
        if source.kind == "words":
            self.words = _WordRules(lines)
        elif source.kind == "urls":
            self.entries = HashedLines(filter(None, map(as_page, lines)))
        else:
            self.entries = HashedLines(filter(None, map(_as_listed_host, lines)))

    def match(self, parts: UrlParts, words: list[str]) -> str | None:
        """The entry that fits."""
        if self.kind == "words":
            return self.words.match(words)
        if not parts.host:
            return None
        if self.kind == "hosts":
            return parts.host if parts.host in self.entries else None
        candidates = suffixes_of(parts.host) if self.kind == "domains" else pages_above(parts)
        return next((entry for entry in candidates if entry in self.entries), None)


def read_list(uri: str) -> Iterator[str]:
    """The lines of a list without comments, from plain text or gzip; bytes that are not UTF-8 are replaced.

    Raises:
        UserError: the file is not there, or is a gzip that breaks off.
    """
    try:
        with storage.open_read(uri) as stream:
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            for line in gzip.GzipFile(fileobj=stream) if packed else stream:
                if (content := line.decode("utf-8", "replace").strip()) and not content.startswith("#"):
                    yield content
    except FileNotFoundError:
        raise UserError(f"{uri}: no such URL list (url.lists)") from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{uri}: broken URL list: {error}") from error


def _as_listed_host(line: str) -> str:
    if PLAIN_HOST.fullmatch(line):
        return line
    name = ADDRESS_IN_HOSTS_FILE.sub("", line).split("#")[0].strip()
    return as_host(name.removeprefix("*."))
