"""Exact and MinHash deduplication over a cluster, in steps that are pure functions of named files.

``signatures``  each shard of documents → its keys: one for the exact text, one per MinHash band, by range of the key.
``duplicates``  each range of keys → edges from every document of a bucket to the smallest that it is connected with.
``components``  all edges → the smallest document of each one's connected component, on one node or in rounds.
``members``     each shard's clustered documents, with what the priority needs, by cluster.
``candidates``  where removals are verified: each partition of clusters → the documents whose texts are compared.
``shingles``    ... and each shard of documents → their sets of shingles, by cluster.
``clusters``    each partition of clusters → the best document of each, and a decision for every other.
``dedup``       each shard of documents + its decisions → documents and removed.

A document is (shard, row) from the manifest, written as one number ``shard << 32 | row``; never the order of arrival.
"""
