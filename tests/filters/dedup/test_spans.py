"""Repeated sentences and lines against brute force in plain Python, without Ray."""

import dataclasses
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from caravela import schema, stages
from caravela.cluster import ClusterConfig
from caravela.config import ConfigError
from caravela.errors import UserError
from caravela.manifest import Manifest
from caravela.progress import StageProgress
from caravela.reporting.collect import Limits, collect
from caravela.reporting.page import render
from caravela.reporting.reasons import explanation
from caravela.stages import Shard, ShardOutput, Stage
from filters import browse
from filters.browse import BrowseConfig
from filters.dedup import span_kernels
from filters.dedup.config import DedupConfig, SpansConfig
from filters.dedup.road import SPAN_STAGES, dedup_stages
from filters.dedup.sentences import split
from filters.dedup.spans import repeated_spans_stage, spans_stage
from filters.dedup.trim import trim_stage
from tests.road_without_ray import finish

Row = dict[str, Any]


class Documents:
    """Writes given rows, those of each shard together."""

    def __init__(self, shards: Sequence[Sequence[Row]]) -> None:
        self.shards = shards

    def __call__(self, shard: Shard, out: ShardOutput) -> dict[str, int]:
        own = self.shards[shard.index]
        table = out.table("documents", schema.documents(["line_punct_ratio"]))
        for row in own:
            table.add({"source": "s", "date": "", "metadata": "{}", **row})
        size = sum(len((row["text"] or "").encode()) for row in own)
        return {"documents_in": len(own), "documents_kept": len(own), "bytes_in": size, "bytes_kept": size}


def written(root: Path, name: str, rows: Sequence[Row], shards: int) -> Stage:
    """A stage of documents in so many shards, in the order of ``rows``."""
    borders = [len(rows) * i // max(1, shards) for i in range(shards + 1)]
    parts = [rows[a:b] for a, b in pairwise(borders)]
    plan = [Shard(index=i, name=str(i), spec={}) for i in range(shards)]
    stage = Stage(
        name=name,
        version=1,
        root=str(root),
        config={"shards": shards},
        inputs=(),
        plan=lambda: plan,
        make_worker=lambda: Documents(parts),
    )
    finish(stage)
    return stage


def trimmed(root: Path, rows: Sequence[Row], config: SpansConfig, shards: int = 3, **settings: Any) -> list[Manifest]:
    """The manifests of the three stages, on rows taken as what deduplication has left."""
    whole = DedupConfig(spans=config, **settings)
    dedup = written(root, "dedup", rows, shards).as_input()
    spans = spans_stage(str(root), whole, dedup)
    repeated = repeated_spans_stage(str(root), whole, spans.as_input())
    trim = trim_stage(str(root), config, dedup, spans.as_input(), repeated.as_input())
    return [finish(stage) for stage in (spans, repeated, trim)]


def table(done: Manifest, name: str) -> list[Row]:
    return [row for uri in done.uris(name) for row in pq.read_table(uri).to_pylist()]


def rows_of(texts: Iterable[str | None]) -> list[Row]:
    return [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)]


# The oracle: dictionaries of tuples of words.


def words_of(text: str) -> tuple[str, ...]:
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return tuple(re.findall(r"[^\W_]+", plain))


def brute_force(rows: Sequence[Row], config: SpansConfig) -> dict[str, tuple[str, int]]:
    """Id → the text without its repeated spans, and how many words it has; of documents that lose something."""
    seen: dict[tuple[tuple[str, ...], ...], list[str]] = defaultdict(list)
    result = {}
    for row in rows:
        pieces = split(row["text"], config.unit)
        with_words = [i for i, piece in enumerate(pieces) if words_of(piece)]
        gone: set[int] = set()
        for first in range(len(with_words) - config.length + 1):
            places = with_words[first : first + config.length]
            span = tuple(words_of(pieces[i]) for i in places)
            if sum(map(len, span)) < config.min_words:
                continue
            before = seen[span] if config.within_documents else set(seen[span]) - {row["id"]}
            if len(before) >= config.keep:
                gone.update(range(places[0], places[-1] + 1))
            seen[span].append(row["id"])
        if gone:
            left = sum(len(words_of(piece)) for i, piece in enumerate(pieces) if i not in gone)
            result[row["id"]] = without(row["text"], pieces, gone), left
    return result


