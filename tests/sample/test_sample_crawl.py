"""The sample crawl against readers that know nothing of its builder: warcio, http.client, trafilatura, arithmetic."""

import collections
import gzip
import hashlib
import html
import http.client
import io
import itertools
import json
import pathlib
import re
import tomllib
import zlib
from typing import Any, NamedTuple

import pytest
import trafilatura
from warcio.archiveiterator import ArchiveIterator

import caravela.sample
from caravela import stages
from caravela.sample.crawl import LABELS_FILE, WARC_FILES, CrawlWorker, SampleCrawlConfig, build_crawl, crawl_stage
from caravela.sample.duplicates import RECIPES, Edit, apply_edits
from caravela.sample.personal import CNPJ_WEIGHTS, CPF_WEIGHTS, NIF_WEIGHTS, check_digit

SEED = 20261121
SAMPLE = pathlib.Path(caravela.sample.__file__).parent
WITH_BASE = ("text", "near_duplicate", "mirror")


class Record(NamedTuple):
    file: str
    kind: str
    headers: dict[str, str]
    block: bytes

    @property
    def identity(self) -> str:
        return self.headers["WARC-Record-ID"]


class Crawl(NamedTuple):
    folder: pathlib.Path
    counters: dict[str, int]
    records: list[Record]
    labels: list[dict[str, Any]]

    def of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        return [label for label in self.labels if label["kind"] in kinds]

    def responses(self) -> dict[str, Record]:
        return {record.identity: record for record in self.records if record.kind == "response"}


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Crawl:
    folder = tmp_path_factory.mktemp("crawl")
    counters = build_crawl(str(folder), SEED)
    labels = [json.loads(line) for line in (folder / LABELS_FILE).read_text(encoding="utf-8").splitlines()]
    return Crawl(folder, counters, list(itertools.chain(*(read_warc(folder / name) for name in WARC_FILES))), labels)


def read_warc(path: pathlib.Path) -> list[Record]:
    """Records as warcio reads them, HTTP left alone, digests checked."""
    with path.open("rb") as file:
        return [
            Record(path.name, record.rec_type, dict(record.rec_headers.headers), record.raw_stream.read())
            for record in ArchiveIterator(file, no_record_parse=True, check_digests="raise")
        ]


class Wire:
    """A socket for http.client that holds a response."""

    def __init__(self, block: bytes) -> None:
        self.block = block

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.block)


def fetch(block: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    response = http.client.HTTPResponse(Wire(block))  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    return response, gzip.decompress(body) if response.getheader("Content-Encoding") == "gzip" else body


def exact_shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + 5]) for i in range(len(words) - 4)} or {" ".join(words)}


def exact_jaccard(a: str, b: str) -> float:
    first, second = exact_shingles(a), exact_shingles(b)
    return len(first & second) / len(first | second)


def test_texts_are_as_many_and_as_long_as_promised() -> None:
    lengths = {
        path.relative_to(SAMPLE / "texts").parts[0] + "/" + path.name: len(path.read_text(encoding="utf-8").split())
        for path in (SAMPLE / "texts").glob("*/*/*.txt")
    }
    languages = collections.Counter(name.partition("/")[0] for name in lengths)
    assert languages["pt-BR"] + languages["pt-PT"] >= 150
    assert min(languages["pt-BR"], languages["pt-PT"]) >= 50
    assert sum(languages[code] for code in ("es", "gl", "ca", "it", "fr", "en")) >= 60
    assert not {name: count for name, count in lengths.items() if not 150 <= count <= 600}


def test_two_builds_give_equal_bytes_and_another_seed_other_ones(crawl: Crawl, tmp_path: pathlib.Path) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "other").mkdir()
    build_crawl(str(tmp_path / "again"), SEED)
    build_crawl(str(tmp_path / "other"), SEED + 1)
    for name in (*WARC_FILES, LABELS_FILE):
        first = (crawl.folder / name).read_bytes()
        assert first == (tmp_path / "again" / name).read_bytes()
        assert first != (tmp_path / "other" / name).read_bytes()


