"""WARC and WET records from any container, with every broken one named instead of an exception.

In: a binary stream of a WARC: plain, gzip (one member a record, or one for the whole file), zstandard.
Out: ``WarcRecord`` in file order; where bytes are corrupt or end too early, a record whose ``problem`` says so. Reading
goes on at the next gzip member or the next record header. Format: WARC 1.1 (ISO 28500:2017), HTTP/1.1 (RFC 9112).

Why not a library: warcio and FastWARC stop, or skip in silence, at the first corrupt byte; here each byte range is
either a record or a counted problem. Price: about half FastWARC's speed; HTML extraction costs ten times more.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import brotli
import zstandard

READ_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 20
MAX_CONTENT_BYTES = 64 << 20
GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_DICTIONARY_MAGIC = b"\x5d\x2a\x4d\x18"
RECORD_START = b"WARC/"
# Within content, what begins a record: a first line and a header, so that prose about WARC does not.
NEXT_RECORD = re.compile(rb"WARC/(?:(?<=\nWARC/)|(?<=\AWARC/))\d\.\d{1,2}[ \t]*\r?\n[A-Za-z][A-Za-z-]{2,40}:")
LONGEST_RECORD_LINE = 80
BLANK_LINES = re.compile(rb"[\r\n]*")
CHUNK_HEADER = re.compile(rb"\s*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
MAX_BLANK_LINES = 64
MAX_LENGTH_DIGITS = 15
UNCHECKED_BYTES = 8
ZSTD_PIECE_BYTES = 1 << 10
MAX_DICTIONARY_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class WarcRecord:
    """One record; header names are lower-case."""

    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    problem: str = ""
    """Empty, or why the record is not whole: ``corrupt``, ``truncated``, ``bad_header``, ``wrong_length`` (it does not
    end where its header says), ``too_large``."""

    @property
    def type(self) -> str:
        return self.headers.get("warc-type", "")


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Status, headers (names lower-case; the last of equal ones) and the body with its encodings undone."""

    status: int
    headers: dict[str, str]
    body: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Gap:
    """A place in the stream where bytes were lost."""

    problem: str


MEMBER = _Gap("wrong_length")
"""Where a gzip member or a zstandard frame begins with a record: none that began before it goes on behind it."""


def read_records(stream: IO[bytes], max_content_bytes: int = MAX_CONTENT_BYTES) -> Iterator[WarcRecord]:
    """Records in file order. Content above ``max_content_bytes`` is passed over and reported as ``too_large``."""
    source = _Buffer(_decompressed(stream))
    while True:
        if problem := source.fill_to_record():
            yield WarcRecord(problem=problem)
        elif not source.bytes:
            return
        elif not source.bytes.startswith(RECORD_START):
            source.skip_to_record()
            yield WarcRecord(problem=source.loss_ahead() or "bad_header")
        else:
            yield _one_record(source, max_content_bytes)


class _Buffer:
    """Decompressed bytes that are not parsed yet, up to the next place where the stream is broken."""

    def __init__(self, chunks: Iterator[bytes | _Gap]) -> None:
        self.chunks = chunks
        self.bytes = bytearray()
        self.stop: _Gap | None = None
        """What comes behind the bytes, once it is known that none follow without a break."""

    def fill(self) -> bool:
        """One more chunk; False if a break or the end comes first."""
        if self.stop is None:
            chunk = next(self.chunks, END)
            if isinstance(chunk, bytes):
                self.bytes += chunk
            else:
                self.stop = chunk
        return self.stop is None

    def drop(self, count: int) -> None:
        del self.bytes[:count]

    def fill_to_record(self) -> str:
        """Drops the blank lines between records and makes sure that the next one has begun, if there is one.

        Where bytes were lost in between, the problem.
        """
        while True:
            self.drop(_end_of_blank_lines(self.bytes, 0))
            if len(self.bytes) >= len(RECORD_START) or not self.fill():
                if self.bytes or self.stop is END or self.stop is None:
                    return ""
                problem, self.stop = self.stop, None
                if problem is not MEMBER:
                    return problem.problem

    def fill_up_to(self, size: int) -> None:
        while len(self.bytes) < size and self.fill():
            pass

    def find_record(self, most: int) -> int:
        """Where within so many bytes of content a record begins; -1 if none does."""
        self.fill_up_to(min(most, len(self.bytes)) + LONGEST_RECORD_LINE)
        found = NEXT_RECORD.search(self.bytes, 0, most + LONGEST_RECORD_LINE)
        return found.start() if found and found.start() <= most else -1

    def skip_to_record(self) -> None:
        """Drops bytes up to the next line that begins a record, or up to the next break."""
        while (at := self.bytes.find(b"\n" + RECORD_START, 1)) < 0:
            self.drop(max(0, len(self.bytes) - len(RECORD_START)))
            if not self.fill():
                self.bytes.clear()
                return
        self.drop(at + 1)

    def cut_content(self) -> tuple[bytes, str]:
        """Takes the content of a record that does not end where it should, and the problem.

        It ends where another record begins within it, or at the break; the bytes that were lost there are this
        record's, so that each loss is told once.
        """
        if found := NEXT_RECORD.search(self.bytes):
            content, problem = self.take(found.start()), "wrong_length"
        else:
            content, problem = self.take(len(self.bytes)), (self.stop or MEMBER).problem
            if self.stop is not END:
                self.stop = None
        return content, problem

    def loss_ahead(self) -> str:
        """The problem of the break that comes next, if bytes were lost there: it is told of the record before."""
        if self.bytes or self.stop is None or self.stop is END or self.stop is MEMBER:
            return ""
        problem, self.stop = self.stop.problem, None
        return problem

    def take(self, count: int) -> bytes:
        with memoryview(self.bytes) as view:
            taken = bytes(view[:count])
        self.drop(count)
        return taken


