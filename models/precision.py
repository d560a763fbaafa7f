"""Faster than the float32 reference: bfloat16, channels-last, compiled; each by choice.

The float32 path of a network is the one that is compared with the published numbers. Under what is chosen here the
weights, the loss and a sampler's arithmetic stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Precision = Literal["fp32", "bf16", "auto"]


@dataclass(frozen=True)
class Usage:
    """Where and how fast a loaded model is to run."""

    device: str = "cpu"
    precision: Precision = "fp32"
    """``fp32`` is the reference; ``bf16`` runs the networks in bfloat16, ``auto`` where the device has it."""
    compiled: bool = False
    """Compile the networks at their first use."""


REFERENCE = Usage()
"""On the processor, in float32."""


def make_fast(model: nn.Module, device: torch.device, *, precision: Precision, compiled: bool) -> None:
    """Change a loaded model in place.

    Args:
        model: A restorer or degrader; its networks are its children, which run in bfloat16 or compiled.
        device: Where it runs.
        precision: ``auto`` is bf16 where the device has it in hardware.
        compiled: Compile the networks at their first use; worth it for many pictures or tiles of one size.
    """
    half = uses_bf16(precision, device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
    for network in model.children():
        if half:
            network.forward = torch.autocast(device.type, torch.bfloat16)(network.forward)
        if compiled:
            network.compile()


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Decide whether networks run in bfloat16 on a device."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
