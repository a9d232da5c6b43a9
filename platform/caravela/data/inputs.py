"""Which files are read: patterns and listings to URIs, a file's format by its name, and what identifies it.

In: paths, globs, ``s3://``, ``https://`` and ``hf://datasets/`` URIs; ``.paths`` and ``.paths.gz`` listings (a path a
line, as Common Crawl publishes them) whose lines stand below a prefix. Out: sorted URIs, each once.
"""

import gzip
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from caravela import storage
from caravela.errors import UserError
from caravela.manifest import Input

Value = TypeVar("Value")

COMMON_CRAWL = "https://data.commoncrawl.org/"
# The archives of Common Crawl never change once they are published, and hold the same under both addresses. Asking for
# the size of each of a crawl's tens of thousands of files at every start would be slow, and rude.
NEVER_CHANGE = (f"{COMMON_CRAWL}crawl-data/CC-", "s3://commoncrawl/crawl-data/CC-")
FORMATS = {
    ".warc": "warc",
    ".wet": "warc",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
}
COMPRESSIONS = (".gz", ".zst")
LISTINGS = (".paths", ".paths.gz")
MAX_LISTING_BYTES = 256 << 20
PARALLEL_LOOKUPS = 16


def expand(patterns: Sequence[str], paths_prefix: str = COMMON_CRAWL, setting: str = "curate.inputs") -> list[str]:
    """The files that the patterns name, sorted, each once. A listing stands for the files that it lists.

    ``setting`` is where the patterns come from, for the message.

    Raises:
        UserError: a pattern matches nothing, a listing cannot be read, or a file's format is not known.
    """
    found: list[str] = []
    for pattern in patterns:
        try:
            files = storage.glob(storage.absolute(pattern))
        except FileNotFoundError:
            files = []
        if not files:
            raise UserError(f"{storage.shown(pattern)}: no such input ({setting})")
        for uri in files:
            found.extend(_listed(uri, paths_prefix) if storage.name_of(uri).lower().endswith(LISTINGS) else [uri])
    for uri in found:
        format_of(uri)
    return sorted(set(found))


def _listed(uri: str, prefix: str) -> list[str]:
    try:
        data = storage.read_bytes(uri)
        if uri.lower().endswith(".gz"):
            data = _gunzipped_listing(data, uri)
        lines = [line.strip() for line in data.decode("utf-8").splitlines()]
    except (zlib.error, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise UserError(f"{storage.shown(uri)}: not a listing, one path a line: {error}") from error
    if odd := next((line for line in lines if not line.isprintable()), ""):
        raise UserError(f"{storage.shown(uri)}: not a listing, one path a line: {odd[:80]!r}")
    base = storage.absolute(prefix)
    return [line if "://" in line else storage.join(base, line) for line in lines if line]


def _gunzipped_listing(data: bytes, uri: str) -> bytes:
    """All members of a gzip file, which may be several listings put together."""
    parts: list[bytes] = []
    while data:
        inflater = zlib.decompressobj(wbits=31)
        parts.append(inflater.decompress(data, MAX_LISTING_BYTES - sum(map(len, parts)) + 1))
        if not inflater.eof:
            raise UserError(f"{storage.shown(uri)}: cut short, or of more than {MAX_LISTING_BYTES >> 20} MB")
        data = inflater.unused_data.lstrip(b"\0")
    return b"".join(parts)


def format_of(uri: str) -> str:
    """``format_of("a/b.warc.gz") == "warc"``."""
    name = storage.name_of(uri).lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    for ending, kind in FORMATS.items():
        if name.endswith(ending):
            return kind
    shown = storage.shown(uri)
    raise UserError(f"{shown}: format not known by its name; expected {', '.join(FORMATS)}, plain or with .gz or .zst")


def fingerprint_inputs(uris: Sequence[str]) -> list[Input]:
    """What identifies each input file: size, and ETag, content hash or modification time.

    Raises:
        UserError: a file, named in a listing, is not there.
    """
    return in_parallel(_fingerprint, uris)


def _fingerprint(uri: str) -> Input:
    for prefix in NEVER_CHANGE:
        if uri.startswith(prefix):
            return Input(name=storage.name_of(uri), fingerprint=f"CC-{uri.removeprefix(prefix)}", uri=uri)
    try:
        info = storage.stat(uri)
    except FileNotFoundError:
        raise UserError(f"{storage.shown(uri)}: no such input (curate.inputs, or a listing there)") from None
    fingerprint = f"{info['size']}-{info['version']}"
    return Input(name=storage.name_of(uri), fingerprint=fingerprint, uri=storage.shown(uri))


def in_parallel(call: Callable[[str], Value], uris: Iterable[str], threads: int = PARALLEL_LOOKUPS) -> list[Value]:
    """Results in the order of ``uris``; the calls wait for storage, not for the processor."""
    uris = list(uris)
    if len(uris) < 2:
        return [call(uri) for uri in uris]
    with ThreadPoolExecutor(threads, thread_name_prefix="inputs") as pool:
        return list(pool.map(call, uris))
