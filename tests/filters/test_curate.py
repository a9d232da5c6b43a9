"""Curation of a shard, without Ray: every record is kept or removed with its step and reason."""

import hashlib
import json
import random
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caravela import stages, storage
from caravela.config import ConfigError
from caravela.data import readers, tables
from caravela.data.evaluation_items import ItemFile
from caravela.errors import UserError
from caravela.manifest import Manifest
from filters.c4 import C4Config
from filters.curate import CurateConfig, curate_stages
from filters.datatrove_blocks import BlockConfig
from filters.decontamination import DecontaminationConfig
from filters.language import LanguageConfig
from filters.quality import SIGNALS, QualityConfig, signals_of
from filters.repeated_lines import RepeatedLinesConfig
from filters.text_classifier import ClassifierConfig
from filters.training import trainer
from filters.training.trainer import FastTextConfig
from filters.url_rules import UrlConfig, UrlPatterns
from tests.road_without_ray import finish

TEXTS = Path(__file__).parents[2] / "platform" / "caravela" / "sample" / "texts"


EXAM_QUESTION = "Qual das barragens abaixo alimenta o canal que rega os arrozais entre a serra e a lagoa salgada?"


def sample(language: str, register: str) -> str:
    return sorted((TEXTS / language / register).glob("*.txt"))[0].read_text(encoding="utf-8")


def rows(done: Manifest, table: str) -> list[dict[str, object]]:
    return [row for uri in done.uris(table) for row in pq.read_table(uri).to_pylist()]


def curated(tmp_path: Path, lines: list[object], **settings: object) -> Manifest:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    config = CurateConfig(inputs=(str(path),), **settings)  # type: ignore[arg-type]
    return [finish(stage) for stage in curate_stages(str(tmp_path / "run"), config)][-1]


def test_curate_gives_each_document_one_place_and_one_reason(tmp_path: Path) -> None:
    done = curated(
        tmp_path,
        [
            {"id": "good", "text": sample("pt-BR", "news"), "nota": "x"},
            {"id": "spanish", "text": sample("es", "news")},
            {
                "id": "short",
                "text": "Página não encontrada. Volte à página inicial para continuar a navegação no site.",
            },
            {"id": "empty", "text": "  "},
            "{broken",
        ],
        max_broken_share=0.5,
    )
    kept, removed = rows(done, "documents"), rows(done, "removed")
    assert [row["id"] for row in kept] == ["good"]
    assert kept[0]["text"] == sample("pt-BR", "news")
    assert json.loads(str(kept[0]["metadata"]))["nota"] == "x"
    assert kept[0]["language"] == "pt"
    assert all(kept[0][name] is not None for name in SIGNALS)
    steps = {row["id"]: row["stage"] for row in removed}
    broken = next(i for i in steps if i.startswith("in.jsonl#"))
    assert steps == {"spanish": "language", "short": "quality", "empty": "extract", broken: "read"}
    assert all(row["reason"] for row in removed)
    assert done.counters["documents_in"] == 5 == done.counters["documents_kept"] + len(removed)


def test_curate_with_the_portuguese_preset_stores_its_signals_and_names_its_reasons(tmp_path: Path) -> None:
    broken = sample("pt-BR", "news").replace("ã", "\ufffd").replace("é", "\ufffd")
    lines: list[object] = [{"id": "good", "text": sample("pt-BR", "news")}, {"id": "broken", "text": broken}]
    preset = QualityConfig(preset="portuguese")
    done = curated(tmp_path, lines, quality=preset)
    kept, removed = rows(done, "documents"), rows(done, "removed")
    assert [row["id"] for row in kept] == ["good"]
    assert [(row["id"], row["reason"]) for row in removed] == [("broken", "portuguese_quality.broken_ratio")]
    assert len(signals_of(preset)) == len(SIGNALS) + 8
    for row in (*kept, *removed):
        assert all(row[name] is not None for name in signals_of(preset))


def test_curate_funnel_counts_what_each_step_lets_through(tmp_path: Path) -> None:
    done = curated(tmp_path, [{"text": sample("pt-PT", "news")}, {"text": sample("fr", "news")}, {"text": ""}])
    counts = {entry["step"]: entry["documents"] for entry in done.summary["funnel"]}
    assert counts == {"in": 3, "read": 3, "extract": 2, "language": 1, "quality": 1}
    size = len(sample("pt-PT", "news").encode())
    assert [e["bytes"] for e in done.summary["funnel"] if e["step"] == "quality"] == [size]


def test_curate_refuses_input_that_is_mostly_broken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 of 3 records are damaged \(67%\).*max_broken_share = 0.1"):
        curated(tmp_path, ["{broken", "[", {"text": sample("pt-BR", "news")}])


