"""Exact and MinHash deduplication over a cluster, in three steps that are pure functions of named files.

``signatures``  each shard of documents → its keys: one for the exact text, one per MinHash band, by partition.
``duplicates``  each partition of keys → edges from every document of a bucket to the bucket's first.
``clusters``    all edges → connected components, the best document of each, one decision file per input shard.
``dedup``       each shard of documents + its decisions → documents and removed.

A document is (shard, row) from the manifest, written as one number ``shard << 32 | row``; never the order of arrival.
"""