def test_crawl_is_small_and_counted(crawl: Crawl) -> None:
    assert crawl.counters == {"pages": len(crawl.labels), "files": len(WARC_FILES)}
    assert 380 <= len(crawl.labels) <= 450
    assert sum((crawl.folder / name).stat().st_size for name in WARC_FILES) < 3_000_000


def test_every_record_is_one_gzip_member(crawl: Crawl) -> None:
    for name in WARC_FILES:
        data, members = (crawl.folder / name).read_bytes(), 0
        while data:
            member = zlib.decompressobj(31)
            assert member.decompress(data).startswith(b"WARC/1.0\r\n")
            assert data[4:8] == b"\0\0\0\0", "a gzip header with a time stamp"
            data, members = member.unused_data, members + 1
        assert members == sum(record.file == name for record in crawl.records)


def test_every_fetch_has_request_response_and_metadata(crawl: Crawl) -> None:
    identities = [record.identity for record in crawl.records]
    assert len(set(identities)) == len(identities)
    for name in WARC_FILES:
        first, *others = [record for record in crawl.records if record.file == name]
        assert first.kind == "warcinfo"
        triples = [others[i : i + 3] for i in range(0, len(others), 3)]
        if name == WARC_FILES[-1]:
            assert [record.kind for record in triples.pop()] == ["request", "response"]
        for request, response, metadata in triples:
            assert (request.kind, response.kind, metadata.kind) == ("request", "response", "metadata")
            for other in (request, metadata):
                assert other.headers["WARC-Concurrent-To"] == response.identity
                assert other.headers["WARC-Target-URI"] == response.headers["WARC-Target-URI"]


def test_labels_stand_in_the_order_of_the_responses(crawl: Crawl) -> None:
    found = [(r.identity, r.headers["WARC-Target-URI"], r.file) for r in crawl.records if r.kind == "response"]
    assert found == [(label["record_id"], label["url"], label["file"]) for label in crawl.labels]
    assert len({label["url"] for label in crawl.labels}) == len(crawl.labels)
    hosts = {label["url"].split("/")[2] for label in crawl.labels}
    assert all(host.endswith(".example") for host in hosts)


def test_last_file_ends_inside_its_last_record(crawl: Crawl) -> None:
    last = crawl.labels[-1]
    record = crawl.responses()[last["record_id"]]
    assert last["kind"] == "truncated"
    assert 0 < len(record.block) < int(record.headers["Content-Length"])
    with pytest.raises(EOFError):
        gzip.decompress((crawl.folder / WARC_FILES[-1]).read_bytes())
    for name in WARC_FILES[:-1]:
        gzip.decompress((crawl.folder / name).read_bytes())


def test_broken_header_stops_a_reader_that_trusts_it(crawl: Crawl) -> None:
    (label,) = crawl.of_kind("broken")
    assert label["keep"] is False
    with pytest.raises(http.client.BadStatusLine):
        fetch(crawl.responses()[label["record_id"]].block)


def test_responses_say_what_their_labels_say(crawl: Crawl) -> None:
    responses = crawl.responses()
    encodings: collections.Counter[tuple[str, ...]] = collections.Counter()
    for label in crawl.labels:
        if label["kind"] in ("broken", "truncated"):
            continue
        response, body = fetch(responses[label["record_id"]].block)
        assert response.status == label["status"]
        assert (response.getheader("Transfer-Encoding") == "chunked") == ("chunked" in label["body_encodings"])
        assert (response.getheader("Content-Encoding") == "gzip") == ("gzip" in label["body_encodings"])
        encodings[tuple(label["body_encodings"])] += 1
        header = re.search(r"charset=([\w-]+)", response.getheader("Content-Type", ""))
        meta = re.search(rb"<meta[^>]*charset=\"?([\w-]+)", body)
        declared = header[1] if header else meta[1].decode() if meta else None
        assert (declared and declared.lower()) == label["declared_charset"]
        if label["text"] is not None:
            visible = html.unescape(re.sub(r"<[^>]*>", "", body.decode(label["charset"])))
            cells = re.sub(r"\s+", "", visible)
            for paragraph in label["text"].split("\n"):
                assert re.sub(r"\s+", "", paragraph) in cells, (label["url"], paragraph)
    assert min(encodings[e] for e in [("gzip",), ("chunked",), ("gzip", "chunked")]) >= 2


