"""Small fastText models with random weights, written as files, so that fastText itself can be asked what they say."""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

TREE, NEGATIVE_SAMPLING, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4
_LANGUAGES = """
por_Latn glg_Latn spa_Latn mwl_Latn ast_Latn cat_Latn ita_Latn fra_Latn eng_Latn rus_Cyrl ukr_Cyrl jpn_Jpan kor_Hang
ara_Arab hin_Deva srp_Latn srp_Cyrl
"""
GLOTLID_LABELS = tuple(f"__label__{language}" for language in _LANGUAGES.split())
WORDS = tuple("a casa o mar de São João que não foi à feira comprar pão com manteiga e vinho do Porto 你好 🙂".split())


@dataclass(frozen=True)
class TinyModel:
    """What a model file says; ``to_bytes`` writes it."""

    labels: tuple[str, ...] = tuple(f"__label__l{number}" for number in range(11))
    words: tuple[str, ...] = ("</s>", *WORDS)
    dim: int = 10
    loss: int = SOFTMAX
    word_n_grams: int = 1
    bucket: int = 300
    shortest: int = 2
    longest: int = 4
    pruned: int | None = None
    """How many buckets were kept; None: all, in one row each."""
    part: int | None = None
    """How long the parts of a product-quantised input row are; None: the matrix is dense."""
    norms: bool = False
    output_part: int | None = None
    version: int = 12
    kind: int = 3
    seed: int = 0
    counts: tuple[int, ...] = field(default=())
    """How often each label occurred; none given: falling numbers, some of them equal."""

    def to_bytes(self) -> bytes:
        """The file."""
        numbers = np.random.default_rng(self.seed)
        head = struct.pack("<ii", 793712314, self.version)
        settings = (self.dim, 5, 5, 1, 5, self.word_n_grams, self.loss, self.kind, self.bucket, self.shortest)
        head += struct.pack("<12id", *settings, self.longest, 100, 1e-4)
        buckets = self.bucket if self.pruned is None else self.pruned
        rows = len(self.words) + buckets
        parts = [head, self._dictionary()]
        parts += self._matrix(rows, self.part, self.norms, numbers, 1.0)
        parts += self._matrix(len(self.labels), self.output_part, self.norms, numbers, 2.5)
        return b"".join(parts)

    def write(self, path: Path) -> str:
        """Writes the file; returns its path."""
        path.write_bytes(self.to_bytes())
        return str(path)

    def _dictionary(self) -> bytes:
        size = len(self.words) + len(self.labels)
        pruned = -1 if self.pruned is None else self.pruned
        data = struct.pack("<3i2q", size, len(self.words), len(self.labels), 1000, pruned)
        counts = self.counts or tuple(1000 // (2 + number // 3) for number in range(len(self.labels)))
        for word in self.words:
            data += word.encode() + b"\0" + struct.pack("<qb", 7, 0)
        for label, count in zip(self.labels, counts, strict=True):
            data += label.encode() + b"\0" + struct.pack("<qb", count, 1)
        if self.pruned is not None:
            kept = random.Random(self.seed).sample(range(self.bucket), self.pruned)
            for row, bucket in enumerate(kept):
                data += struct.pack("<ii", bucket, row)
        return data

    def _matrix(
        self, rows: int, part: int | None, norms: bool, numbers: np.random.Generator, scale: float
    ) -> Sequence[bytes]:
        def floats(count: int) -> bytes:
            return numbers.uniform(-scale, scale, count).astype("<f4").tobytes()

        if part is None:
            return [struct.pack("<?qq", False, rows, self.dim), floats(rows * self.dim)]
        parts = -(-self.dim // part)
        last = self.dim - (parts - 1) * part
        codes = numbers.integers(0, 256, rows * parts, np.uint8).tobytes()
        found = [struct.pack("<??qqi", True, norms, rows, self.dim, len(codes)), codes]
        found += [struct.pack("<4i", self.dim, parts, part, last), floats(256 * self.dim)]
        if norms:
            found += [numbers.integers(0, 256, rows, np.uint8).tobytes(), struct.pack("<4i", 1, 1, 1, 1), floats(256)]
        return found


_PLAIN = TinyModel()
_TREE = replace(_PLAIN, loss=TREE)
MODELS = {
    "softmax": _PLAIN,
    "tree": _TREE,
    "negative_sampling": replace(_PLAIN, loss=NEGATIVE_SAMPLING),
    "one_vs_all": replace(_PLAIN, loss=ONE_VS_ALL, dim=4),
    "one_label": replace(_PLAIN, labels=("__label__only",)),
    "one_label_tree": replace(_TREE, labels=("__label__only",)),
    "whole_words": replace(_PLAIN, shortest=0, longest=0, bucket=0),
    "whole_words_version_11": replace(_PLAIN, shortest=3, longest=6, version=11),
    "no_end_of_line": replace(_PLAIN, words=WORDS),
    "no_end_of_line_whole_words": replace(_PLAIN, words=WORDS, shortest=0, longest=0, bucket=0),
    "single_characters": replace(_PLAIN, shortest=1, longest=1),
    "parts_from_nothing": replace(_PLAIN, shortest=0, longest=9, bucket=1),
    "runs": replace(_PLAIN, word_n_grams=2),
    "runs_of_five_whole_words": replace(_TREE, word_n_grams=5, longest=0, bucket=1_000),
    "runs_pruned": replace(_TREE, word_n_grams=3, pruned=70, part=3),
    "quantised": replace(_TREE, part=2),
    "quantised_norms": replace(_PLAIN, part=3, norms=True),
    "quantised_pruned": replace(_TREE, part=2, norms=True, pruned=60),
    "quantised_pruned_to_words": replace(_PLAIN, part=4, pruned=0),
    "quantised_output": replace(_PLAIN, part=2, norms=True, output_part=3),
    "quantised_output_tree": replace(_TREE, part=10, output_part=2, dim=12),
    "long_rows": replace(_PLAIN, dim=80),
    "long_rows_quantised_tree": replace(_TREE, dim=70, part=4, norms=True, pruned=60),
    "long_rows_quantised_runs": replace(_PLAIN, dim=65, part=2, word_n_grams=3),
    "wide": replace(_PLAIN, dim=37, labels=tuple(f"__label__l{n}" for n in range(130))),
    "wide_tree": replace(_TREE, dim=33, labels=tuple(f"__label__l{n}" for n in range(130))),
    "other_label_prefix": replace(_PLAIN, labels=("pt", "gl", "es", "casa_grande")),
    "glotlid": replace(_PLAIN, labels=GLOTLID_LABELS, dim=16, shortest=2, longest=5),
}
"""Every kind of model that fastText writes."""
