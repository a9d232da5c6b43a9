"""Predictions equal those of fastText itself, for every kind of model, every text, and any state of the memo."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from caravela.errors import UserError
from filters import fasttext_scores
from filters.fasttext_model import FastTextModel, Predictions
from filters.language import model_path
from tests.filters.fasttext_models import MODELS, NEGATIVE_SAMPLING, ONE_VS_ALL, TREE, TinyModel
from tests.filters.hard_texts import hard_texts

END_OF_LINE = ["</s>", "fim </s> da linha", "</s>fim", "a </s>", "</s> </s>", "<s> casa"]
LABELS_IN_TEXT = ["__label__l1", "a __label__l1 casa", "__label__", "__label__pt gl", "__label_casa", "casa_grande pt"]
SEPARATORS = [
    "a\x0bb\x0cc\rd\te\x00f\ng",
    "\x00",
    "\x00\x00 \x00",
    "\n",
    "a\n\nb\n",
    "a\x1cb\x85c\u00a0d\u2028e",
    "\r\n\r\n",
]
LENGTHS = ["ã" * n for n in (1, 2, 3, 7, 8, 9, 15, 16, 17, 127, 128, 129, 5_000)]
LENGTHS += ["x" * n for n in (1, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 254, 255, 256, 257, 70_000)]


def random_texts(seed: int, count: int) -> list[str]:
    """Code points from all of Unicode, blanks among them."""
    rng = random.Random(seed)
    ranges = [(32, 127), (0, 256), (0x300, 0x370), (0x400, 0x3000), (0x4E00, 0x5000), (0xE000, 0x10FFFF)]

    def character() -> str:
        return " " if rng.random() < 0.2 else chr(rng.randrange(*rng.choice(ranges)))

    return ["".join(character() for _ in range(rng.randrange(60))) for _ in range(count)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [
        *hard_texts(seed=11, count=90),
        *random_texts(seed=12, count=60),
        *END_OF_LINE,
        *LABELS_IN_TEXT,
        *SEPARATORS,
        *LENGTHS,
    ]


@pytest.fixture(scope="module")
def lid176() -> FastTextModel:
    return FastTextModel(model_path("lid.176"))


def said_by_fasttext(model: fasttext.FastText._FastText, text: str, candidates: int) -> list[tuple[str, float]]:
    labels, scores = model.predict(text.replace("\n", " "), k=candidates)
    return list(zip(labels, scores.tolist(), strict=True))


def said_by_us(model: FastTextModel, found: Predictions, text: int) -> list[tuple[str, float]]:
    pairs = zip(found.labels[text].tolist(), found.scores[text].tolist(), strict=True)
    return [(model.labels[label], score) for label, score in pairs if label >= 0]


def assert_equal(ours: list[tuple[str, float]], theirs: list[tuple[str, float]], text: str) -> None:
    """The same labels in the same order, with the same scores."""
    # fastText adds tens of thousands of rows in single precision; we do not repeat its rounding.
    tolerance = 2e-3 if len(text) >= 5_000 else 1e-4
    assert [label for label, _ in ours] == [label for label, _ in theirs], repr(text[:80])
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], rel=0, abs=tolerance)


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_says_what_fasttext_says(kind: str, tmp_path: Path, texts: list[str]) -> None:
    path = MODELS[kind].write(tmp_path / "model.bin")
    reference, model = fasttext.load_model(path), FastTextModel(path)
    for candidates in (1, 4):
        found = model.predict(pa.array(texts, pa.large_string()), candidates)
        for number, text in enumerate(texts):
            theirs = said_by_fasttext(reference, text, candidates)
            assert_equal(said_by_us(model, found, number), theirs, text)


@pytest.mark.parametrize("loss", [NEGATIVE_SAMPLING, ONE_VS_ALL, TREE])
def test_labels_of_equal_score_come_in_the_order_of_fasttext(loss: int, tmp_path: Path, texts: list[str]) -> None:
    """In twelve sums of few steps many labels come out equal; in a tree, those of texts without a known word."""
    tiny = TinyModel(loss=loss, dim=2, part=2, pruned=4, labels=tuple(f"__label__l{n}" for n in range(70)))
    path = tiny.write(tmp_path / "model.bin")
    reference, model = fasttext.load_model(path), FastTextModel(path)
    found = model.predict(pa.array(texts, pa.string()), 25)
    ties = 0
    for number, text in enumerate(texts):
        theirs = said_by_fasttext(reference, text, 25)
        assert_equal(said_by_us(model, found, number), theirs, text)
        scores = [score for _, score in theirs]
        ties += len(scores) - len(set(scores))
    assert loss == TREE or ties > 100


def test_matrix_in_the_file_gives_what_a_copy_gives(tmp_path: Path, texts: list[str]) -> None:
    tiny = MODELS["runs"]
    while len(tiny.to_bytes()) % 4 != 2:  # with 17 bytes before each matrix, the first begins where no float should
        tiny = replace(tiny, words=(*tiny.words, "x" * len(tiny.words)))
    path = tiny.write(tmp_path / "model.bin")
    column = pa.array(texts)
    ours, copied = FastTextModel(path, copy_below=0).predict(column, 3), FastTextModel(path).predict(column, 3)
    assert ours.scores.tobytes() == copied.scores.tobytes()
    assert (ours.labels == copied.labels).all()


def test_lid176_says_what_fasttext_says(lid176: FastTextModel, texts: list[str]) -> None:
    reference = fasttext.load_model(model_path("lid.176"))
    for candidates in (1, 5):
        found = lid176.predict(pa.array(texts, pa.large_string()), candidates)
        assert found.labels.shape == found.scores.shape == (len(texts), candidates)
        for number, text in enumerate(texts):
            theirs = said_by_fasttext(reference, text, candidates)
            assert_equal(said_by_us(lid176, found, number), theirs, text)


@pytest.mark.parametrize("kind", ["runs", "quantised_pruned", "single_characters"])
def test_bytes_that_are_no_utf8_count_as_fasttext_counts_them(kind: str, tmp_path: Path) -> None:
    """Curation sets such texts aside before; a column that nobody checked still has fastText's answer."""
    path, rng = MODELS[kind].write(tmp_path / "model.bin"), random.Random(7)
    reference, model = fasttext.load_model(path), FastTextModel(path)
    odd = [
        b"\x80",
        b"\xbf\xbf",
        b"\xc3",
        b"\xe2\x80",
        b"\xf0\x9f",
        b"\xff\xfe",
        b"casa",
        b"\xc3\xa3",
        b" ",
        b"\0",
        b"</s>",
    ]
    texts = [b"".join(rng.choices(odd, k=rng.randrange(12))) for _ in range(150)] + [b"\x80" * 300, b"\xc3" * 17]
    found = model.predict(pa.array(texts, pa.large_binary()).view(pa.large_string()), 4)
    for number, text in enumerate(texts):
        theirs = [(label, score) for score, label in reference.f.predict(text + b"\n", 4, 0.0, "strict")]
        assert_equal(said_by_us(model, found, number), theirs, repr(text))


