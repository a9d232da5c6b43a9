"""Held-out figures against arithmetic by hand and a plain forward pass, for any number of ranks."""

import json
import math
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from caravela.manifest import Input
from caravela.stages import finished
from caravela.train.validation import figures
from tests.packed_rows import CONTEXT, write_pack
from tests.train.groups import new_model, run_group, score_held_out

PADDING = 3


def test_figures_by_hand() -> None:
    """Two batches: 10 nats over 4 targets and 9 bytes, 2 nats over 1 target and 3 bytes."""
    found = figures([(10.0, 4.0, 9.0), (2.0, 1.0, 3.0)])
    assert found["validation_loss"] == 12 / 5
    assert found["validation_perplexity"] == pytest.approx(math.exp(2.4))
    assert found["validation_bits_per_byte"] == pytest.approx(12 / math.log(2) / 12)


def test_figures_of_a_model_gone_wild_are_numbers() -> None:
    assert math.isfinite(figures([(1e6, 1.0, 1.0)])["validation_perplexity"])


@pytest.mark.slow
def test_held_out_figures_are_the_same_to_the_bit_for_any_number_of_ranks(tmp_path: Path) -> None:
    """11 rows of one source and 4 of the other, of which 7 at most are scored, 2 at a time: 4 batches and 2."""
    packs = []
    for name, rows, padding in (("web", 11, 0), ("books", 4, PADDING)):
        uri = os.fspath(tmp_path / name)
        write_pack(uri, [8], validation_rows=rows, padding=padding)
        packs.append((name, Input(name="pack", fingerprint=name, uri=uri)))
    for num_ranks in (1, 3):
        run_group(num_ranks, score_held_out, os.fspath(tmp_path), packs, 7, 2)
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert sorted(found) == ["1-0", "3-0", "3-1", "3-2"]
    assert found["3-0"] == found["3-1"] == found["3-2"] == found["1-0"]

    sums = {}
    for (name, pack), scored, padding in zip(packs, (7, 4), (0, PADDING), strict=True):
        table = pq.read_table(finished(pack).uris("validation")[0])
        spread = [i * len(table) // scored for i in range(scored)]
        tokens = torch.tensor(table["tokens"].to_pylist(), dtype=torch.int64)[spread]
        with torch.no_grad():
            losses = new_model().token_losses(tokens[:, :-1], tokens[:, 1:])
        sums[name] = (float(losses[:, : CONTEXT - padding].double().sum()), scored * (CONTEXT - padding))
    sizes = {"web": 7 * 3 * CONTEXT, "books": 4 * 3 * CONTEXT}  # as the pack's rows say
    sums[""] = tuple(map(sum, zip(*sums.values(), strict=True)))  # type: ignore[assignment]
    sizes[""] = sum(sizes.values())
    for name, (nats, targets) in sums.items():
        ending = f"/{name}" if name else ""
        assert found["1-0"][f"validation_loss{ending}"] == pytest.approx(nats / targets, rel=1e-6)
        bits = nats / math.log(2) / sizes[name]
        assert found["1-0"][f"validation_bits_per_byte{ending}"] == pytest.approx(bits, rel=1e-6)
    assert len(found["1-0"]) == 9