def test_other_formats_are_what_they_claim(crawl: Crawl) -> None:
    bodies = {
        label["kind"]: fetch(crawl.responses()[label["record_id"]].block)
        for label in crawl.of_kind("pdf", "image", "empty", "redirect", "data")
    }
    assert bodies["empty"][1] == b""
    assert bodies["redirect"][0].status == 301
    assert bodies["redirect"][0].getheader("Location")
    assert bodies["image"][1][:6] == b"GIF89a"
    assert json.loads(bodies["data"][1])["cidade"] == "Pedra Lisa"
    pdf = bodies["pdf"][1]
    table = pdf[int(re.findall(rb"startxref\n(\d+)", pdf)[-1]) :]
    offsets = [int(offset) for offset in re.findall(rb"(\d{10}) 00000 n", table)]
    assert [pdf[o : o + 8] for o in offsets] == [b"%d 0 obj\n" % n for n in range(1, 6)]


def test_charsets_come_right_wrong_and_missing(crawl: Crawl) -> None:
    texts = crawl.of_kind(*WITH_BASE)
    pairs = collections.Counter((label["charset"], label["declared_charset"]) for label in texts)
    for charset in ("utf-8", "iso-8859-1", "windows-1252"):
        assert pairs[charset, charset] >= 10
        assert pairs[charset, None] >= 5
        assert sum(n for (true, said), n in pairs.items() if true == charset and said not in (charset, None)) >= 5
    responses = crawl.responses()
    windows_only = re.compile(rb"[\x80-\x9f]")
    typeset = [
        label for label in texts
        if label["charset"] == "windows-1252" and windows_only.search(fetch(responses[label["record_id"]].block)[1])
    ]  # fmt: skip
    assert len(typeset) >= 10, "pages whose bytes differ between ISO-8859-1 and Windows-1252"


def test_kinds_are_as_many_as_promised(crawl: Crawl) -> None:
    kinds = collections.Counter(label["kind"] for label in crawl.labels)
    at_least = {
        "near_duplicate": 40, "mirror": 20, "spam": 12, "link_list": 8, "repeated_lines": 8, "short": 8, "table": 6,
        "error_page": 2, "login": 1, "empty": 1, "pdf": 1, "image": 1, "redirect": 1, "broken": 1, "truncated": 1,
    }  # fmt: skip
    assert not {kind: kinds[kind] for kind, count in at_least.items() if kinds[kind] < count}
    assert kinds["text"] == len(list((SAMPLE / "texts").glob("*/*/*.txt")))
    for label in crawl.labels:
        assert label["keep"] == (label["junk_reason"] is None)
        assert label["keep"] == (label["kind"] in WITH_BASE and label["language"] == "pt"), label["url"]
        if label["kind"] in WITH_BASE:
            assert label["cluster"].split("/")[:2] == [label["variant"] or label["language"], label["register"]]


def test_jaccard_of_labels_is_exact_and_spread(crawl: Crawl) -> None:
    bases = {label["cluster"]: label["text"] for label in crawl.of_kind("text")}
    copies = crawl.of_kind("near_duplicate")
    for label in crawl.of_kind(*WITH_BASE):
        assert exact_jaccard(label["text"], bases[label["cluster"]]) == pytest.approx(label["jaccard"], abs=1e-6)
    assert all(label["jaccard"] == 1.0 for label in crawl.of_kind("text", "mirror"))
    assert all(0.29 <= label["jaccard"] <= 0.97 for label in copies)
    tenths = collections.Counter(int(label["jaccard"] * 10) for label in copies)
    assert min(tenths[tenth] for tenth in range(3, 10)) >= 5
    assert {label["recipe"] for label in copies} == set(RECIPES)


