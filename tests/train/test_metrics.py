"""Figures of training against arithmetic by hand."""

import pytest
import torch

from caravela.model.config import ModelConfig
from caravela.train.matmul_rate import matmul_rate
from caravela.train.metrics import Rates, StepTime, Window, flops_per_token, peak_tflops, speed_columns

TTL_160M = ModelConfig(
    num_layers=12,
    hidden_size=768,
    feed_forward_size=3072,
    num_heads=12,
    num_kv_heads=12,
    vocabulary_size=32_000,
    max_positions=2048,
    tied_embeddings=False,
)


def test_flops_per_token_of_160m_by_hand() -> None:
    assert flops_per_token(TTL_160M, 2048) == 6 * 162_417_408 + 12 * 12 * 768 * 2048 == 1_200_996_864
    assert flops_per_token(TTL_160M, 512) == 6 * 162_417_408 + 12 * 12 * 768 * 512


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA GH200 480GB", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("Tesla T4", None),
        ("NVIDIA A1000 Laptop GPU", None),
    ],
)
def test_peak_goes_by_the_whole_word_of_the_name(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


def test_window_is_a_mean_over_its_steps() -> None:
    window = Window(steps=2)
    window.add(StepTime(tokens=999, flops=1, seconds=50, seconds_data=50, seconds_checkpoint=0))
    window.add(StepTime(tokens=100, flops=3e12, seconds=1.0, seconds_data=0.2, seconds_checkpoint=0))
    window.add(StepTime(tokens=100, flops=3e12, seconds=3.0, seconds_data=0.2, seconds_checkpoint=1.0))
    assert window.tokens_per_second() == 200 / 4
    assert window.data_share() == pytest.approx(0.4 / 4)
    assert window.seconds_per_step() == 2.0
    rates = Rates(peak=10e12, peak_name="by hand", matmul=5e12)
    assert speed_columns(window, rates) == {"tokens_per_second": 50.0, "mfu": 0.15, "matmul_share": 0.3}


def test_window_whose_clock_stood_still_gives_no_figures() -> None:
    window, rates = Window(), Rates(peak=1e12, peak_name="by hand", matmul=1e12)
    assert speed_columns(window, rates) == {}
    window.add(StepTime(tokens=100, flops=1e9, seconds=0.0, seconds_data=0.0, seconds_checkpoint=0.0))
    assert speed_columns(window, rates) == {}
    assert window.data_share() is None


def test_matmul_rate_is_that_of_torchs_own_timer() -> None:
    """Within a factor, in one of a few tries: neighbours of this machine come and go between the two measurements."""
    from torch.utils.benchmark import Timer

    a = torch.randn(512, 512)
    timer = Timer("torch.mm(a, a)", globals={"torch": torch, "a": a}, num_threads=torch.get_num_threads())
    measured = []
    for _ in range(5):
        found = matmul_rate(torch.device("cpu"), torch.float32)
        expected = 2 * 512**3 / timer.timeit(10).median
        if expected / 8 < found < expected * 8:
            return
        measured.append((found, expected))
    pytest.fail(f"operations a second by us and by torch: {measured}")
