"""A corpus with the cluster sizes of the Portuguese web, of any size, as a finished stage that deduplication reads.

``python benchmarks/dedup_corpus.py ROOT [--megabytes 300] [--seed 1] [--exact 0.3] [--documents TEXTS.jsonl.gz]``

Clusters have the sizes that FineWeb-2 publishes for Portuguese (misc/rehydration/distributions/por_Latn.json: 50.1 % of
the clusters are single documents, 13.9 % pairs ... and a tail of thousands; a document in four is kept). Their members
are spread over all shards. A document is a list of sentences: drawn from templates written here, or, with --documents,
from the sentences of a file's texts. Of each cluster one is as it was drawn; of the others a share is an exact copy,
and the rest was edited as copies on the web are: menus around it, cut short, sentences left out, put in or exchanged,
words changed, numbers and dates brought up to date, accents lost, all capitals.

The same options give the same bytes: a document depends on (seed, cluster, copy) alone, so shards can be made in any
order and memory holds one shard and 12 bytes per document. Id: ``cluster-copy``; copy 0 is the original.
"""

import argparse
import random
import time
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cluster_sizes import sizes_and_shares
from dedup_templates import sentence
from quality_speed import read

from caravela import schema
from caravela.stages import Shard, ShardOutput, Stage
from tests.road_without_ray import finish

SENTENCES = 120_000
BYTES_PER_DOCUMENT = 3060
"""FineWeb-2's mean for Portuguese."""
SHARD_MB = 64
BATCH_ROWS = 1024


def main() -> None:
    """Writes the corpus and says what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--megabytes", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--exact", type=float, default=0.3, help="share of a cluster's other documents that are equal")
    parser.add_argument("--documents", default="", help="texts whose sentences are taken; else from our templates")
    options = parser.parse_args()
    clock = time.perf_counter()
    done = finish(corpus_stage(options.root, options.megabytes, options.seed, options.exact, options.documents))
    counts, seconds = done.counters, time.perf_counter() - clock
    print(f"{counts['documents_kept']:,} documents of {counts['clusters']:,} clusters, {counts['bytes'] / 1e6:.1f} MB,")
    print(f"{len(done.shards)} shards at {done.uri}; {counts['bytes'] / 1e6 / seconds:.1f} MB/s")


def corpus_stage(root: str, megabytes: float, seed: int, exact: float = 0.3, documents: str = "") -> Stage:
    """The stage that makes the corpus."""
    config = {"megabytes": megabytes, "seed": seed, "exact": exact, "documents": Path(documents).name}

    def plan() -> list[Shard]:
        shards = max(1, round(megabytes / SHARD_MB))
        return [Shard(index=i, name=f"shard {i}", spec={"shards": shards}) for i in range(shards)]

    return Stage(
        name="corpus",
        version=1,
        root=root,
        config=config,
        inputs=(),
        plan=plan,
        make_worker=lambda: CorpusWorker(megabytes, seed, exact, documents),
    )


class CorpusWorker:
    """Writes the documents of one shard."""

    def __init__(self, megabytes: float, seed: int, exact: float, documents: str) -> None:
        self.seed, self.exact = seed, exact
        self.bank = _sentences_of(documents) if documents else _sentences(seed)
        self.sentences_mean = BYTES_PER_DOCUMENT * len(self.bank) / sum(len(each.encode()) + 1 for each in self.bank)
        self.cluster, self.copy = places(int(megabytes * 1e6 / BYTES_PER_DOCUMENT), seed)

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        shards = int(shard.spec["shards"])
        borders = np.linspace(0, len(self.cluster), shards + 1).astype(np.int64)
        begin, end = borders[shard.index : shard.index + 2].tolist()
        table, size = out.table("documents", schema.documents(["line_punct_ratio"])), 0
        for start in range(begin, end, BATCH_ROWS):
            stop = min(start + BATCH_ROWS, end)
            pairs = list(zip(self.cluster[start:stop].tolist(), self.copy[start:stop].tolist(), strict=True))
            texts = [self.document(cluster, copy) for cluster, copy in pairs]
            size += sum(len(text.encode("utf-8")) for text in texts)
            columns = {
                "id": [f"{cluster}-{copy}" for cluster, copy in pairs],
                "text": texts,
                "url": [f"https://sitio{cluster % 997}.example/{cluster}/{copy}" for cluster, copy in pairs],
                "source": ["corpus"] * len(pairs),
                "date": [f"2026-{cluster % 12 + 1:02d}-{copy % 28 + 1:02d}" for cluster, copy in pairs],
                "line_punct_ratio": [(cluster * 7 + copy * 3) % 10 / 10 for cluster, copy in pairs],
            }
            filled = {f.name: pa.array(columns.get(f.name, [None] * len(pairs)), f.type) for f in table.schema}
            table.add_columns(pa.RecordBatch.from_pydict(filled, schema=table.schema))
        originals = int((self.copy[begin:end] == 0).sum())
        return {"documents_in": end - begin, "documents_kept": end - begin, "clusters": originals, "bytes": size}

    def document(self, cluster: int, copy: int) -> str:
        """The text of one member of a cluster."""
        chance = random.Random((self.seed << 32) ^ cluster)
        count = max(1, round(chance.lognormvariate(-0.32, 0.8) * self.sentences_mean))
        drawn, size = chance.random, len(self.bank)
        parts = [self.bank[int(drawn() * size)] for _ in range(count)]
        if copy:
            chance = random.Random((self.seed << 32) ^ cluster ^ (copy << 48))
            if chance.random() >= self.exact:
                for _ in range(1 if chance.random() < 0.6 else 2):
                    edit = EDITS[int(chance.random() * len(EDITS))]
                    parts = edit(parts, min(0.6, chance.expovariate(8)), chance, self.bank)
        return joined(parts)


def joined(parts: list[str]) -> str:
    """Sentences as paragraphs of four."""
    return "\n".join(" ".join(parts[i : i + 4]) for i in range(0, len(parts), 4))


def places(documents: int, seed: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Cluster and copy of every document, in the order of the corpus."""
    random_numbers = np.random.default_rng(seed)
    sizes, shares = sizes_and_shares()
    drawn = random_numbers.choice(sizes, documents, p=shares)
    drawn = drawn[: int(np.searchsorted(np.cumsum(drawn), documents)) + 1]
    count = len(drawn)
    cluster = np.repeat(np.arange(count, dtype=np.int32), drawn)
    copy = (np.arange(len(cluster)) - np.repeat(np.cumsum(drawn) - drawn, drawn)).astype(np.int32)
    order = random_numbers.permutation(len(cluster))
    return cluster[order], copy[order]


