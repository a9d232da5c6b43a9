"""Pages picked by Common Crawl's columnar index, and only their bytes fetched.

In: the index's Parquet files (columns as in ``COLUMNS``; of them the languages, status and type are read first, and the
places of records only from row groups in which something is picked). A row is picked when its languages hold one of the
wanted, its status is 200 and its detected type HTML.
Out: shards, each a run of places (WARC file, offset, length) in the order of file name and offset, and from a shard the
raw documents. Portuguese is some 2 % of a crawl, and so costs some 2 % of its bytes, plus a part of the index.

A request takes in neighbouring records where the gap between them is small. Each record is parsed on its own; one that
is not there or is damaged is a problem of that name, with the WARC file and the offset as its id.

Cost: planning reads the index's six columns in the driver and keeps 16 bytes for each picked record, later 16
characters in its shard. Not read: the index's ``url`` (its widest column, and the record has it) and
``content_charset`` (the record's header and the page say it too).
"""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caravela import storage
from caravela.config import ConfigError
from caravela.data import warc
from caravela.data.crawl_files import HTML_TYPES, from_record
from caravela.data.inputs import COMMON_CRAWL, expand, in_parallel
from caravela.data.raw import FieldNames, RawDocument
from caravela.errors import UserError

PICKED_BY = ("content_languages", "fetch_status", "content_mime_detected")
PLACE = ("warc_filename", "warc_record_offset", "warc_record_length")
COLUMNS = (*PICKED_BY, *PLACE)
MAX_REQUEST_BYTES = 16 << 20
INDEX_BLOCK_BYTES = 1 << 18
INDEX_THREADS = 4  # each holds the columns of a row group
RANGE = np.dtype([("offset", "<i8"), ("length", "<i4")])


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Which pages are picked by which index."""

    files: tuple[str, ...] = ()
    """The index's Parquet files, globs, or Common Crawl's ``cc-index-table.paths.gz``. Empty: no index is used."""
    languages: tuple[str, ...] = ("por",)
    """Codes of ISO 639-3, as CLD2 found them in the page."""
    match: str = "primary"
    """``primary``: the page's main language must be one of these; ``any``: one of its up to three."""
    warc_prefix: str = COMMON_CRAWL
    """What the index's ``warc_filename`` stands below: ``s3://commoncrawl/`` and a local folder will do too."""
    paths_prefix: str = COMMON_CRAWL
    """What the lines of a ``.paths`` listing stand below."""
    max_gap_kb: int = 16
    """Records of a file with at most this much between them are fetched in one request, the gap included."""

    def __post_init__(self) -> None:
        bad = [code for code in self.languages if not re.fullmatch("[a-z]{3}", code)]
        if bad or not self.languages:
            raise ConfigError(f'languages = {list(self.languages)}: expected three-letter codes such as "por"')
        if self.match not in ("primary", "any"):
            raise ConfigError(f"match = {self.match!r}: expected primary or any")
        if self.max_gap_kb < 0:
            raise ConfigError(f"max_gap_kb = {self.max_gap_kb}: expected 0 or more")


def index_files(config: IndexConfig) -> list[str]:
    """The Parquet files of the index. Of a listing of a whole crawl, those of its ``warc`` subset: the pages.

    Raises:
        UserError: a pattern matches nothing, or a file is not Parquet by its name.
    """
    found = expand(config.files, config.paths_prefix, "curate.index.files")
    uris = [uri for uri in found if re.search("/subset=(?!warc/)", uri) is None]
    for uri in uris:
        if not storage.name_of(uri).endswith(".parquet"):
            raise UserError(f"{storage.shown(uri)}: expected a Parquet file of the columnar index (curate.index.files)")
    return uris


class Places(NamedTuple):
    """Where picked records are; the arrays are equally long."""

    names: list[str]
    """WARC file names, each once."""
    file: np.ndarray[Any, np.dtype[np.int32]]
    """Which of the names."""
    offset: np.ndarray[Any, np.dtype[np.int64]]
    length: np.ndarray[Any, np.dtype[np.int32]]


def pick(uri: str, config: IndexConfig) -> Places:
    """The places of the records that one index file's rows pick; a row without a place gets length 0.

    Raises:
        UserError: not Parquet, damaged, or without one of the columns.
    """
    try:
        with storage.open_read(uri, INDEX_BLOCK_BYTES) as stream:
            file = pq.ParquetFile(stream)
            if missing := [name for name in COLUMNS if name not in file.schema_arrow.names]:
                raise UserError(f"{storage.shown(uri)}: not a columnar index: no column {', '.join(missing)}")
            return _merged([_picked(file, group, config) for group in range(file.num_row_groups)])
    except FileNotFoundError:
        raise UserError(f"{storage.shown(uri)}: no such index file (curate.index.files)") from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{storage.shown(uri)}: the index cannot be read: {reason}") from error


