"""What this rank holds of each parameter under DeepSpeed's ZeRO: the one place that looks into its optimizers.

In: DeepSpeed's optimizer and the parameters. Out: pieces of flattened parameters, float32, with Adam's moments, as
views: what is written into them is trained on after ``refresh``.

ZeRO 1 and 2 cut one long vector of all parameters of a group into as many parts as there are ranks, so a rank holds
whole parameters and the ends of two. ZeRO 3 cuts each parameter; what is behind its end is padding, which is left out
here. All of this is DeepSpeed's own affair, so its version is pinned, and tests with two and three ranks guard it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")


class Piece(NamedTuple):
    """Elements ``[start, start + numel)`` of a flattened parameter."""

    name: str
    shape: tuple[int, ...]
    """Of the whole parameter."""
    start: int
    numel: int
    tensors: dict[str, Tensor]
    """``weight`` and ``MOMENTS``: views into what the optimizer holds."""


def pieces(zero: Any, decoder: nn.Module) -> Iterator[Piece]:
    """All that this rank holds, in the order of the parameters. The moments are there after ``set_adam_step``."""
    for name, parameter in decoder.named_parameters():
        piece = _cut_piece(zero, name, parameter) if _is_cut(parameter) else _span_piece(name, parameter)
        if piece is not None:
            yield piece


def shape(parameter: Any) -> tuple[int, ...]:
    """Of the whole parameter; ZeRO 3 leaves a parameter empty where it is not in use."""
    return tuple(parameter.ds_shape if _is_cut(parameter) else parameter.shape)


def _is_cut(parameter: nn.Parameter) -> bool:
    """Whether each parameter is cut by itself (ZeRO 3)."""
    return hasattr(parameter, "ds_tensor")


def _cut_piece(zero: Any, name: str, parameter: Any) -> Piece | None:
    length = int(parameter.ds_tensor.ds_numel)
    start = torch.distributed.get_rank() * length
    numel = min(length, int(parameter.ds_numel) - start)
    if numel <= 0:
        return None
    tensors = {kind: zero.get_local_fp32_param(parameter, kind)[:numel] for kind in MOMENTS}
    return Piece(
        name, shape(parameter), start, numel, {"weight": zero.get_local_fp32_param(parameter)[:numel], **tensors}
    )


def _span_piece(name: str, parameter: Any) -> Piece | None:
    if (held := parameter._hp_mapping) is None:
        return None
    address = held.lp_fragment_address
    tensors = {"weight": held.get_hp_fragment(), **{kind: held.get_hp_fragment(kind) for kind in MOMENTS}}
    return Piece(name, shape(parameter), int(address.start), int(address.numel), tensors)


def set_adam_step(zero: Any, adam_step: int) -> None:
    """Gives Adam its state, with moments of zero.

    Adam would make it in its first step. ZeRO 1 and 2 link it to the parameters after the step of the *first* group,
    when the others have none yet, and then never again.
    """
    adam = zero.optimizer
    for group, flat in _flat_vectors(zero):
        count = torch.tensor(float(adam_step), device=flat.device if group["fused"] else "cpu")
        adam.state[flat] = {"step": count} | {kind: torch.zeros_like(flat) for kind in MOMENTS}
    if not hasattr(zero, "fp32_partitioned_groups_flat"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()


def _flat_vectors(zero: Any) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """The vectors that Adam updates, each with its group; ZeRO 3 shows them to Adam one by one, and only in a step."""
    groups = zero.optimizer.param_groups
    if hasattr(zero, "fp32_partitioned_groups_flat"):
        for i, flat in enumerate(zero.fp32_partitioned_groups_flat):
            yield groups[zero.sub_group_to_group_id[i]], flat
    else:
        for group in groups:
            for flat in group["params"]:
                yield group, flat


def adam_step(zero: Any) -> int:
    """Updates that Adam has made, which its bias correction depends on."""
    steps = {int(zero.optimizer.state[flat]["step"]) for _, flat in _flat_vectors(zero)}
    assert len(steps) == 1, f"parameter groups disagree about Adam's step: {steps}"
    return steps.pop()


def refresh(zero: Any) -> None:
    """Makes the model compute with weights that were written into pieces; all ranks together.

    Otherwise it would go on with its old ones, in bfloat16 or on another rank, until the next update.
    """
    if not hasattr(zero, "fp32_partitioned_groups_flat"):
        zero.update_lp_params()
        return
    zero._partition_all_parameters()  # what is whole is put together anew where it is next used
    for i in range(len(zero.fp32_partitioned_groups_flat)):
        zero._reassign_or_swap_out_partitioned_parameters(i)


def spoil_gradients(zero: Any) -> None:
    """Makes the gradients that wait for an update such as DeepSpeed throws away; a rank may hold none."""
    if hasattr(zero, "fp32_groups_gradients_flat"):  # ZeRO 1 in bfloat16
        gradients = list(zero.fp32_groups_gradients_flat)
    else:
        gradients = [gradient for group in zero.averaged_gradients.values() for gradient in group or ()]
    for gradient in gradients:
        gradient.fill_(torch.nan)


def clear_gradients(zero: Any) -> None:
    """Takes away what ``spoil_gradients`` left: ZeRO 3 keeps its buffer, and never writes to the padding in it."""
    if hasattr(zero, "grad_partitions_flat_buffer"):
        zero.grad_partitions_flat_buffer.zero_()


def full_weight(zero: Any, parameter: Any) -> Tensor:
    """One whole parameter in float32; all ranks together."""
    whole: Tensor = zero.get_full_hp_param(parameter) if _is_cut(parameter) else parameter.get_full_hp_param()
    return whole