def test_more_candidates_than_labels_leave_the_rest_empty(tmp_path: Path) -> None:
    model = FastTextModel(MODELS["softmax"].write(tmp_path / "model.bin"))
    found = model.predict(pa.array(["a casa"]), 20)
    assert sorted(found.labels[0, :11].tolist()) == list(range(11))
    assert (found.labels[0, 11:] == -1).all()
    assert (found.scores[0, 11:] == 0).all()
    assert found.scores.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "kind", ["one_vs_all", "runs_pruned", "quantised_output", "long_rows", "long_rows_quantised_runs"]
)
def test_same_bytes_whatever_the_batch_and_the_memo(kind: str, tmp_path: Path, texts: list[str]) -> None:
    """A text's numbers depend neither on its neighbours nor on what was learned, kept or forgotten before."""
    path = MODELS[kind].write(tmp_path / "model.bin")
    column = pa.array(texts, pa.large_string())
    whole = FastTextModel(path).predict(column, 3)
    forgetful, backwards = FastTextModel(path, memory_bytes=1), FastTextModel(path)
    order = np.arange(len(texts))[::-1]
    reversed_batch = backwards.predict(column.take(pa.array(order)), 3)
    assert (reversed_batch.labels[order] == whole.labels).all()
    assert reversed_batch.scores[order].tobytes() == whole.scores.tobytes()
    for begin in range(0, len(texts), 7):
        part = forgetful.predict(column.slice(begin, 7), 3)
        assert (part.labels == whole.labels[begin : begin + 7]).all()
        assert part.scores.tobytes() == whole.scores[begin : begin + 7].tobytes()