def test_curate_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    lines: list[object] = [{"id": f"{r}", "text": sample("pt-BR", r)} for r in ("news", "howto", "legal", "shop")]
    sums = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sums.append([f.sha256 for s in curated(tmp_path / name, lines).shards for f in s.files])
    assert sums[0] == sums[1]


def test_curate_thresholds_change_the_directory_and_paths_do_not(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    inputs = (str(tmp_path / "in.jsonl"),)
    (base,) = curate_stages("run", CurateConfig(inputs=inputs))
    assert curate_stages("elsewhere", CurateConfig(inputs=inputs))[-1].fingerprint == base.fingerprint
    assert curate_stages("run", CurateConfig(inputs=inputs, shard_mb=7))[-1].fingerprint != base.fingerprint
    assert curate_stages("run", CurateConfig(inputs=inputs, max_broken_share=1.0))[-1].fingerprint == base.fingerprint


def test_curate_without_input_says_what_to_set() -> None:
    with pytest.raises(UserError, match=r"curate\.inputs"):
        curate_stages("run", CurateConfig())


def test_curate_takes_documents_through_every_optional_step(tmp_path: Path) -> None:
    brazilian, european = sample("pt-BR", "news"), sample("pt-PT", "news")
    items = tmp_path / "prova.jsonl"
    items.write_text(json.dumps({"id": "7", "question": EXAM_QUESTION}), encoding="utf-8")
    done = curated(
        tmp_path,
        [
            {"id": "denied", "text": brazilian, "url": "https://www.spam.example/a"},
            {"id": "braces", "text": brazilian + "\nif (x) { y }"},
            {"id": "brazilian", "text": brazilian + "\nEscreva para fulano@exemplo.com.br e peça a receita."},
            {"id": "european", "text": european + "\nEste sítio usa JavaScript para tudo."},
            {"id": "exam", "text": brazilian + "\n" + EXAM_QUESTION},
            {"id": "lorem", "text": brazilian + "\nTem lorem ipsum nesta linha."},
        ],
        decontamination=DecontaminationConfig(enabled=True, items=(ItemFile(uri=str(items), task="prova"),)),
        c4=C4Config(enabled=True, filter_no_terminal_punct=False, filter_curly_bracket=False),
        url=UrlConfig(deny=UrlPatterns(domains=("spam.example",))),
        blocks=(BlockConfig(name="C4QualityFilter", arguments={"filter_no_terminal_punct": False}),),
    )
    removed = {row["id"]: (row["stage"], row["reason"]) for row in rows(done, "removed")}
    assert removed["denied"] == ("url", "deny_domain")
    assert removed["exam"] == ("decontamination", "contaminated")
    exam = next(row for row in rows(done, "removed") if row["id"] == "exam")
    assert exam["contamination"] == 1
    assert json.loads(str(exam["metadata"]))["contaminated_by"] == "prova/7"
    assert removed["lorem"] == ("c4", "lorem_ipsum")
    assert removed["braces"][0] == "blocks"
    kept = {row["id"]: row for row in rows(done, "documents")}
    assert {name: row["variant"] for name, row in kept.items()} == {"brazilian": "pt-BR", "european": "pt-PT"}
    assert kept["european"]["text"] == "\n".join(line for line in european.splitlines() if line.strip())
    assert "fulano@exemplo" not in str(kept["brazilian"]["text"])
    assert json.loads(str(kept["brazilian"]["metadata"]))["personal_data"] == {"email": 1}
    assert done.counters["personal_data.email"] == 1
    assert [entry["step"] for entry in done.summary["funnel"]] == [
        "in", "read", "url", "extract", "language", "quality", "c4", "blocks",
        "decontamination",
    ]  # fmt: skip


def test_curate_drops_lines_that_a_site_repeats(tmp_path: Path) -> None:
    menu = "Assine a newsletter e receba as notícias da semana em primeira mão."
    texts = [sample("pt-BR", register) for register in ("news", "encyclopedia", "howto", "technical", "shop")]
    lines: list[object] = [
        {"id": str(i), "text": f"{menu}\n{text}", "url": f"https://site.example/{i}"} for i, text in enumerate(texts)
    ]
    done = curated(tmp_path, lines, repeated_lines=RepeatedLinesConfig(enabled=True, min_pages=5))
    every = rows(done, "documents") + rows(done, "removed")
    assert {row["id"]: row["text"] for row in every} == {str(i): text.strip() for i, text in enumerate(texts)}
    assert done.counters["lines_dropped"] == 5


def everything(done: Manifest) -> list[dict[str, object]]:
    """Kept and removed documents in the order of the input."""
    return sorted(rows(done, "documents") + rows(done, "removed"), key=lambda row: int(str(row["row"])))


def test_curate_numbers_kept_and_removed_documents_as_they_stood_in_the_input(tmp_path: Path) -> None:
    news, spanish = sample("pt-PT", "news"), sample("es", "news")
    done = curated(tmp_path, [{"id": str(i), "text": text} for i, text in enumerate([news, spanish, "", news])])
    assert [(row["id"], row["row"]) for row in everything(done)] == [("0", 0), ("1", 1), ("2", 2), ("3", 3)]


def test_curate_masks_personal_data_in_whatever_is_portuguese_kept_or_not(tmp_path: Path) -> None:
    line = "\nEscreva para fulano@exemplo.com.br."
    texts = {
        "kept": sample("pt-BR", "news") + line,
        "quality": "Não há nada aqui para ver, e o resto da página também não foi encontrado." + line,
        "blocks": sample("pt-BR", "news") + "\nif (x) { y }" + line,
        "language": sample("es", "news") + line,
    }
    done = curated(
        tmp_path,
        [{"id": name, "text": text} for name, text in texts.items()],
        blocks=(BlockConfig(name="C4QualityFilter", arguments={"filter_no_terminal_punct": False}),),
    )
    found = {str(row["id"]): row for row in everything(done)}
    assert {name: row.get("stage") for name, row in found.items()} == {**{name: name for name in texts}, "kept": None}
    masked = {name for name, row in found.items() if "<EMAIL>" in str(row["text"]) and "fulano" not in str(row["text"])}
    assert masked == {"kept", "quality", "blocks"}
    assert [name for name, row in found.items() if row["variant_score"] is not None] == ["kept"]
    assert done.counters["personal_data.email"] == 3


def test_curate_decides_on_the_language_score_that_it_stores(tmp_path: Path) -> None:
    text = sample("pt-BR", "news") + "\n" + sample("es", "news")
    languages = ("pt", "es")
    (row,) = everything(
        curated(tmp_path, [{"text": text}], language=LanguageConfig(languages=languages, threshold=0.0))
    )
    score = float(str(row["language_score"]))
    for step, threshold in enumerate([np.nextafter(score, 0), score, np.nextafter(score, 1)]):
        (tmp_path / str(step)).mkdir()
        config = LanguageConfig(languages=languages, threshold=float(threshold))
        (again,) = everything(curated(tmp_path / str(step), [{"text": text}], language=config))
        assert (again.get("stage") == "language") == (score < threshold)


def parts(done: Manifest) -> list[str]:
    return [file.sha256 for shard in done.shards for file in shard.files]


def write_mixed_documents(path: Path) -> None:
    chance = random.Random(2)
    texts = [sample(language, "news") for language in ("pt-BR", "pt-PT", "es")]
    texts += ["", "curto", "Ã© mojibake, e\u0301 assim.", texts[0] + "\nfulano@exemplo.com.br", texts[1] + "\x07"]
    some = [texts[chance.randrange(len(texts))] for _ in range(200)]
    columns = {
        "text": [text * chance.randrange(3) for text in some],
        "nota": [i if i % 3 else None for i in range(200)],
    }
    pq.write_table(pa.table(columns), path, row_group_size=90)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_curate_gives_the_same_bytes_whatever_the_borders_of_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(stages, "ROW_GROUP_BYTES", 20_000)
    path = tmp_path / f"in.{ending}"
    write_mixed_documents(tmp_path / "in.parquet")
    if ending == "jsonl":
        every = pq.read_table(tmp_path / "in.parquet").to_pylist()
        path.write_text("".join(json.dumps(row) + "\n" for row in every), encoding="utf-8")
    found = []
    for documents, size in ((1, 1 << 20), (7, 1 << 20), (10_000, 20_000), (10_000, 1 << 30)):
        monkeypatch.setattr(readers, "BATCH_DOCUMENTS", documents)
        monkeypatch.setattr(readers, "BATCH_BYTES", size)
        monkeypatch.setattr(tables, "PARQUET_BATCH_ROWS", documents)
        monkeypatch.setattr(tables, "PARQUET_BATCH_BYTES", size)
        root = tmp_path / f"{documents}-{size}"
        (stage,) = curate_stages(str(root), CurateConfig(inputs=(str(path),)))
        done = finish(stage)
        found.append((parts(done), done.counters, done.summary))
    assert found[1:] == found[:1] * 3
    with storage.open_read(done.uris("documents")[0]) as stream:
        assert pq.ParquetFile(stream).metadata.num_row_groups > 2
    assert done.counters["documents_in"] == 200 == done.counters["documents_kept"] + len(rows(done, "removed"))


def quality_model(folder: Path, lines: list[str]) -> str:
    """A classifier that knows news from laws and the like."""
    (folder / "lines").write_text("".join(lines), encoding="utf-8")
    config = FastTextConfig(dim=8, epochs=30, buckets=1000, shortest_part=0, longest_part=0)
    trainer.train(str(folder / "lines"), config, str(folder / "model.bin"))
    return str(folder / "model.bin")


def test_curate_scores_by_classifiers_of_ones_own_and_removes_by_their_thresholds(tmp_path: Path) -> None:
    texts = {f"{v}-{r}": sample(v, r) for v in ("pt-BR", "pt-PT") for r in ("news", "legal", "howto")}
    one_line = {name: " ".join(text.split()) for name, text in texts.items()}
    label = {name: "__label__keep" if name.endswith("news") else "__label__drop" for name in texts}
    uri = quality_model(tmp_path, [f"{label[name]} {text}\n" for name, text in one_line.items()] * 20)
    masked = one_line["pt-BR-news"] + " Escreva para fulano@exemplo.com.br."
    documents: list[object] = [{"id": name, "text": text} for name, text in {**one_line, "masked": masked}.items()]
    documents.append({"id": "spanish", "text": sample("es", "news")})
    own = fasttext.load_model(uri)

    def curated_with(name: str, *classifiers: ClassifierConfig) -> dict[str, dict[str, object]]:
        (tmp_path / name).mkdir()
        done = curated(tmp_path / name, documents, classifiers=classifiers)
        assert done.counters["documents_in"] == len(documents) == len(everything(done))
        (counts,) = [entry["documents"] for entry in done.summary["funnel"] if entry["step"] == "classifiers"]
        assert counts == len(rows(done, "documents"))
        return {str(row["id"]): row for row in everything(done)}

    plain = curated_with("plain", ClassifierConfig(name="news", model_uri=uri))
    assert {name: row.get("stage") for name, row in plain.items() if row.get("stage")} == {"spanish": "language"}
    assert plain["spanish"]["classifier_news"] is None
    for name, row in plain.items():
        if name != "spanish":
            said, chances = own.predict(str(row["text"]).replace("\n", " "), k=-1)
            expected = min(1.0, dict(zip(said, chances, strict=True))["__label__keep"])
            assert row["classifier_news"] == pytest.approx(expected, abs=1e-5)
    assert "<EMAIL>" in str(plain["masked"]["text"]), "and it is this text that was scored"
    config = ClassifierConfig(name="news", model_uri=uri, at_least=0.5)
    other = ClassifierConfig(name="other", model_uri=uri, label="drop", at_most=0.999)
    found = curated_with("removed", config, other)
    for name, row in found.items():
        score = plain[name]["classifier_news"]
        assert row["classifier_news"] == score
        if score is not None:
            is_low = float(str(score)) < 0.5
            assert (row.get("stage"), row.get("reason")) == (
                ("classifiers", "news_too_low") if is_low else (None, None)
            )
            assert row["classifier_other"] == pytest.approx(1 - float(str(score)), abs=1e-4)
    low = next(row for row in found.values() if row.get("reason") == "news_too_low")
    assert low["detail"] == f"keep {low['classifier_news']:.3f} is below 0.5"
    assert {name for name, row in found.items() if row.get("stage") is None} >= {"pt-BR-news", "pt-PT-news", "masked"}


def test_curate_takes_a_classifier_for_what_it_holds_and_none_for_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    inputs = (str(tmp_path / "in.jsonl"),)
    first, copy = tmp_path / "a.bin", tmp_path / "b.bin"
    first.write_bytes(b"model")
    copy.write_bytes(b"model")

    def fingerprint(*classifiers: ClassifierConfig) -> str:
        return curate_stages("run", CurateConfig(inputs=inputs, classifiers=classifiers))[-1].fingerprint

    sha256 = hashlib.sha256(b"model").hexdigest()
    base = fingerprint(ClassifierConfig(name="a", model_uri=str(first)))
    assert fingerprint(ClassifierConfig(name="a", model_uri=str(copy))) == base
    assert fingerprint(ClassifierConfig(name="a", model_uri="s3://elsewhere/a", model_sha256=sha256)) == base
    assert fingerprint(ClassifierConfig(name="b", model_uri=str(first))) != base
    assert fingerprint(ClassifierConfig(name="a", model_uri=str(first), at_least=0.5)) != base
    copy.write_bytes(b"another")
    assert fingerprint(ClassifierConfig(name="a", model_uri=str(copy))) != base
    (stage,) = curate_stages("run", CurateConfig(inputs=inputs))
    assert "classifiers" not in stage.config, "directories of runs before there were classifiers stay valid"
    with pytest.raises(ConfigError, match="name = 'a': expected another name"):
        CurateConfig(classifiers=(ClassifierConfig(name="a", model_uri="x"),) * 2)