def _picked(file: pq.ParquetFile, group: int, config: IndexConfig) -> Places:
    signs = file.read_row_group(group, columns=list(PICKED_BY))
    codes = "|".join(config.languages)
    pattern = f"^({codes})(,|$)" if config.match == "primary" else f"(^|,)({codes})(,|$)"
    mask = pc.match_substring_regex(signs["content_languages"].cast(pa.string()), pattern)
    mask = pc.and_(mask, pc.equal(signs["fetch_status"], 200))
    mask = pc.and_(mask, pc.is_in(signs["content_mime_detected"].cast(pa.string()), value_set=pa.array(HTML_TYPES)))
    mask = pc.fill_null(mask, False)
    if not pc.any(mask).as_py():
        return _merged([])
    places = file.read_row_group(group, columns=list(PLACE)).filter(mask)
    names = pc.fill_null(places["warc_filename"].cast(pa.string()), "").combine_chunks().dictionary_encode()
    offset, length = (pc.fill_null(places[name].cast(pa.int64()), -1).to_numpy() for name in PLACE[1:])
    fits = (offset >= 0) & (length > 0) & (length <= warc.MAX_CONTENT_BYTES)
    return Places(
        names.dictionary.to_pylist(),
        names.indices.to_numpy().astype(np.int32),
        np.where(fits, offset, 0),
        np.where(fits, length, 0).astype(np.int32),
    )


def _merged(parts: Sequence[Places]) -> Places:
    """The parts as one, in the order of file name, offset, length; a place named twice once."""
    names = sorted({name for part in parts for name in part.names})
    number = {name: i for i, name in enumerate(names)}
    columns = []
    for part in parts:
        renumbered = np.array([number[name] for name in part.names], dtype=np.int32)
        columns.append((renumbered[part.file], part.offset, part.length))
    file, offset, length = (
        np.concatenate([np.empty(0, kind), *(column[i] for column in columns)]).astype(kind)
        for i, kind in enumerate((np.int32, np.int64, np.int32))
    )
    order = np.lexsort((length, offset, file))
    file, offset, length = file[order], offset[order], length[order]
    again = (file[1:] == file[:-1]) & (offset[1:] == offset[:-1]) & (length[1:] == length[:-1]) & (length[1:] > 0)
    kept = np.concatenate([np.ones(min(1, len(file)), bool), ~again])
    return Places(names, file[kept], offset[kept], length[kept])


def plan(config: IndexConfig, shard_bytes: int) -> list[tuple[str, dict[str, Any]]]:
    """Names and specs of shards of at most ``shard_bytes`` of records each, or of one record that is larger."""
    found = _merged(in_parallel(lambda uri: pick(uri, config), index_files(config), INDEX_THREADS))
    if not len(found.file):
        wanted = ", ".join(config.languages)
        raise UserError(f"curate.index: no page of {wanted} (match = {config.match}) in {', '.join(config.files)}")
    specs = []
    for first, last in _runs(found.length, shard_bytes):
        starts = np.flatnonzero(np.diff(found.file[first:last], prepend=-1)) + first
        files = []
        for start, end in zip(starts, [*starts[1:], last], strict=True):
            ranges = np.empty(end - start, RANGE)
            ranges["offset"], ranges["length"] = found.offset[start:end], found.length[start:end]
            files.append([found.names[found.file[start]], base64.b64encode(ranges.tobytes()).decode("ascii")])
        name = f"{storage.name_of(files[0][0])}@{found.offset[first]}"
        spec = {"kind": "records", "uri": files[0][0], "prefix": storage.absolute(config.warc_prefix), "files": files}
        specs.append((name, {**spec, "max_gap_bytes": config.max_gap_kb << 10}))
    return specs


def _runs(lengths: np.ndarray[Any, np.dtype[np.int32]], most: int) -> Iterator[tuple[int, int]]:
    """Runs of consecutive records whose lengths add up to at most ``most``, each as long as it can be."""
    ends, first = np.cumsum(lengths, dtype=np.int64), 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield first, last
        first = last


def read_records(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
    """One raw document for each place of a shard, in order."""
    for name, encoded in spec["files"]:
        ranges = np.frombuffer(base64.b64decode(encoded), RANGE)
        uri, source = storage.join(spec["prefix"], name), storage.name_of(name)
        for group in _requests(ranges, spec["max_gap_bytes"]):
            start = int(group["offset"][0])
            end = int((group["offset"] + group["length"]).max())
            absent = "" if name else "the index names no file"
            try:
                data = storage.read_range(uri, start, end) if name else b""
            except FileNotFoundError:
                data, absent = b"", "no such file"
            for offset, length in zip(group["offset"].tolist(), group["length"].tolist(), strict=True):
                piece = data[offset - start : offset - start + length]
                yield _document(piece, length, f"{source}@{offset}", source, absent)


def _requests(
    ranges: np.ndarray[Any, np.dtype[np.void]], max_gap_bytes: int
) -> Iterator[np.ndarray[Any, np.dtype[np.void]]]:
    """Runs of records that are fetched together: close to one another, and not more than fits into memory easily."""
    first, end = 0, 0
    for i, (offset, length) in enumerate(ranges.tolist()):
        far = offset - end > max_gap_bytes or offset + length - int(ranges["offset"][first]) > MAX_REQUEST_BYTES
        if i > first and far:
            yield ranges[first:i]
            first, end = i, 0
        end = max(end, offset + length)
    if len(ranges):
        yield ranges[first:]


def _document(piece: bytes, length: int, row_id: str, source: str, absent: str) -> RawDocument:
    """The document of one place: what the index promised, or the problem that stands there instead."""
    if not piece:
        reason = absent or ("beyond the file's end" if length else "the index gives no usable offset and length")
        return RawDocument(id=row_id, source=source, problem="missing_record", detail=reason)
    if len(piece) < length:
        return RawDocument(id=row_id, source=source, problem="truncated", detail="the file ends within the record")
    for record in warc.read_records(io.BytesIO(piece)):
        if (document := from_record(record, row_id, source)) is not None:
            return document
    return RawDocument(id=row_id, source=source, problem="missing_record", detail="no response record at this place")
