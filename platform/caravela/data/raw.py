"""One document as the readers hand it on, whatever file it comes from.

Out of every reader: ``RawDocument``: a page's bytes or a text, its id and what is known of it; or the ``problem`` why
it cannot be had. Everything that is in a file comes out as one or the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNWANTED = ("", "http_status", "not_html", "empty_body", "revisit", "unknown_type")
"""Problems of a record that is whole, and of no use."""


@dataclass(frozen=True, kw_only=True)
class FieldNames:
    """What JSONL keys, Parquet columns and CSV headers are called; the others are kept as metadata."""

    id: str = "id"
    """The document's own id; where it is absent, ``<input>#<row>`` serves."""
    text: str = "text"
    """The text, in UTF-8."""
    url: str = "url"
    """Where the document is from."""
    date: str = "date"
    """When it was written or fetched."""
    source: str = "source"
    """What collection it belongs to; where it is absent, the input's file name."""


@dataclass(frozen=True, slots=True)
class RawDocument:
    """One document as it stands in the input: ``html`` or ``text``, or a ``problem``."""

    id: str
    url: str = ""
    source: str = ""
    date: str = ""
    html: bytes | None = None
    header_charset: str = ""
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Why there is neither: ``corrupt``, ``truncated``, ``http_status``, ``not_html``, ``bad_json`` ..."""
    detail: str = ""

    @property
    def broken(self) -> bool:
        """Whether the input is damaged, rather than not of the kind that is wanted."""
        return self.problem not in UNWANTED