def test_pages_of_different_clusters_are_not_alike(crawl: Crawl) -> None:
    shingles = [(label["cluster"], exact_shingles(label["text"])) for label in crawl.of_kind("text", "near_duplicate")]
    alike = [
        (a, b) for (a, first), (b, second) in itertools.combinations(shingles, 2)
        if a != b and 10 * len(first & second) > len(first | second)
    ]  # fmt: skip
    assert not alike


def test_copies_stand_on_another_host_than_their_base(crawl: Crawl) -> None:
    hosts = {label["cluster"]: label["url"].split("/")[2] for label in crawl.of_kind("text")}
    for label in crawl.of_kind("near_duplicate", "mirror"):
        assert label["url"].split("/")[2] != hosts[label["cluster"]]


def test_check_digit_by_hand() -> None:
    # CPF 529.982.247-25: 5·10+2·9+9·8+9·7+8·6+2·5+2·4+4·3+7·2 = 295 = 26·11 + 9, and 11 - 9 = 2.
    assert check_digit([5, 2, 9, 9, 8, 2, 2, 4, 7], CPF_WEIGHTS) == 2
    # 5·11+2·10+9·9+9·8+8·7+2·6+2·5+4·4+7·3+2·2 = 347 = 31·11 + 6, and 11 - 6 = 5.
    assert check_digit([5, 2, 9, 9, 8, 2, 2, 4, 7, 2], CPF_WEIGHTS) == 5
    # CNPJ 11.222.333/0001-81: 1·5+1·4+2·3+2·2+2·9+3·8+3·7+3·6+0+0+0+1·2 = 102 = 9·11 + 3, and 11 - 3 = 8.
    assert check_digit([1, 1, 2, 2, 2, 3, 3, 3, 0, 0, 0, 1], CNPJ_WEIGHTS) == 8
    # NIF 123456789: 1·9+2·8+3·7+4·6+5·5+6·4+7·3+8·2 = 156 = 14·11 + 2, and 11 - 2 = 9.
    assert check_digit([1, 2, 3, 4, 5, 6, 7, 8], NIF_WEIGHTS) == 9
    # A remainder of 0 or 1 gives 0: 1·9+1·2 = 11.
    assert check_digit([1, 0, 0, 0, 0, 0, 0, 1], NIF_WEIGHTS) == 0


PERSONAL_PATTERNS = {
    "cpf": r"(?<!\d)\d{3}\.?\d{3}\.?\d{3}-\d{2}(?!\d)",
    "cnpj": r"\d{2}\.\d{3}\.\d{3}/\d{4}-\d{2}",
    "nif": r"(?<=NIF )\d[\d ]{7,10}\d|(?<=contribuinte n\.º )\d[\d ]{7,10}\d",
    "phone_br": r"\(?\d{2}\)? (?:90000|3000)-\d{4}",
    "phone_pt": r"(?:\+351 )?910 000 \d{3}|21 000 \d{2} \d{2}",
    "email": r"[\w.]+@[\w.]+\.example",
    "ip": r"\d+\.\d+\.\d+\.\d+",
    "cep": r"(?<=CEP )\d{5}-\d{3}",
    "postal_code_pt": r"(?<!\d)\d{4}-\d{3}(?= [A-Z])",
}


def test_personal_data_is_counted_and_valid(crawl: Crawl) -> None:
    pages = [label for label in crawl.labels if label["personal_data"]]
    assert len(pages) >= 15
    assert {kind for page in pages for kind in page["personal_data"]} == set(PERSONAL_PATTERNS)
    for page in pages:
        assert page["keep"]
        for kind, pattern in PERSONAL_PATTERNS.items():
            found = re.findall(pattern, page["text"])
            assert len(found) == page["personal_data"].get(kind, 0), (kind, found, page["text"][-200:])
            for item in found if kind in ("cpf", "cnpj", "nif") else ():
                assert has_valid_digits(kind, re.sub(r"\D", "", item)), item