def without(text: str, pieces: Sequence[str], gone: set[int]) -> str:
    """The pieces that stay, with the white space between them: of two stretches the one with more line breaks."""
    begins, at = [], 0
    for piece in pieces:
        begins.append(text.index(piece, at))
        at = begins[-1] + len(piece)
    ends = [begin + len(piece) for begin, piece in zip(begins, pieces, strict=True)]
    out, last = text[: begins[0]], -1
    for i, piece in enumerate(pieces):
        if i in gone:
            continue
        if last >= 0 and i == last + 1:
            out += text[ends[last] : begins[i]]
        elif last >= 0:
            spaces = text[ends[last] : begins[last + 1]], text[ends[i - 1] : begins[i]]
            out += max(spaces, key=lambda space: space.count("\n"))
        out, last = out + piece, i
    return out + text[ends[-1] :]


POOL = [
    f"{who} {verb} {what} {where}{mark}"
    for who in ("O barco", "A menina", "Meu avô", "Ninguém")
    for verb in ("viu", "perdeu", "não comprou")
    for what, where, mark in (("a rede", "no cais", "."), ("o pão", "à tarde", "!"), ("2 peixes", "na feira", "…"))
]


def corpus(seed: int, count: int = 120) -> list[Row]:
    """Documents of sentences from a small pool, passages of others, blank lines, ornaments, other spellings."""
    chance = random.Random(seed)
    texts: list[str] = []
    for i in range(count):
        pieces = []
        for _ in range(chance.randrange(9)):
            piece = chance.choice([*POOL, f"Frase própria número {i} {chance.randrange(99)}.", "* * *"])
            kind = chance.random()
            piece = piece.upper() if kind < 0.1 else piece.replace(" ", "  ", 1) if kind < 0.2 else piece
            pieces.append(piece + chance.choice([" ", " ", "\n", "\n\n", " \n"]))
        if texts and chance.random() < 0.5:
            pieces.insert(chance.randrange(len(pieces) + 1), chance.choice(texts) + chance.choice(["\n\n", " "]))
        texts.append("".join(pieces).rstrip() if chance.random() < 0.8 else "".join(pieces))
    return rows_of(texts)