@pytest.mark.parametrize("kind", ["one_vs_all", "long_rows"])
def test_memo_grows_forgets_and_stays_within_its_memory(kind: str, tmp_path: Path) -> None:
    path = MODELS[kind].write(tmp_path / "model.bin")
    column = pa.array([" ".join(f"{k}palavra{n}" for n in range(900)) for k in range(120)])
    large, small = FastTextModel(path), FastTextModel(path, memory_bytes=8 << 20)
    sizes, known = [], []
    for begin in range(0, 120, 6):
        batch = column.slice(begin, 6)
        ours, theirs = small.predict(batch, 2), large.predict(batch, 2)
        assert ours.scores.tobytes() == theirs.scores.tobytes()
        sizes.append(small.nbytes)
        known.append(small.num_known)
    assert max(sizes) <= 8 << 20 < large.nbytes
    assert max(sizes) > sizes[0]
    assert any(after < before for before, after in pairwise(known))


@pytest.mark.parametrize("kind", ["one_vs_all", "long_rows"])
def test_full_memo_keeps_the_words_that_came_again(kind: str, tmp_path: Path) -> None:
    """Also those of more than 16 bytes, which lie elsewhere, with their scores unchanged."""
    path = MODELS[kind].write(tmp_path / "model.bin")
    common = [f"comum{n}" + "mente" * (n % 4) for n in range(50)]
    once = [f"palavra{n}" for n in range(6200)]  # more than the smallest memo takes
    model, reference = FastTextModel(path, memory_bytes=1), FastTextModel(path)
    model.predict(pa.array([" ".join([*common, *common, *once])]), 2)
    assert model.num_known > 3000
    model.predict(pa.array(["nova"]), 2)
    assert model.num_known == len(common) + 1
    again = pa.array([" ".join(common)])
    assert model.predict(again, 2).scores.tobytes() == reference.predict(again, 2).scores.tobytes()
    assert model.num_known == len(common) + 1


@pytest.mark.parametrize("kind", ["one_vs_all", "quantised_norms", "long_rows_quantised_tree"])
def test_one_text_with_more_words_than_the_memo_holds(kind: str, tmp_path: Path) -> None:
    path = MODELS[kind].write(tmp_path / "model.bin")
    text = " ".join(f"palavra{n}" for n in range(20_000))
    reference, model = fasttext.load_model(path), FastTextModel(path, memory_bytes=1)
    for _ in range(2):
        assert_equal(
            said_by_us(model, model.predict(pa.array([text]), 3), 0), said_by_fasttext(reference, text, 3), text
        )


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_nulls_and_empty_columns_are_read_in_place(kind: pa.DataType, lid176: FastTextModel) -> None:
    column = pa.array(["zero", "o mar é azul", None, "the sea is blue", ""], kind)
    whole = lid176.predict(column, 2)
    assert (whole.labels[2] == whole.labels[4]).all()
    part = lid176.predict(column.slice(1, 3), 2)
    assert (part.labels == whole.labels[1:4]).all()
    assert (part.scores == whole.scores[1:4]).all()
    for empty in (column.slice(5), pa.array([], kind), pa.array([None], kind).slice(1)):
        assert lid176.predict(empty, 2).labels.shape == (0, 2)
    assert lid176.predict(pa.array([None, None], kind), 2).labels.shape == (2, 2)


def test_products_equal_a_matrix_product_for_any_shape() -> None:
    numbers = np.random.default_rng(3)
    for texts, labels, dim in [(1, 1, 1), (3, 5, 7), (32, 4, 4), (33, 9, 16), (65, 130, 67), (64, 2, 3)]:
        means = numbers.normal(size=(texts, dim)).astype(np.float32)
        weights = numbers.normal(size=(labels, dim)).astype(np.float32)
        out = np.empty((texts, labels), np.float32)
        fasttext_scores.products(means, weights, out)
        assert out == pytest.approx(means.astype(float) @ weights.T.astype(float), abs=1e-4)


@pytest.mark.parametrize("name", ["input", "output"])
def test_weights_that_are_no_numbers_are_one_line(name: str, tmp_path: Path) -> None:
    tiny = replace(MODELS["softmax"], dim=3)
    data, output = bytearray(tiny.to_bytes()), 12 * len(tiny.labels)
    size = output if name == "output" else 12 * (len(tiny.words) + tiny.bucket)
    begin = (
        len(data) - output if name == "output" else len(data) - output - 17 - size
    )  # 17: the output's flag and shape
    data[begin : begin + size] = np.full(size // 4, np.nan, "<f4").tobytes()
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(UserError, match=rf"model\.bin: not a fastText model .*{name} matrix holds NaN or infinity"):
        FastTextModel(str(tmp_path / "model.bin")).predict(pa.array(["a casa"]), 1)