def has_valid_digits(kind: str, digits: str) -> bool:
    """The official rules, each written out: no table of weights is shared with the builder."""
    d = [int(digit) for digit in digits]
    if kind == "cpf":
        first = sum(d[i] * (10 - i) for i in range(9)) * 10 % 11 % 10
        second = sum(d[i] * (11 - i) for i in range(10)) * 10 % 11 % 10
        return len(d) == 11 and d[9:] == [first, second]
    if kind == "cnpj":
        first = sum(x * (2 + i % 8) for i, x in enumerate(reversed(d[:12]))) * 10 % 11 % 10
        second = sum(x * (2 + i % 8) for i, x in enumerate(reversed(d[:13]))) * 10 % 11 % 10
        return len(d) == 14 and d[12:] == [first, second]
    return len(d) == 9 and d[8] == sum(d[i] * (9 - i) for i in range(8)) * 10 % 11 % 10


def test_decoys_look_personal_and_are_not(crawl: Crawl) -> None:
    decoys = [
        label for label in crawl.of_kind("text")
        if not label["personal_data"] and re.search(r"529\.982\.247-00|192\.168\.0\.1|123456780", label["text"])
    ]  # fmt: skip
    assert len(decoys) == 3
    assert not has_valid_digits("cpf", "52998224700")
    assert not has_valid_digits("nif", "123456780")


def test_trafilatura_finds_the_text_and_leaves_the_menu(crawl: Crawl) -> None:
    responses = crawl.responses()
    furniture = tomllib.loads((SAMPLE / "furniture.toml").read_text(encoding="utf-8"))
    pages = [p for p in crawl.of_kind("text") if p["charset"] == "utf-8" and not p["body_encodings"]][::4]
    assert len({page["url"].split("/")[2] for page in pages}) >= 15, "too few sites in the sample"
    for page in pages:
        _, body = fetch(responses[page["record_id"]].block)
        extracted = trafilatura.extract(body.decode("utf-8"), include_comments=False, url=page["url"]) or ""
        wanted = collections.Counter(re.findall(r"\w+", page["text"].lower()))
        found = collections.Counter(re.findall(r"\w+", extracted.lower()))
        common = (wanted & found).total()
        assert common >= 0.95 * wanted.total(), page["url"]
        assert common >= 0.85 * found.total(), page["url"]
        words = furniture[page["variant"] or page["language"]]
        assert " ".join(words["nav"][:3]) not in " ".join(extracted.split())
        for piece in (words["cookie"], words["rights"], words["leave_comment"], words["newsletter"]):
            assert piece not in extracted, page["url"]


def test_apply_edits_inside_a_longer_edit_is_void() -> None:
    text = "Um dois três. Quatro cinco.\nSeis."
    edits = [Edit(3, 7, "xxx"), Edit(0, 14, ""), Edit(28, 33, "Sete."), Edit(0, 0, "Zero. ")]
    assert apply_edits(text, edits) == "Zero. Quatro cinco.\nSete."


def test_shard_of_the_stage_has_the_bytes_of_a_plain_build(crawl: Crawl, tmp_path: pathlib.Path) -> None:
    stage = crawl_stage(str(tmp_path), SampleCrawlConfig(enabled=True))
    (shard,) = stage.plan()
    row = {"index": shard.index, "name": shard.name, "spec": json.dumps(shard.spec)}
    record = json.loads(stages.run_shard(row, stage.make_worker(), stage.uri)["record"])
    assert isinstance(stage.make_worker(), CrawlWorker)
    assert record["counters"] == crawl.counters
    assert {file["path"]: file["sha256"] for file in record["files"]} == {
        name: hashlib.sha256((crawl.folder / name).read_bytes()).hexdigest() for name in (*WARC_FILES, LABELS_FILE)
    }


def test_stage_directory_depends_on_the_seed_alone() -> None:
    first = crawl_stage("root", SampleCrawlConfig(enabled=True))
    assert first.uri == crawl_stage("root", SampleCrawlConfig()).uri
    assert first.uri != crawl_stage("root", SampleCrawlConfig(seed=7)).uri