CONFIGS = (
    SpansConfig(unit="sentences", min_words=1, min_document_words=0),
    SpansConfig(unit="sentences", min_words=14, min_document_words=20),
    SpansConfig(unit="sentences", sentences=1, min_words=4, min_document_words=6, keep=3),
    SpansConfig(unit="sentences", sentences=2, min_words=1, min_document_words=0, within_documents=False),
    SpansConfig(unit="lines", min_words=1, min_document_words=0),
    SpansConfig(unit="lines", min_words=6, min_document_words=30, keep=2, within_documents=False),
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.unit}-{c.length}-{c.keep}-{c.within_documents}")
def test_trim_equals_brute_force_and_loses_nothing(tmp_path: Path, config: SpansConfig) -> None:
    rows = corpus(seed=1)
    expected = brute_force(rows, config)
    assert len(expected) > 20
    _, _, done = trimmed(tmp_path, rows, config)
    kept, removed, cuts = (table(done, name) for name in ("documents", "removed", "cuts"))
    least = max(1, config.min_document_words)
    short = {identifier for identifier, (_, left) in expected.items() if left < least}
    text = {row["id"]: row["text"] for row in rows}
    assert [row["id"] for row in kept] == [row["id"] for row in rows if row["id"] not in short]
    assert {row["id"]: row["text"] for row in kept} == {
        row["id"]: expected.get(row["id"], (row["text"],))[0] for row in rows if row["id"] not in short
    }
    assert {row["id"]: row["text"] for row in removed} == {identifier: text[identifier] for identifier in short}
    assert {(row["stage"], row["reason"]) for row in removed} <= {("spans", "too_short_after_spans")}
    assert {row["id"]: row["detail"] for row in removed} == {i: f"{expected[i][1]} words are left" for i in short}
    # Put back in, what was cut out gives the texts as they were.
    of_document = defaultdict(list)
    for cut in cuts:
        of_document[cut["id"]].append(cut)
    for row in kept:
        whole = row["text"].encode()
        for cut in sorted(of_document[row["id"]], key=lambda cut: cut["start"]):
            whole = whole[: cut["start"]] + cut["text"].encode() + whole[cut["start"] :]
        assert whole.decode() == text[row["id"]]
        assert row["cut_bytes"] == len(whole) - len(row["text"].encode())
    counted = done.counters
    assert counted["documents_in"] == len(rows)
    assert counted["documents_cut"] == len(expected) - len(short)
    assert counted["bytes_cut"] == sum(len(cut["text"].encode()) for cut in cuts) == sum(r["cut_bytes"] for r in kept)
    assert counted["bytes_in"] == sum(len(t.encode()) for t in text.values())


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[3], CONFIGS[4]], ids=["sentences", "two", "lines"])
def test_every_sentence_that_goes_stays_somewhere(tmp_path: Path, config: SpansConfig) -> None:
    rows = corpus(seed=2)
    _, _, done = trimmed(tmp_path, rows, config)
    before, after = (
        {words_of(piece) for row in each for piece in split(row["text"], config.unit)}
        for each in (rows, table(done, "documents"))
    )
    assert before == after
    assert done.counters["bytes_kept"] < done.counters["bytes_in"]


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_trim_gives_the_same_documents_for_any_number_of_shards_and_partitions(tmp_path: Path, shards: int) -> None:
    rows = corpus(seed=3)
    few = dataclasses.replace(CONFIGS[0], spans_per_partition=20)
    _, _, expected = trimmed(tmp_path / "expected", rows, CONFIGS[0], shards=3)
    spans, repeated, found = trimmed(tmp_path / "found", rows, few, shards=shards)
    assert len(repeated.shards) > 1
    for name in ("documents", "removed", "cuts"):
        assert table(found, name) == table(expected, name)
    assert spans.counters["local_repeats"] + repeated.counters["repeats"] == expected.counters["repeats"]
    assert (repeated.counters["repeats"] == 0) == (shards == 1)


def test_trim_gives_the_same_bytes_in_whatever_order_shards_are_done(tmp_path: Path) -> None:
    config = DedupConfig(spans=dataclasses.replace(CONFIGS[2], spans_per_partition=50))
    rows = corpus(seed=4)

    def shuffled(stage: Stage, shards: Sequence[Shard], progress: StageProgress) -> Iterable[Any]:
        return stages.run_in_driver(stage, random.Random(stage.name).sample(shards, len(shards)), progress)

    sums = []
    for execute in (None, shuffled):
        root = tmp_path / str(execute is None)
        dedup = written(root, "dedup", rows, 5).as_input()
        spans = spans_stage(str(root), config, dedup)
        repeated = repeated_spans_stage(str(root), config, spans.as_input())
        trim = trim_stage(str(root), config.spans, dedup, spans.as_input(), repeated.as_input())
        done = [
            stages.run(dataclasses.replace(stage, in_driver=True, execute=execute), ClusterConfig())
            for stage in (spans, repeated, trim)
        ]
        sums.append([file.sha256 for each in done for shard in each.shards for file in shard.files])
    assert sums[0] == sums[1]
    assert len(sums[0]) > 20


