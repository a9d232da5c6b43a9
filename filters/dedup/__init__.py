"""Exact and MinHash deduplication over a cluster, in steps that are pure functions of named files.

``signatures``  each shard of documents → its keys: one for the exact text, one per MinHash band, by range of the key.
``duplicates``  each range of keys → edges from every document of a bucket to the smallest that it is connected with.
``components``  all edges → the smallest document of each one's connected component, on one node or in rounds.
``members``     each shard's clustered documents, with what the priority needs, by cluster.
``candidates``  where removals are verified: each partition of clusters → the documents whose texts are compared.
``shingles``    ... and each shard of documents → their sets of shingles, by cluster.
``clusters``    each partition of clusters → the best document of each, and a decision for every other.
``dedup``       each shard of documents + its decisions → documents and removed.

Where ``dedup.spans`` is on, three more take repeated sentences or lines out of what is left:

``spans``           each shard of documents → the hashes of its spans, by range of the hash.
``repeated_spans``  each range of hashes → which spans are repeats, by shard.
``trim``            each shard of documents + its repeats → documents without them, removed, and what was cut out.

A document is (shard, row) from the manifest, written as one number ``shard << 32 | row``; never the order of arrival.
"""