def _sentences(seed: int) -> list[str]:
    chance = random.Random(seed)
    return [sentence(chance) for _ in range(SENTENCES)]


def _sentences_of(path: str) -> list[str]:
    """Sentences of a file's texts, each once."""
    found = dict.fromkeys(
        part.strip() + "." for text in read(path, "text") for line in text.split("\n") for part in line.split(". ")
    )
    return [each for each in found if 20 < len(each) < 600]


Edit = Callable[[list[str], float, random.Random, list[str]], list[str]]
"""Sentences, strength, chance, and all sentences that there are, to other sentences."""

MENU = ("Início Notícias Esportes Contato", "Leia também", "Compartilhe esta página", "Assine o nosso boletim",
        "Todos os direitos reservados", "Mapa do sítio Política de privacidade", "Publicidade", "Voltar ao topo",
        "Clique aqui para ver mais fotografias", "Comentários dos leitores", "Página anterior Próxima")  # fmt: skip


PLAIN = {c: unicodedata.normalize("NFD", chr(c))[0] for c in range(0xC0, 0x180) if chr(c).isalpha()}


def menus(parts: list[str], strength: float, chance: random.Random, bank: list[str]) -> list[str]:
    lines = chance.sample(MENU, min(len(MENU), 1 + int(strength * 20)))
    middle = len(lines) // 2
    return [*lines[:middle], *parts, *lines[middle:]]


def cut(parts: list[str], strength: float, chance: random.Random, bank: list[str]) -> list[str]:
    return [*parts[: max(1, int(len(parts) * (1 - strength)))], "Leia mais..."]


def left_out(parts: list[str], strength: float, chance: random.Random, bank: list[str]) -> list[str]:
    return [each for each in parts if chance.random() >= strength] or parts


def put_in(parts: list[str], strength: float, chance: random.Random, bank: list[str]) -> list[str]:
    fresh = [bank[int(chance.random() * len(bank))] for _ in range(1 + int(strength * len(parts)))]
    place = int(chance.random() * (len(parts) + 1))
    return [*parts[:place], *fresh, *parts[place:]]


def exchanged(parts: list[str], strength: float, chance: random.Random, bank: list[str]) -> list[str]:
    parts = list(parts)
    for i in range(len(parts) - 1):
        if chance.random() < strength:
            parts[i], parts[i + 1] = parts[i + 1], parts[i]
    return parts


def words_changed(parts: list[str], strength: float, chance: random.Random, bank: list[str]) -> list[str]:
    parts = list(parts)
    for _ in range(1 + int(strength * len(parts))):
        i = int(chance.random() * len(parts))
        words = parts[i].split(" ")
        words[int(chance.random() * len(words))] = chance.choice(("também", "ainda", "agora", "sempre", "já"))
        parts[i] = " ".join(words)
    return parts


def brought_up_to_date(parts: list[str], strength: float, chance: random.Random, bank: list[str]) -> list[str]:
    digits = str.maketrans("0123456789", "".join(chance.sample("0123456789", 10)))
    return [each.translate(digits) if chance.random() < strength else each for each in parts]


def accents_lost(parts: list[str], strength: float, chance: random.Random, bank: list[str]) -> list[str]:
    return [each.translate(PLAIN) for each in parts]


def capitals(parts: list[str], strength: float, chance: random.Random, bank: list[str]) -> list[str]:
    return [each.upper() for each in parts]


EDITS: tuple[Edit, ...] = (
    menus, menus, cut, cut, left_out, put_in, exchanged, words_changed, words_changed, words_changed,
    brought_up_to_date, accents_lost, capitals,
)  # fmt: skip


if __name__ == "__main__":
    main()