@pytest.mark.parametrize("unit", ["sentences", "lines"])
def test_nothing_goes_where_nothing_repeats(tmp_path: Path, unit: Any) -> None:
    texts = [f"Primeira frase {i}. Segunda frase {i}.\nTerceira {i}!  \n\nQuarta frase {i}.  " for i in range(50)]
    config = SpansConfig(unit=unit, min_words=1, min_document_words=50)
    _, _, done = trimmed(tmp_path, rows_of([*texts, "", None, "Só uma frase.", " \n "]), config)
    assert [row["text"] for row in table(done, "documents")] == [*texts, "", None, "Só uma frase.", " \n "]
    assert {row["cut_bytes"] for row in table(done, "documents")} == {0}
    assert table(done, "removed") == table(done, "cuts") == []


def test_empty_short_and_wholly_repeated_documents(tmp_path: Path) -> None:
    whole = "Uma frase qualquer aqui. Outra frase logo depois. A terceira frase fecha."
    texts = ["", None, "Uma frase.", whole, "Uma frase.", whole.upper(), f"\n{whole}\n\n***\n", "", whole[:-1]]
    config = SpansConfig(unit="sentences", min_words=1, min_document_words=0)
    _, _, done = trimmed(tmp_path, rows_of(texts), config, shards=2)
    assert [row["text"] for row in table(done, "documents")] == ["", None, "Uma frase.", whole, "Uma frase.", ""]
    assert [row["id"] for row in table(done, "removed")] == ["d5", "d6", "d8"]
    assert [row["text"] for row in table(done, "removed")] == [texts[5], texts[6], texts[8]]


@pytest.mark.parametrize("shards", [0, 2])
def test_run_without_documents_ends_without_documents(tmp_path: Path, shards: int) -> None:
    *_, done = trimmed(tmp_path, [], CONFIGS[0], shards=shards)
    assert table(done, "documents") == []
    assert len(done.shards) == shards


def test_paragraphs_keep_their_breaks(tmp_path: Path) -> None:
    menu = "Início da página. Fale conosco agora. Mapa do site aqui."
    texts = [
        menu,
        f"{menu} Começa o texto.\n\nSegue o texto.",
        f"{menu}\n\nCom título acima.",
        f"Um parágrafo antes.\n\n{menu}\n\nUm parágrafo depois.",
        f"Antes na linha. {menu} Depois na linha.",
        f"Antes do fim. {menu}\n\nOutro parágrafo.",
        f"Título\n{menu} Resto da linha.",
        f"Fim de conversa.\n\n{menu}\n",
    ]
    config = SpansConfig(unit="sentences", min_words=1, min_document_words=0)
    _, _, done = trimmed(tmp_path, rows_of(texts), config)
    assert [row["text"] for row in table(done, "documents")] == [
        menu,
        "Começa o texto.\n\nSegue o texto.",
        "Com título acima.",
        "Um parágrafo antes.\n\nUm parágrafo depois.",
        "Antes na linha. Depois na linha.",
        "Antes do fim.\n\nOutro parágrafo.",
        "Título\nResto da linha.",
        "Fim de conversa.\n",
    ]


def test_refrain_goes_within_a_document_only_if_set(tmp_path: Path) -> None:
    refrain = "Ó mar salgado de manhã.\nÓ mar salgado de tarde.\nÓ mar salgado de noite."
    song = f"{refrain}\n\nPrimeira estrofe do canto.\n\n{refrain}"
    config = SpansConfig(unit="sentences", min_words=1, min_document_words=0)
    _, _, done = trimmed(tmp_path / "as C4", rows_of([song]), config)
    assert table(done, "documents")[0]["text"] == f"{refrain}\n\nPrimeira estrofe do canto."
    across = dataclasses.replace(config, within_documents=False)
    _, _, done = trimmed(tmp_path / "across", rows_of([song, f"Cópia do refrão.\n\n{song}"]), across)
    assert [row["text"] for row in table(done, "documents")] == [song, "Cópia do refrão."]