END = _Gap("truncated")
"""Where the stream ends; a record that is not whole by then was cut off."""


def _one_record(source: _Buffer, max_content_bytes: int) -> WarcRecord:
    while (end := _header_end(source.bytes)) < 0:
        if len(source.bytes) > MAX_HEADER_BYTES:
            source.skip_to_record()
            return WarcRecord(problem="bad_header")
        if not source.fill():
            source.drop(len(RECORD_START))
            return WarcRecord(problem=source.cut_content()[1])
    headers = parse_headers(source.take(end))
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit() and len(length) <= MAX_LENGTH_DIGITS):
        if not source.bytes.startswith(RECORD_START):
            source.skip_to_record()
        return WarcRecord(headers=headers, problem="bad_header")
    missing = int(length)
    if missing > max_content_bytes:
        return WarcRecord(headers=headers, problem=_pass_over(source, missing))
    source.fill_up_to(missing)
    if len(source.bytes) < missing:
        content, problem = source.cut_content()
        return WarcRecord(headers=headers, content=content, problem=problem)
    if _ends_record(source, missing):
        return WarcRecord(headers=headers, content=source.take(missing))
    if (at := source.find_record(missing)) >= 0:
        return WarcRecord(headers=headers, content=source.take(at), problem="wrong_length")
    content = source.take(missing)
    source.skip_to_record()
    return WarcRecord(headers=headers, content=content, problem=source.loss_ahead() or "wrong_length")


def _pass_over(source: _Buffer, missing: int) -> str:
    """Drops content that is too large to hold. A length that large is not believed where a record begins within."""
    while True:
        if (at := source.find_record(missing)) >= 0:
            source.drop(at)
            return "wrong_length"
        if len(source.bytes) >= missing:
            whole = _ends_record(source, missing)
            source.drop(missing)
            if not whole:
                source.skip_to_record()
            return "too_large" if whole else "wrong_length"
        dropped = max(0, len(source.bytes) - LONGEST_RECORD_LINE)
        source.drop(dropped)
        missing -= dropped
        if not source.fill():
            return source.cut_content()[1]


def _ends_record(source: _Buffer, end: int) -> bool:
    """Whether a record may end here: before the next one, a break, or the two line ends that it must have.

    With those, what follows may be anything: the damage is the next record's.
    """
    while True:
        at = _end_of_blank_lines(source.bytes, end)
        following = bytes(source.bytes[at : at + len(RECORD_START)])
        if len(following) == len(RECORD_START) or at - end > MAX_BLANK_LINES or not source.fill():
            return RECORD_START.startswith(following) or source.bytes.count(b"\n", end, at) >= 2


def _end_of_blank_lines(data: bytearray, start: int) -> int:
    found = BLANK_LINES.match(data, start)
    return found.end() if found else start


def _header_end(data: bytes | bytearray) -> int:
    """Index after the blank line that ends a header block, -1 if it is not there yet."""
    ends = [at + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if (at := data.find(mark, 0, MAX_HEADER_BYTES)) >= 0]
    return min(ends, default=-1)


