"""The URL lists that ship with datatrove: 4.6 million domains, 15,000 pages, and words.

In: a URL. Out: ``IntegratedLists.decide``: the reason (``datatrove.domain``, ``.subdomain``, ``.url``,
``.hard_blacklisted``, ``.soft_blacklisted``, ``.blacklisted_subword``) and the entry that fits, or None.

``mended = False`` decides as datatrove's URLFilter does, flaws included; ``True`` sees what that one misses: hosts in
capitals, IP addresses, hosts anywhere below a listed one, words in capitals, and the list of pages, which has no
schemes and so equals no URL. The lists are read from datatrove's package; nothing is unpacked to disk.

Cost: 6 s to load (mended: 10 s), 36 MB kept and some 200 MB while loading, 25 µs a URL.
"""

import importlib.resources
import ipaddress
import re
import tarfile
from importlib.resources.abc import Traversable

import tld

from filters.urls import IDEOGRAPHIC_DOTS, HashedLines, UrlParts, as_host, as_page, pages_above, parts_of, suffixes_of

NOT_ALPHANUMERIC = re.compile("[^a-zA-Z0-9]+")
ARCHIVE = "url_filterblacklistsv0_3_0.tar.gz"


class IntegratedLists:
    """The lists that datatrove ships, read from its package.

    ``soft_word_threshold`` is how many softly banned words a URL must have to go; ``assets`` another folder of files
    of the same names.
    """

    def __init__(self, mended: bool, soft_word_threshold: int = 2, assets: Traversable | None = None) -> None:
        self.mended = mended
        self.soft_word_threshold = soft_word_threshold
        assets = assets or importlib.resources.files("datatrove") / "assets"
        with assets.joinpath(ARCHIVE).open("rb") as packed, tarfile.open(fileobj=packed, mode="r|gz") as archive:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None, f"{member.name} of datatrove's URL lists is no file"
                lines = (line.decode("utf-8").strip() for line in content if not line.startswith(b"#"))
                if member.name.endswith("domains"):
                    self.domains = HashedLines(filter(None, map(as_host, lines)) if self.mended else lines)
                else:
                    self.urls = HashedLines(filter(None, map(as_page, lines)) if self.mended else lines)
        words = {
            name: frozenset(_squeezed(line) for line in assets.joinpath(f"{name}.txt").open() if line[0] != "#")
            for name in ("banned_words", "soft_banned_words", "banned_subwords")
        }
        self.banned, self.soft, self.fragments = (
            words["banned_words"],
            words["soft_banned_words"],
            words["banned_subwords"],
        )

    def decide(self, url: str) -> tuple[str, str] | None:
        """(reason, detail), or None."""
        found = self._listed(parts_of(url)) if self.mended else self._listed_as_datatrove_looks(url)
        return found or self._worded(url)

    def _listed(self, parts: UrlParts) -> tuple[str, str] | None:
        if not parts.host:
            return None
        if domain := next((s for s in suffixes_of(parts.host) if s in self.domains), None):
            return "datatrove.domain", domain
        if page := next((page for page in pages_above(parts) if page in self.urls), None):
            return "datatrove.url", page
        return None

    def _listed_as_datatrove_looks(self, url: str) -> tuple[str, str] | None:
        host = _host_as_written(url)
        registered = registered_domain(host)
        if registered and registered in self.domains:
            return "datatrove.domain", registered
        if registered and host in self.domains:
            return "datatrove.subdomain", host
        return ("datatrove.url", url) if url in self.urls else None

    def _worded(self, url: str) -> tuple[str, str] | None:
        words = set(NOT_ALPHANUMERIC.split(url.lower() if self.mended else url))
        if hard := words & self.banned:
            return "datatrove.hard_blacklisted", min(hard)
        if len(soft := words & self.soft) >= self.soft_word_threshold:
            return "datatrove.soft_blacklisted", ", ".join(sorted(soft))
        squeezed = _squeezed(url)
        if fragments := [fragment for fragment in self.fragments if fragment in squeezed]:
            return "datatrove.blacklisted_subword", min(fragments)
        return None


def _squeezed(text: str) -> str:
    return NOT_ALPHANUMERIC.sub("", text).lower()


def _host_as_written(url: str) -> str:
    """The host as tldextract cuts it out, which neither lowers nor decodes it."""
    before, slashes, after = url.partition("//")
    scheme_only = not before or (before.endswith(":") and re.fullmatch(r"[a-zA-Z0-9+\-.]+", before[:-1]))
    rest = after if slashes and scheme_only else url
    for border in "/?#":
        rest = rest.partition(border)[0]
    host = rest.rpartition("@")[2]
    if host.startswith("["):
        return ""
    return host.partition(":")[0].strip().rstrip(".\u3002\uff0e\uff61").translate(IDEOGRAPHIC_DOTS)


def registered_domain(host: str) -> str:
    """The label that was registered, with the public suffix below which it was; empty for addresses and suffixes."""
    if not host or "." not in host.strip("."):
        return ""
    try:
        ipaddress.ip_address(host)
        return ""
    except ValueError:
        pass
    found = tld.get_tld(f"http://{host.lower()}", as_object=True, fail_silently=True, search_private=False)
    if found is None or isinstance(found, str) or not found.domain:
        return ""
    labels = host.split(".")[-2 - found.tld.count(".") :]
    return ".".join(labels) if labels[0] else ""  # "..com" has registered nothing
