"""How fast this machine really multiplies matrices, which a training step is compared with.

In: a device, a precision. Out: operations a second, the best of square matrices of growing size. Cost: about
``BUDGET_S``, once at the start. It is a ceiling for a model's step on this machine as it is now (threads, neighbours,
clock), where the peak of a data sheet is one that no program reaches (790 of 989 TFLOP/s were seen on an H200).
"""

import time

import torch

BUDGET_S = 0.25
SIZES = (256, 512, 1024, 2048, 4096, 8192)


def matmul_rate(device: torch.device, dtype: torch.dtype, budget_s: float = BUDGET_S) -> float:
    """Operations a second of a multiplication of two square matrices; 2 n^3 each."""
    best = 0.0
    tiny = torch.ones(8, 8, device=device, dtype=dtype)
    _seconds(tiny, tiny, device)  # loads the library, which may take a second
    begun = time.perf_counter()
    for number, size in enumerate(SIZES):
        operations = 2.0 * size**3
        if best and time.perf_counter() - begun + 2 * operations / best > budget_s:
            break
        a = torch.randn(size, size, device=device).to(dtype)
        b = torch.randn(size, size, device=device).to(dtype)
        until = begun + budget_s * (number + 1) / len(SIZES)
        repeats = 0
        while repeats < 2 or time.perf_counter() < until:  # the first of a size sets up its kernel
            if (seconds := _seconds(a, b, device)) > 0:
                best = max(best, operations / seconds)
            repeats += 1
    return best


def _seconds(a: torch.Tensor, b: torch.Tensor, device: torch.device) -> float:
    _wait(device)
    begun = time.perf_counter()
    torch.mm(a, b)
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