def parse_headers(block: bytes) -> dict[str, str]:
    """``Name: value`` lines below the first one; folded lines are joined. Bytes that are not UTF-8 are Latin-1."""
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        text = block.decode("latin-1")
    headers: dict[str, str] = {}
    last = ""
    for line in text.splitlines()[1:]:
        name, colon, value = line.partition(":")
        if line[:1] in " \t" and last:
            headers[last] = f"{headers[last]} {line.strip()}".strip()
        elif colon:
            last = name.strip().lower()
            headers[last] = value.strip()
    return headers


def _decompressed(stream: IO[bytes]) -> Iterator[bytes | _Gap]:
    """Chunks of the decompressed stream, with a gap wherever bytes could not be read or a record surely ends."""
    source = _Compressed(stream)
    if source.data.startswith(GZIP_MAGIC):
        yield from _gunzipped(source)
    elif source.data.startswith((ZSTD_MAGIC, ZSTD_DICTIONARY_MAGIC)):
        yield from _unzstandard(source)
    else:
        while source.data:
            yield source.data
            source.data = stream.read(READ_BYTES)


class _Compressed:
    """The compressed bytes at hand, and some of those before them that belong to the same member."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.data = stream.read(READ_BYTES)
        self.before = b""

    def fill(self) -> bool:
        """More bytes, if there are none at hand; False at the end of the stream."""
        if not self.data:
            self.data = self.stream.read(READ_BYTES)
        return bool(self.data)

    def use(self, rest: bytes) -> None:
        """All but ``rest`` went into the present member, which goes on."""
        self.before = (self.before + self.data[: len(self.data) - len(rest)])[-READ_BYTES:]
        self.data = rest

    def begin(self, rest: bytes) -> None:
        """All but ``rest`` is done with: a new member begins."""
        self.before, self.data = b"", rest

    def seek(self, magic: bytes) -> None:
        """Goes to the next place behind the present member's start where another may begin; to the end if none."""
        data, self.before = (self.before + self.data)[1:], b""
        while (at := data.find(magic)) < 0 and (more := self.stream.read(READ_BYTES)):
            data = data[1 - len(magic) :] + more
        self.data = data[at:] if at >= 0 else b""


def _gunzipped(source: _Compressed) -> Iterator[bytes | _Gap]:
    """Gzip members one after the other; after a corrupt one the search goes on for the next that opens well."""
    while True:
        source.begin(source.data.lstrip(b"\0"))  # some writers pad
        if not source.data:
            if not source.fill():
                return
            continue
        member, opening, opened = zlib.decompressobj(wbits=31), b"", False
        while not member.eof:
            if not source.fill():
                yield from _opened(opening, opened)
                yield _at_the_end(source, GZIP_MAGIC)
                break
            before_call = member.copy()
            try:
                out = member.decompress(source.data, READ_BYTES)
            except zlib.error as error:
                out = _readable_part(before_call, source.data)
                if "check" in str(error) and not NEXT_RECORD.search(out, 1):
                    out = out[:-UNCHECKED_BYTES]  # the checksum is wrong, so this record must not pass for whole
                yield from _opened(opening + out, opened)
                yield _Gap("corrupt")
                source.seek(GZIP_MAGIC)
                break
            if not opened:
                opening += out
                out = b""
                if len(opening) >= len(RECORD_START) or member.eof:
                    yield from _opened(opening, opened)
                    opening, opened = b"", True
            elif out:
                yield out
            if member.eof:
                source.begin(member.unused_data)
            else:
                source.use(member.unconsumed_tail)


def _at_the_end(source: _Compressed, magic: bytes) -> _Gap:
    """What became of a member that has no end: a damaged one may have swallowed others, which are read next."""
    source.seek(magic)
    return _Gap("corrupt" if source.data else "truncated")


def _opened(out: bytes, opened: bool) -> Iterator[bytes | _Gap]:
    """Decompressed bytes, and before them the word that they open a member with a record, if they do."""
    if not opened and out.startswith(RECORD_START):
        yield MEMBER
    if out:
        yield out


def _readable_part(member: "zlib._Decompress", data: bytes) -> bytes:
    """What a corrupt member gives before its first bad byte; zlib keeps that to itself when it raises."""
    out = bytearray()
    try:
        for at in range(len(data)):
            out += member.decompress(data[at : at + 1])
    except zlib.error:
        pass
    return bytes(out)


