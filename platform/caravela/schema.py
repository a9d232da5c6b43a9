"""The Arrow schemas of the tables that stages hand to one another.

* documents: one kept document a row. ``id`` is the source's own (WARC-Record-ID, an ``id`` field), else
  ``<input>#<row>``; ``row`` is its number in its input shard, from 0, so that kept and removed documents can be put
  back in the order of the input; signals are extra columns, one each, added by the stage that measures them.
* removed: every document that did not survive, with ``stage``, ``reason``, ``detail`` (for a duplicate: the id of
  the document that was kept instead) and the signals measured so far.
* packed: rows of ``row_tokens`` token ids (context + 1), with where each document begins in the row (one that began in
  the row before: at 0), its id, how many bytes of text the targets (all tokens but the first) stand for, which makes
  bits per byte exact, and how many tokens at the row's end are ``padding``. Padding has the id of ``</s>`` and belongs
  to no document: a target that is padding has no loss and counts nowhere (``data.rows.counted_targets``). As it comes
  last, no token that counts sees it.
"""

from collections.abc import Iterable

import pyarrow as pa

DOCUMENT_FIELDS: list[tuple[str, pa.DataType]] = [
    ("id", pa.string()),
    ("text", pa.string()),
    ("url", pa.string()),
    ("source", pa.string()),
    ("date", pa.string()),
    ("title", pa.string()),
    ("language", pa.string()),
    ("language_score", pa.float32()),
    ("variant", pa.string()),
    ("variant_score", pa.float32()),
    ("metadata", pa.string()),
    ("row", pa.int32()),
]
REMOVED_FIELDS: list[tuple[str, pa.DataType]] = [
    ("stage", pa.string()),
    ("reason", pa.string()),
    ("detail", pa.string()),
]


def documents(signals: Iterable[str] = ()) -> pa.Schema:
    """Schema of kept documents; each name in ``signals`` becomes a float32 column. ``metadata`` is a JSON object."""
    return pa.schema([*DOCUMENT_FIELDS, *((name, pa.float32()) for name in signals)])


def removed(signals: Iterable[str] = ()) -> pa.Schema:
    """Schema of removed documents: that of documents, and why each is here."""
    return pa.schema([*documents(signals), *REMOVED_FIELDS])


def packed(row_tokens: int, vocabulary_size: int) -> pa.Schema:
    """Schema of packed rows. Token ids are uint16 where the vocabulary fits, else uint32."""
    token = pa.uint16() if vocabulary_size <= 1 << 16 else pa.uint32()
    return pa.schema(
        [
            ("tokens", pa.list_(token, row_tokens)),
            ("document_starts", pa.list_(pa.int32())),
            ("document_ids", pa.list_(pa.string())),
            ("target_bytes", pa.int32()),
            ("padding", pa.int32()),
        ]
    )
