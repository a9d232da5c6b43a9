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

Scale, measured on two cores (``benchmarks/dedup_scale.py``, generated signatures, default settings): what clustering
takes does not grow with the corpus. Processor time and disk are per document, memory is the largest process.

====================  ================  ===============  ================  ==================
documents             other stages      components flat  components rounds  peak, bytes on disk
====================  ================  ===============  ================  ==================
1 million             12.9 µs           1.5 µs           4.5 µs            1.2 GB, 227
5 million             12.9 µs           0.9 µs           10.1 µs           1.4 GB, 268
20 million            13.9 µs           1.1 µs                             1.7 GB, 298
====================  ================  ===============  ================  ==================

On paper, for all that FineWeb-2 has of Portuguese: 2.6 billion documents of 3 KB, 8 TB, on 50 nodes of 16 cores and 64
GB. They have 2.6e9 · 15 keys. With ``curate.shard_mb = 2048``, ``keys_per_partition = 64_000_000`` and
``members_per_partition = 4_000_000`` there are 3,900 shards of 670,000 documents, 1,024 partitions of 38 million keys
and 1,024 of 2.2 million members (87 % are in clusters). Bytes are the measured ones per document times 2.6e9; time is
processor time over 800 cores; a read is a request for a range of a file, and takes 15 ms on object storage, one after
another in each task.

==========  ===========================  ==========  ===============  ===================  ==========================
stage       reads                        writes      memory per task  time to compute      requests
==========  ===========================  ==========  ===============  ===================  ==========================
signatures  8 TB                         0.94 TB     1.3 GB           94 s (106 MB/s/core)
duplicates  0.47 TB                      0.2 TB      2.7 GB           20 s                 3,900 · 1,024 · 2 = 8 M
components  0.2 TB, less in each round   24 GB       2.3 GB           33 s                 1,024² · 2 = 2 M each round
members     24 GB + 0.47 TB              0.39 TB     0.6 GB           4 s                  1,024 · 3,900 · 3 = 12 M
clusters    0.39 TB                      0.1 TB      1.4 GB           14 s                 3,900 · 1,024 · 2 = 8 M
dedup       8 TB + 0.1 TB                8 TB        0.3 GB           77 s (130 MB/s/core) 1,024 · 3,900 · 3 = 12 M
==========  ===========================  ==========  ===============  ===================  ==========================

So computing is 4 minutes, and small reads are what limits: with ten rounds 60 million, 60e6 · 15 ms / 800 = 19 minutes
at 53,000 a second. Object storage that answers 5,500 a second (S3 for a prefix that it has not divided yet) needs 3
hours. Their number is shards times partitions: with the default settings, made for smaller corpora, it would be 62,000
shards and 4,096 partitions, 3 billion reads, 15 hours at best; hence the three settings above. What would take most of
the rest away is one more stage that puts the files of many shards together, partition by partition; there is none yet.

One task can also find all components: 9 · 2.6e9 + 60 · 2^27 bytes = 31 GB (``clustering_memory_mb = 32_000``), and 50
minutes at the time per document measured for 20 million, more where the processor's caches miss more often.

The driver holds a description for each shard, of a few hundred bytes, and the manifests. A cluster is in one partition:
memory of ``clusters`` grows with the largest one, 0.6 GB for a million documents.
"""
