"""A checksum of keepers: whether every removed document names one that is kept, in its own cluster.

Over removed documents it is the sum of a hash of (cluster, id of the keeper that they name); over kept ones the sum of
the hash of (cluster, own id), times the number of documents that the cluster lost. Equal sums mean equal collections
(but for one chance in 2^40), so that no removed document has a keeper that is not there, was not kept or lies in
another cluster. Each shard adds up its own; nothing grows with the corpus, and nothing is read again. What it costs is
a hash of an id for each clustered document. A checksum is a counter: of 40 bits, sums over 8,192 shards are exact in
any reader of JSON.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from filters.dedup.tables import U64, spread

MODULUS = 1 << 40


def checksum(cluster: U64, ids: pa.ChunkedArray | pa.Array, times: npt.NDArray[np.integer[Any]] | None = None) -> int:
    """Of documents in ``cluster`` that are kept, or name as kept, ``ids``; each so many ``times``, once by default."""
    if not len(cluster):
        return 0
    named = np.array([xxhash.xxh3_64_intdigest(each.encode()) for each in ids.to_pylist()], np.uint64)
    hashes = spread(spread(cluster) ^ named)
    if times is not None:
        hashes = hashes * times.astype(np.uint64)
    return int(hashes.sum(dtype=np.uint64)) % MODULUS
