"""Names under which published checkpoints hold the same tensors: from theirs to ours.

Ours are the names of each network's first official release. A map is a list of patterns and replacements, applied in
turn to every name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

V = TypeVar("V")
KeyMap = Sequence[tuple[str, str]]

_BLOCK_LISTS = (r"\.blocks\.(\d+)\.", r".\1.")
KEY_MAPS: Mapping[str, KeyMap] = MappingProxyType(
    {
        "foundir": ((r"^(model\.)?unet0\.", ""),),
        "maskdcpt-nafnet": (_BLOCK_LISTS, (r"^decoder(\d+)\.", r"decoders.\1.")),
        "maskdcpt-restormer": (
            _BLOCK_LISTS,
            (r"\.norm([12])\.(weight|bias)$", r".norm\1.body.\2"),
            (r"^(down|up)(\d_\d)\.conv\.", r"\1\2.body.0."),
        ),
    }
)
"""By the name of the release; ``maskdcpt-restormer`` fits its PromptIR too."""


def renamed(state: Mapping[str, V], key_map: KeyMap) -> dict[str, V]:
    """Give every entry of a state dict our name.

    Raises:
        ValueError: Two entries would get one name.
    """
    out: dict[str, V] = {}
    for name, value in state.items():
        for pattern, replacement in key_map:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901  # applied in turn
        if name in out:
            raise ValueError(f"two tensors would be named {name}")
        out[name] = value
    return out