def _unzstandard(source: _Compressed) -> Iterator[bytes | _Gap]:
    """Zstandard frames; a leading skippable frame may hold their dictionary, as in .warc.zst 1.0."""
    dictionary = None
    if source.data.startswith(ZSTD_DICTIONARY_MAGIC):
        try:
            dictionary = _dictionary(source)
        except zstandard.ZstdError:
            yield _Gap("corrupt")
            source.seek(ZSTD_MAGIC)
    while source.fill():
        source.begin(source.data)
        frame, opened = zstandard.ZstdDecompressor(dict_data=dictionary).decompressobj(), False
        while not frame.eof:
            if not source.fill():
                yield _at_the_end(source, ZSTD_MAGIC)
                break
            # A few bytes may stand for 128 KiB, and there is no other way to bound what one call gives.
            piece = source.data[:ZSTD_PIECE_BYTES]
            try:
                out = frame.decompress(piece)
            except zstandard.ZstdError:
                yield _Gap("corrupt")
                source.seek(ZSTD_MAGIC)
                break
            if out:
                yield from _opened(out, opened)
                opened = True
            if frame.eof:
                source.begin(frame.unused_data + source.data[len(piece) :])
            else:
                source.use(source.data[len(piece) :])


def _dictionary(source: _Compressed) -> zstandard.ZstdCompressionDict:
    """The dictionary in a skippable frame, itself compressed or not.

    Raises:
        zstandard.ZstdError: there is none of a size that makes sense.
    """
    size = int.from_bytes(source.data[4:8], "little")
    if size > MAX_DICTIONARY_BYTES:
        raise zstandard.ZstdError(f"a dictionary of {size} bytes")
    data = source.data
    while len(data) < 8 + size and (more := source.stream.read(READ_BYTES)):
        data += more
    raw = data[8 : 8 + size]
    source.begin(data[8 + size :])
    if raw.startswith(ZSTD_MAGIC):
        raw = unzstandard(raw, MAX_DICTIONARY_BYTES)
    return zstandard.ZstdCompressionDict(raw)


def unzstandard(data: bytes, limit: int) -> bytes:
    """At most ``limit`` bytes of a zstandard frame's content."""
    with zstandard.ZstdDecompressor().stream_reader(data) as reader:
        return reader.read(limit)


def parse_http(content: bytes, max_body_bytes: int) -> HttpResponse:
    """A response record's content as HTTP. What cannot be undone is named in ``problem`` and the rest still given."""
    end = _header_end(content)
    if end < 0:
        return HttpResponse(0, {}, b"", "bad_http_header")
    first = content.split(b"\n", 1)[0]
    match = re.match(rb"HTTP/\S+\s+(\d{3})", first)
    if match is None:
        return HttpResponse(0, {}, content[end:], "bad_http_header")
    headers = parse_headers(content[:end])
    body, problem = content[end:], ""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    for encoding in reversed(headers.get("content-encoding", "").lower().split(",")):
        body, problem = _decoded(body, encoding.strip(), max_body_bytes)
        if problem:
            break
    return HttpResponse(int(match[1]), headers, body, problem)


def _unchunked(body: bytes) -> bytes:
    """Undoes chunked transfer coding; what is not chunked, after all (crawlers undo it) or any more, stays as it is."""
    parts, at = [], 0
    while match := CHUNK_HEADER.match(body, at):
        size = int(match[1], 16)
        parts.append(body[match.end() : match.end() + size])
        at = match.end() + size
        if size == 0:
            return b"".join(parts)
    return b"".join((*parts, body[at:]))


def _decoded(body: bytes, encoding: str, limit: int) -> tuple[bytes, str]:
    """A body without its content coding, at most ``limit`` bytes of it (a decompression bomb ends there)."""
    if encoding in ("", "identity"):
        return body, ""
    if encoding in ("gzip", "x-gzip") and not body.startswith(GZIP_MAGIC[:2]):
        return body, ""  # the header lies, or the crawler has undone it
    try:
        if encoding in ("gzip", "x-gzip"):
            return zlib.decompressobj(wbits=31).decompress(body, limit), ""
        if encoding == "deflate":
            wbits = 15 if body[:1] == b"\x78" else -15
            return zlib.decompressobj(wbits=wbits).decompress(body, limit), ""
        if encoding == "br":
            return brotli.Decompressor().process(body, output_buffer_limit=limit), ""
        if encoding == "zstd":
            return unzstandard(body, limit), ""
    except (zlib.error, gzip.BadGzipFile, brotli.error, zstandard.ZstdError):
        return body if b"<html" in body[:2048].lower() else b"", "bad_content_encoding"
    return body, ""