def test_span_on_many_pages_of_a_shard_costs_its_partition_few_rows(tmp_path: Path) -> None:
    texts = [f"Todos os direitos reservados ao jornal.\nNotícia {i} do dia." for i in range(300)]
    config = SpansConfig(unit="lines", min_words=5, min_document_words=0, keep=2)
    spans, repeated, done = trimmed(tmp_path, rows_of(texts), config, shards=3)
    assert spans.counters["spans"] == 300
    assert repeated.counters["spans"] == 3 * 2
    assert [row["text"].count("direitos") for row in table(done, "documents")] == [1, 1, *[0] * 298]


def test_scope_keeps_spans_of_different_sources_apart(tmp_path: Path) -> None:
    line = "Aviso que está em todas as páginas."
    rows = [{"id": f"{s}{i}", "text": f"{line}\nTexto {s} {i}.", "source": s} for s in "ab" for i in range(2)]
    config = SpansConfig(unit="lines", min_words=5, min_document_words=0)
    for scope, expected in (((), 1), (("source",), 2)):
        _, _, done = trimmed(tmp_path / str(expected), rows, config, scope=scope)
        assert sum(line in row["text"] for row in table(done, "documents")) == expected
    with pytest.raises(UserError, match="no column 'crawl' for dedup; it has id, text"):
        trimmed(tmp_path / "wrong", rows, config, scope=("crawl",))


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("keep", [1, 2])
def test_repeats_tells_apart_what_shares_a_key(keep: int, within: bool) -> None:
    chance = random.Random(keep)
    count = 3000
    keys = sorted(chance.randrange(40) for _ in range(count))
    checks = [chance.randrange(4) if key % 2 else 7 for key in keys]
    documents = [0] * count
    for i in range(1, count):  # ascending within a key, as in the input
        documents[i] = documents[i - 1] + chance.randrange(2) if keys[i] == keys[i - 1] else 0
    seen: Counter[tuple[int, int]] = Counter()
    met: dict[tuple[int, int], set[int]] = defaultdict(set)
    expected = []
    for key, check, document in zip(keys, checks, documents, strict=True):
        before = seen[key, check] if within else len(met[key, check] - {document})
        expected.append(before >= keep)
        seen[key, check] += 1
        met[key, check].add(document)
    arrays = np.array(keys, np.uint64), np.array(checks, np.uint32), np.array(documents, np.uint64)
    assert span_kernels.repeats(*arrays, keep, within).tolist() == expected


def test_config_names_the_wrong_value() -> None:
    for name in ("sentences", "min_words", "keep", "spans_per_partition"):
        with pytest.raises(ConfigError, match=f"{name} = 0: expected 1 or more"):
            SpansConfig(**{name: 0})
    with pytest.raises(ConfigError, match="min_document_words = -1: expected 0 or more"):
        SpansConfig(min_document_words=-1)


# With the stages before.


def distinct(seed: int, count: int) -> list[Row]:
    """Documents that are no near-duplicates of one another, with a notice on every other one."""
    chance = random.Random(seed)
    notice = "Assine o jornal agora. Receba as notícias em casa. Cancele quando quiser."
    rows = []
    for i in range(count):
        own = [f"Frase com {' '.join(f'termo{chance.randrange(9999)}' for _ in range(9))}." for _ in range(12)]
        own.insert(chance.randrange(13), notice if i % 2 else "Sem aviso.")
        rows.append({"id": f"{seed}-{i}", "text": " ".join(own)})
    return rows


SPANS = SpansConfig(unit="sentences", min_words=5, min_document_words=20)


def deduplicated(root: Path, rows: Sequence[Row], config: DedupConfig, shards: int = 2) -> list[Manifest]:
    curated = written(root, "curate", rows, shards).as_input()
    return [finish(stage) for stage in dedup_stages(str(root), config, curated)]


def test_stages_are_there_only_where_set_and_leave_the_others_as_they_are(tmp_path: Path) -> None:
    curated = written(tmp_path, "curate", distinct(1, 4), 1).as_input()
    off = dedup_stages(str(tmp_path), DedupConfig(), curated)
    on = dedup_stages(str(tmp_path), DedupConfig(spans=SPANS), curated)
    assert not {stage.name for stage in off} & set(SPAN_STAGES)
    assert [stage.name for stage in on] == [*(stage.name for stage in off), *SPAN_STAGES]
    assert [stage.fingerprint for stage in off] == [stage.fingerprint for stage in on[: len(off)]]


