"""Weights spread over processes (PyTorch's FSDP2), and the way from shares to whole tensors and back.

Checkpoints always hold whole tensors under their plain names, so a run that was trained in shards is used, resumed
and continued like any other.

References:
    Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, VLDB 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

_LEAST_SHARE = 64
"""Blocks with less than this part of all parameters are gathered together with what holds them."""


def shard(objective: nn.Module, *, world: int) -> None:
    """Spread the parameters of a module, block by block, over all processes.

    The module's ``forward`` and ``restore`` gather what they need and let go of it again.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    parameters = list(objective.parameters())
    mesh = init_device_mesh(parameters[0].device.type, (world,))
    for block in _blocks(objective, least=sum(p.numel() for p in parameters) // _LEAST_SHARE):
        fully_shard(block, mesh=mesh)
    # Kept whole after a forward pass, the weights would not be those that the optimiser knows.
    fully_shard(objective, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(objective, "restore")


def own_share(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, in the memory it lies in; all of it where it is whole."""
    return cast("Tensor", tensor.to_local()) if _is_spread(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """Gather a tensor from its shares; every process has to ask."""
    return cast("Tensor", tensor.full_tensor()) if _is_spread(tensor) else tensor  # type: ignore[attr-defined]


def spread_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Cut a whole tensor as another one is cut; each process takes its share of what it has."""
    if not _is_spread(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = other.device_mesh, other.placements  # type: ignore[attr-defined]
    return cast("Tensor", distribute_tensor(tensor.to(other.device), mesh, placements, src_data_rank=None))


def whole_state(optimiser: Optimizer) -> dict[str, Any]:
    """Return an optimiser's state dict in whole tensors; every process has to ask."""
    document = optimiser.state_dict()
    return document | {"state": {i: _map(whole, values) for i, values in document["state"].items()}}


def load_whole_state(optimiser: Optimizer, document: Mapping[str, Any]) -> None:
    """Load what `whole_state` returned, in shares where the parameters are.

    Raises:
        ValueError: A tensor of the state has neither its parameter's shape nor a single number.
        LookupError: There is a state of a parameter that does not exist, or none at all.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state = {
        i: {name: _like_parameter(value, parameters[i]) for name, value in values.items()}
        for i, values in document["state"].items()
    }
    optimiser.load_state_dict({**document, "state": state})


def _like_parameter(value: Tensor, parameter: Tensor) -> Tensor:
    """Cut a moment as its parameter is cut; a counter stays as it is."""
    if value.shape == parameter.shape:
        return spread_like(value, parameter)
    if value.numel() == 1:
        return value
    raise ValueError(f"{tuple(value.shape)} beside a parameter of {tuple(parameter.shape)}")


def _blocks(module: nn.Module, *, least: int) -> Iterator[nn.Module]:
    """Yield the members of lists and sequences that are large enough, inner ones first."""
    for child in module.children():
        yield from _blocks(child, least=least)
        listed = isinstance(module, nn.ModuleList | nn.Sequential)
        if (
            listed
            and not isinstance(child, nn.ModuleList)
            and sum(p.numel() for p in child.parameters()) > least
        ):
            yield child


def _map(function: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: function(v) if isinstance(v, Tensor) else v for name, v in values.items()}


def _is_spread(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # a DTensor; to import its class takes a second
