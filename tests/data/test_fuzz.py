"""A share of the fuzzing of ``benchmarks/fuzz_readers.py``, and what it found, one case each."""

import gzip
import io
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from caravela.data import charset, crawl_files, inputs, readers, warc
from caravela.errors import UserError
from caravela.sample.crawl import WARC_FILES, build_crawl
from tests.data.fuzz_checks import run
from tests.data.fuzz_mutations import gzip_bomb, kinds_for, mutated, zstandard_bomb
from tests.data.fuzz_sources import documents, member_starts, sources

MUTATIONS = 120
PAGES = [f"<html><body><p>Página número {i}: {'texto ' * 40}</p></body></html>".encode() for i in range(5)]


def record(page: bytes, length: bytes | None = None, kind: bytes = b"response") -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page
    length = b"%d" % len(http) if length is None else length
    return b"WARC/1.0\r\nWARC-Type: %s\r\nContent-Length: %s\r\n\r\n%s\r\n\r\n" % (kind, length, http)


CONTAINERS = {
    "a.warc": b"".join,
    "a.warc.gz": lambda parts: b"".join(map(gzip.compress, parts)),
    "a.warc.zst": lambda parts: b"".join(map(zstandard.compress, parts)),
    "one.warc.gz": lambda parts: gzip.compress(b"".join(parts)),
}


def read(name: str, data: bytes) -> tuple[list[bytes], list[str]]:
    """The pages of a file, and the problems in it."""
    found = documents(name, data)
    return [d.html for d in found if d.html is not None], [d.problem for d in found if d.problem]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_damaged_files_neither_crash_nor_hang_nor_lose_documents_in_silence(tmp_path: Path) -> None:
    build_crawl(str(tmp_path), 1)
    found = sources({WARC_FILES[0]: (tmp_path / WARC_FILES[0]).read_bytes()})
    endings = {source.name.partition(".")[2] for source in found}
    assert {
        "warc",
        "warc.gz",
        "warc.zst",
        "jsonl",
        "jsonl.gz",
        "jsonl.zst",
        "csv",
        "csv.gz",
        "parquet",
        "html",
    } <= endings
    assert run(found, seed=5, numbers=range(MUTATIONS)) == []


def test_mutation_of_a_number_is_always_the_same_and_all_kinds_occur(tmp_path: Path) -> None:
    build_crawl(str(tmp_path), 1)
    found = sources({WARC_FILES[0]: (tmp_path / WARC_FILES[0]).read_bytes()})
    first = [mutated(found, 2, number) for number in range(150)]
    assert first == [mutated(found, 2, number) for number in range(150)]
    assert first != [mutated(found, 3, number) for number in range(150)]
    for mutation in first:
        start, end = mutation.span()
        assert mutation.data[:start] == mutation.source.data[:start]
        assert mutation.data.endswith(mutation.source.data[end:])
    assert {m.kind for m in first} > {"bits", "truncated", "swapped"}
    assert {kind for source in found for kind in kinds_for(source)} >= {"bomb", "length", "header", "footer", "odd row"}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("length", [b"100000", b"999999999", b"99999999999999", b"4"])
def test_record_of_a_wrong_length_is_set_aside_and_costs_no_other(name: str, length: bytes) -> None:
    parts = [record(page, length if i == 2 else None) for i, page in enumerate(PAGES)]
    pages, problems = read(name, CONTAINERS[name](parts))
    assert pages == [page for i, page in enumerate(PAGES) if i != 2]
    assert problems == ["wrong_length"]


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("length", [b"9" * 5000, b"-1", b"", b"1e3", "٣".encode()])
def test_record_whose_length_is_no_number_is_set_aside_and_costs_no_other(name: str, length: bytes) -> None:
    parts = [record(page, length if i == 2 else None) for i, page in enumerate(PAGES)]
    pages, problems = read(name, CONTAINERS[name](parts))
    assert pages == [page for i, page in enumerate(PAGES) if i != 2]
    assert problems == ["bad_header"]


