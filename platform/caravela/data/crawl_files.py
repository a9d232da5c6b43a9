"""WARC and WET files, and single records of them, as raw documents.

In: a WARC in any container that ``caravela.data.warc`` reads. Out: pages (HTTP 200, HTML by what the server says or the
page shows), texts of WET records, and every other response as a problem: ``http_status``, ``not_html``, ``empty_body``,
``revisit``, or what is wrong with the record.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from caravela import storage
from caravela.data import charset, warc
from caravela.data.raw import FieldNames, RawDocument

HTML_TYPES = ("text/html", "application/xhtml+xml")
WITH_DOCUMENT = ("response", "resource", "conversion", "revisit")
WITHOUT_DOCUMENT = ("warcinfo", "request", "metadata", "continuation")
UNTOLD_TYPES = ("", "application/octet-stream", "text/plain", "unknown")


def read_warc(spec: Mapping[str, Any], names: FieldNames) -> Iterator[RawDocument]:
    """Every record of a WARC or WET file that is or should be a document."""
    source = storage.name_of(spec["uri"])
    with storage.open_read(spec["uri"]) as stream:
        for row, record in enumerate(warc.read_records(stream)):
            document = from_record(record, f"{source}#{row}", source)
            if document is not None:
                yield document


def from_record(record: warc.WarcRecord, row_id: str, source: str) -> RawDocument | None:
    """A WARC record as a document; None for records that hold none (request, metadata, warcinfo)."""
    if record.type in WITHOUT_DOCUMENT and not record.problem:
        return None
    known: dict[str, Any] = {
        "id": record.headers.get("warc-record-id", "") or row_id,
        "url": record.headers.get("warc-target-uri", "").strip("<>"),
        "date": record.headers.get("warc-date", ""),
        "source": source,
    }
    if record.problem:
        return RawDocument(**known, problem=record.problem, detail=row_id)
    if record.type not in WITH_DOCUMENT:
        return RawDocument(**known, problem="unknown_type", detail=f"WARC-Type: {record.type[:100]}")
    if record.type == "revisit":
        return RawDocument(**known, problem="revisit")
    if record.type == "conversion":
        return RawDocument(**known, text=charset.decode(record.content)[0])
    if record.type == "resource":
        return _page(known, record.headers.get("content-type", ""), record.content)
    if not record.headers.get("content-type", "application/http").lower().startswith("application/http"):
        return RawDocument(**known, problem="not_html", detail=record.headers["content-type"][:100])
    response = warc.parse_http(record.content, warc.MAX_CONTENT_BYTES)
    if response.problem and (response.status == 0 or not response.body):
        return RawDocument(**known, problem=response.problem)
    if response.status != 200:
        return RawDocument(**known, problem="http_status", detail=str(response.status))
    return _page(known, response.headers.get("content-type", ""), response.body)


def _page(known: Mapping[str, Any], content_type: str, body: bytes) -> RawDocument:
    if not body.strip():
        return RawDocument(**known, problem="empty_body")
    kind = content_type.split(";")[0].strip().lower()
    looks_like_html = b"<html" in body[:4096].lower() or b"<!doctype html" in body[:4096].lower()
    if kind not in HTML_TYPES and not (kind in UNTOLD_TYPES and looks_like_html):
        return RawDocument(**known, problem="not_html", detail=kind)
    return RawDocument(**known, html=body, header_charset=charset.header_charset(content_type))