def test_spans_of_an_index_come_first(tmp_path: Path) -> None:
    old, new = distinct(2, 20), [*distinct(3, 10), *distinct(2, 20)[:3]]
    unlike = dataclasses.replace(SPANS, spans_per_partition=3)  # other partitions than those of the index
    deduplicated(tmp_path / "old", old, DedupConfig(spans=SPANS))
    index = (str(tmp_path / "old"),)
    *_, done = deduplicated(tmp_path / "new", new, DedupConfig(spans=unlike, index=index))
    *_, together = deduplicated(tmp_path / "both", [*old, *new], DedupConfig(spans=SPANS), shards=4)
    names = {row["id"] for row in new[:10]}
    expected = {row["id"]: row["text"] for row in table(together, "documents") if row["id"] in names}
    assert {row["id"]: row["text"] for row in table(done, "documents")} == expected
    assert not any("Assine" in text for text in expected.values())
    *_, alone = deduplicated(tmp_path / "alone", new, DedupConfig(spans=SPANS))
    assert sum("Assine" in row["text"] for row in table(alone, "documents")) == 1


def test_spans_with_an_index_that_cannot_serve_is_one_clear_error(tmp_path: Path) -> None:
    rows = distinct(4, 6)
    deduplicated(tmp_path / "without", rows, DedupConfig())
    deduplicated(tmp_path / "other", rows, DedupConfig(spans=SPANS))
    config = DedupConfig(spans=SPANS, index=(str(tmp_path / "without"),))
    with pytest.raises(UserError, match="has no finished stage spans"):
        deduplicated(tmp_path / "a", rows, config)
    lines = DedupConfig(spans=dataclasses.replace(SPANS, unit="lines"), index=(str(tmp_path / "other"),))
    with pytest.raises(UserError, match="were made with unit = sentences, this run has lines; make them equal"):
        deduplicated(tmp_path / "b", rows, lines)


def test_report_and_page_of_removed_documents_show_what_went(tmp_path: Path) -> None:
    notice = distinct(5, 2)[1]
    short = {
        "id": "short",
        "text": "Poucas palavras só. " + "Assine o jornal agora. Receba as notícias em casa. Cancele.",
    }
    rows = [notice, *distinct(6, 9), {**short, "text": short["text"].replace("Cancele.", "Cancele quando quiser.")}]
    done = deduplicated(tmp_path, rows, DedupConfig(spans=SPANS))
    found = {stage.stage: stage for stage in done}
    trim = found["trim"].counters
    figures = collect(str(tmp_path), found, [], Limits(examples=3, excerpt_characters=300, parts=4))
    assert (figures["spans"]["repeats"], figures["spans"]["documents_cut"]) == (5, 4)
    assert figures["spans"]["bytes_in"] == sum(figures["spans"][f"bytes_{n}"] for n in ("cut", "removed", "kept"))
    assert figures["funnel"][-1] == {"step": "repeated text", "documents": 10, "bytes": trim["bytes_kept"]}
    assert figures["headline"]["bytes_of_text"] == trim["bytes_kept"]
    removed = [row for row in figures["removed"] if row["step"] == "spans"]
    assert [(row["reason"], row["documents"]) for row in removed] == [("too_short_after_spans", 1)]
    assert explanation("too_short_after_spans")
    page = render({"title": "", **figures})
    assert "5 (" in page.split('id="spans"')[1]
    assert "Receba as notícias em casa." in page.split('id="spans"')[1]
    groups = list(browse.collect(found["trim"], BrowseConfig()))
    assert [(group.reason, [row["id"] for row in group.removed]) for group in groups] == [
        ("too_short_after_spans", ["short"])
    ]
