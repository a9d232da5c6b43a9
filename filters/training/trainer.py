"""A supervised fastText model trained on lines, the same bytes on every run.

In: a file of lines, each with its label, and a ``FastTextConfig``. Out: a .bin file, or a .ftz if it is quantised,
which ``fasttext.load_model`` reads.

One thread only: several write to the same weights as they come, and the result is another each time. Builds of fastText
are not alike: some (fasttext-numpy2-wheel 0.9.2 among them) leave the first weights as the memory happened to be, which
ends in "Encountered NaN" or in a model that knows little. ``check_build`` notices and refuses.

Cost on one core: about a million words a second and epoch with whole words, a fifth of that with parts of words.
"""

import os
import tempfile
from dataclasses import dataclass
from typing import Any, Literal

import fasttext
import numpy as np
import numpy.typing as npt

from caravela.config import ConfigError
from caravela.errors import UserError

SOUND_BUILD = "fasttext-community"
LEAST_ROWS_TO_QUANTISE = 256


@dataclass(frozen=True, kw_only=True)
class FastTextConfig:
    """fastText's own settings; the names in brackets are its own."""

    dim: int = 16
    """Numbers per word vector."""
    epochs: int = 10
    """Times that every text is seen [epoch]."""
    learning_rate: float = 1.0
    """Falls to zero over the epochs [lr]."""
    word_ngrams: int = 1
    """Most words in a row that count as one feature [wordNgrams]."""
    shortest_part: int = 2
    """Least characters of the parts of words that are features [minn]; 0 with longest_part 0: whole words alone."""
    longest_part: int = 5
    """Most characters of such parts [maxn]."""
    buckets: int = 200_000
    """Rows that parts of words and n-grams share by hash [bucket]; the file has 4 bytes x dim for each."""
    least_count: int = 1
    """Words that occur less often are not features themselves, though their parts are [minCount]."""
    loss: Literal["softmax", "hs", "ova"] = "softmax"
    """softmax; hs, a tree, which is faster with hundreds of labels; ova, a sigmoid for each label."""
    seed: int = 1
    """Of the first weights."""
    quantize: bool = False
    """Whether the model is packed into a .ftz, about a tenth of the size and slightly less sure."""
    keep_features: int = 0
    """When packed, the number of words and buckets that are kept, the rest being dropped; 0: all [cutoff]."""

    def __post_init__(self) -> None:
        for name in ("dim", "epochs", "word_ngrams", "least_count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected 1 or more")
        if not 0 < self.learning_rate <= 10:
            raise ConfigError(f"learning_rate = {self.learning_rate}: expected above 0, and 10 at most")
        if not 0 <= self.shortest_part <= self.longest_part:
            raise ConfigError(f"shortest_part = {self.shortest_part}: expected from 0 to longest_part")
        if self.buckets < 1 or self.keep_features < 0 or self.seed < 0:
            raise ConfigError(
                f"buckets = {self.buckets}: expected 1 or more, and keep_features and seed not below 0 "
                f"(they are {self.keep_features} and {self.seed})"
            )

    @property
    def file_name(self) -> str:
        """Packed models are called .ftz."""
        return "model.ftz" if self.quantize else "model.bin"


def train(lines_path: str, config: FastTextConfig, model_path: str) -> None:
    """Trains on a file of lines and writes the model.

    Raises:
        UserError: this build of fastText cannot train, the training diverged, or there is too little to learn from.
    """
    check_build()
    arguments: dict[str, Any] = {
        "dim": config.dim,
        "epoch": config.epochs,
        "lr": config.learning_rate,
        "wordNgrams": config.word_ngrams,
        "minn": config.shortest_part,
        "maxn": config.longest_part,
        "bucket": config.buckets,
        "minCount": config.least_count,
        "loss": config.loss,
        "seed": config.seed,
    }
    model = _supervised(lines_path, arguments)
    if config.quantize:
        if (rows := model.get_input_matrix().shape[0]) < LEAST_ROWS_TO_QUANTISE:
            raise UserError(
                f"quantize = true: the model has {rows} features, and packing needs {LEAST_ROWS_TO_QUANTISE}; "
                "leave it unpacked"
            )
        model.quantize(
            input=lines_path,
            cutoff=config.keep_features,
            retrain=config.keep_features > 0,
            epoch=config.epochs,
            lr=config.learning_rate,
            thread=1,
            verbose=0,
            qnorm=True,
        )
    model.save_model(model_path)


def _supervised(lines_path: str, arguments: dict[str, Any]) -> Any:
    try:
        model = fasttext.train_supervised(lines_path, thread=1, verbose=0, **arguments)
    except RuntimeError as error:
        raise UserError(
            f"learning_rate = {arguments['lr']}: fastText's training diverged ({error}); expected a lower one"
        ) from error
    except ValueError as error:
        raise UserError(f"fastText cannot train on these texts: {error}") from error
    if not np.isfinite(model.get_output_matrix()).all():
        raise UserError(f"learning_rate = {arguments['lr']}: fastText's training diverged; expected a lower one")
    return model


def check_build() -> None:
    """Sees whether fastText sets its first weights, by training at a rate of zero, which leaves them as they are.

    Raises:
        UserError: it does not, and what it would train is chance; names a build that does.
    """
    with tempfile.TemporaryDirectory(prefix="caravela-fasttext-") as folder:
        path = os.path.join(folder, "lines")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"__label__{number % 2} word{number}\n" for number in range(100))
        first, again, other = (
            fasttext.train_supervised(path, thread=1, verbose=0, lr=0.0, epoch=1, dim=13, seed=seed).get_input_matrix()
            for seed in (1, 1, 2)
        )
    if not sets_first_weights(first, again, other):
        raise UserError(
            "fasttext: the installed build does not set its first weights, so what it trains is chance "
            f"(fasttext-numpy2-wheel 0.9.2 is such a one); pip uninstall it and pip install {SOUND_BUILD}"
        )


def sets_first_weights(
    first: npt.NDArray[np.float32], again: npt.NDArray[np.float32], other: npt.NDArray[np.float32]
) -> bool:
    """Whether weights depend on the seed and on nothing else: two matrices of one seed, one of another."""
    return bool(np.array_equal(first, again) and np.isfinite(other).all() and (first != other).mean() > 0.99)