def test_page_that_quotes_a_record_is_read_whole() -> None:
    """What looks like a record within a page counts only where the page's length is wrong."""
    quoting = b"<html><pre>\r\n\r\n" + record(PAGES[0]) + b"</pre></html>"
    for name, container in CONTAINERS.items():
        assert read(name, container([record(PAGES[0]), record(quoting), record(PAGES[1])])) == (
            [PAGES[0], quoting, PAGES[1]],
            [],
        )


def test_damage_to_one_gzip_stream_keeps_every_record_before_it() -> None:
    parts = [record(page * 30) for page in PAGES]
    data = bytearray(gzip.compress(b"".join(parts)))
    data[len(data) * 3 // 4] ^= 0xFF
    whole = zlib.decompressobj(wbits=31).decompress(bytes(data[: len(data) * 3 // 4]))
    pages, problems = read("one.warc.gz", bytes(data))
    before = sum(len(b"".join(parts[: i + 1])) <= len(whole) for i in range(len(parts)))
    assert before >= 2
    assert pages[:before] == [page * 30 for page in PAGES[:before]]
    assert problems[0] in ("corrupt", "wrong_length")


def test_damage_that_makes_a_record_longer_is_told_once_as_damage() -> None:
    """More bytes than the record's header tells of, in a member whose checksum is wrong."""
    longer = gzip.compress(record(PAGES[2], length=b"100"))[:-8] + bytes(8)
    parts = [gzip.compress(record(PAGES[0])), longer, gzip.compress(record(PAGES[1]))]
    assert read("a.warc.gz", b"".join(parts)) == (PAGES[:2], ["corrupt"])


def test_member_that_damage_leaves_without_an_end_costs_no_other() -> None:
    """A stored block whose length is a lie takes the members behind it for its own content."""
    parts = [gzip.compress(record(page), compresslevel=0) for page in PAGES]
    size = len(record(PAGES[2]))
    assert parts[2][11:15] == size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little")
    lie = 40_000
    parts[2] = parts[2][:11] + lie.to_bytes(2, "little") + (lie ^ 0xFFFF).to_bytes(2, "little") + parts[2][15:]
    assert read("a.warc.gz", b"".join(parts)) == (PAGES, ["corrupt"])


@pytest.mark.parametrize("at", [4, 30, -1])
def test_damage_to_a_zstandard_frame_loses_that_record_only(at: int) -> None:
    frames = [zstandard.ZstdCompressor(write_checksum=True).compress(record(page)) for page in PAGES]
    frames[2] = frames[2][:at] + bytes([frames[2][at] ^ 0x55]) + frames[2][at + 1 or len(frames[2]) :]
    pages, problems = read("a.warc.zst", b"".join(frames))
    assert pages == [page for i, page in enumerate(PAGES) if i != 2]
    assert problems == ["corrupt"]


@pytest.mark.parametrize(("name", "bomb"), [("a.warc.gz", gzip_bomb()), ("a.warc.zst", zstandard_bomb())])
def test_member_that_stands_for_gigabytes_costs_no_record_and_is_never_held(name: str, bomb: bytes) -> None:
    parts = [CONTAINERS[name]([record(page)]) for page in PAGES]
    assert read(name, b"".join((*parts[:2], bomb, *parts[2:]))) == (PAGES, ["bad_header"])
    largest = max(len(chunk) for chunk in warc._decompressed(io.BytesIO(bomb)) if isinstance(chunk, bytes))
    assert largest <= 64 << 20


@pytest.mark.parametrize("encoding", [b"gzip", b"zstd"])
def test_page_that_stands_for_gigabytes_is_cut_at_the_limit(encoding: bytes) -> None:
    body = gzip_bomb() if encoding == b"gzip" else zstandard_bomb()
    content = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + encoding + b"\r\n\r\n" + body
    assert len(warc.parse_http(content, 1 << 20).body) == 1 << 20


def test_record_of_an_unknown_type_is_told() -> None:
    found = documents("a.warc", record(PAGES[0], kind=b"rfsponse") + record(PAGES[1], kind=b"metadata"))
    assert [(d.problem, d.detail) for d in found] == [("unknown_type", "WARC-Type: rfsponse")]
    assert not found[0].broken  # ISO 28500:2017, 5.5: to be passed over, not an error


def test_chunked_body_that_breaks_off_keeps_its_rest() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"4\r\nabcd\r\nzz\r\nefgh\r\n0\r\n\r\n"
    assert warc.parse_http(head + body, 1 << 20).body == b"abcd\r\nzz\r\nefgh\r\n0\r\n\r\n"
    words = "Decidiu-se ontem.\nE hoje também.".encode()
    assert warc.parse_http(head + words, 1 << 20).body == words


@pytest.mark.parametrize("declared", ["unicode_escape", "raw_unicode_escape", "charmap", "utf-16"])
def test_page_that_declares_what_no_page_is_in_is_read_as_it_looks(declared: str) -> None:
    page = f'<meta charset="{declared}">'.encode() + "C:\\nova\\u0041 é são".encode("cp1252")
    text, encoding = charset.decode(page)
    assert (text.partition(">")[2], encoding) == ("C:\\nova\\u0041 é são", "cp1252")


def test_charset_counts_in_bounded_memory() -> None:
    """Forty megabytes of two-byte sequences and one bad byte; matches as a list would be a gigabyte and more."""
    import tracemalloc

    data = "é".encode() * (8 << 20) + b"\xe9"
    tracemalloc.start()
    text, encoding = charset.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (encoding, text[-2:]) == ("utf-8", "éé")
    assert peak < 8 * len(data)


def test_parquet_with_times_that_python_does_not_know_is_read_whole() -> None:
    far = 1 << 62
    day = pa.array([-(1 << 30)], pa.date32())
    time = pa.array([far], pa.timestamp("us"))
    within = pa.array([{"at": far}], pa.struct([("at", pa.timestamp("us"))]))
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array(["um"]), "date": time, "dia": day, "dentro": within}), sink)
    (found,) = documents("a.parquet", sink.getvalue())
    assert (found.text, found.problem) == ("um", "")
    assert str(far) in found.date
    assert str(-(1 << 30)) in found.metadata["dia"]


def test_listing_of_two_gzip_members_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "warc.paths.gz"
    path.write_bytes(gzip.compress(b"a/1.warc.gz\n") + gzip.compress(b"a/2.warc.gz\n"))
    assert inputs.expand([str(path)], "https://host.example/") == [
        "https://host.example/a/1.warc.gz",
        "https://host.example/a/2.warc.gz",
    ]


@pytest.mark.parametrize("line", ["a/\0.warc.gz", "a/\x1b[2J.warc.gz"])
def test_listing_with_control_characters_is_refused_by_name(tmp_path: Path, line: str) -> None:
    path = tmp_path / "warc.paths"
    path.write_text(f"a/1.warc.gz\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"warc\.paths: not a listing"):
        inputs.expand([str(path)])


def test_record_types_that_hold_no_document_are_passed_over_and_told_types_are_known() -> None:
    known = {"warcinfo", "response", "resource", "request", "metadata", "revisit", "conversion", "continuation"}
    assert known == {*crawl_files.WITH_DOCUMENT, *crawl_files.WITHOUT_DOCUMENT}  # ISO 28500:2017, section 6


def test_member_starts_of_a_damaged_file_are_none() -> None:
    data = CONTAINERS["a.warc.gz"]([record(page) for page in PAGES])
    assert len(member_starts(data)) == len(PAGES)
    assert member_starts(data[:-3]) == []
    assert readers.format_of("a.warc.gz") == "warc"
