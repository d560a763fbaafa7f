"""Every model that can be trained, one line each; the module is imported when the model is asked for."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catalog.errors import CleanplateError, InvalidDocumentError
from models.errors import UnknownModelError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import nn

CONFIG_FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class ModelEntry:
    """Where one model lives."""

    name: str
    module: str
    config_class: str
    model_class: str
    kind: Literal["restorer", "degrader", "classifier"]
    summary: str

    def load_config_class(self) -> type[BaseModel]:
        """Import the model's module (and torch) and return its configuration class."""
        found: type[BaseModel] = self._attribute(self.config_class)
        return found

    def build(self, config: BaseModel) -> nn.Module:
        """Build the network with freshly drawn weights.

        Raises:
            InvalidDocumentError: Its settings do not fit each other.
        """
        make = self._attribute(self.model_class)
        try:
            network: nn.Module = make(config)
        except CleanplateError:
            raise
        except ValueError as error:
            raise InvalidDocumentError(f"model {self.name}: {error}") from error
        return network

    def sizes(self) -> tuple[str, ...]:
        """Name the configurations that ship with the package."""
        prefix = f"{self.name}-"
        return tuple(sorted(p.stem.removeprefix(prefix) for p in CONFIG_FOLDER.glob(f"{prefix}*.yaml")))

    def config_path(self, size: str) -> Path:
        """Find the file of one size.

        Raises:
            UnknownModelError: No such size; the message names those there are.
        """
        if size not in self.sizes():
            raise UnknownModelError(
                f"model {self.name} has no configuration '{size}'{_nearest(size, self.sizes())}",
                next_step=f"give one of {', '.join(self.sizes())}, or the path of a YAML file",
            )
        return CONFIG_FOLDER / f"{self.name}-{size}.yaml"

    def _attribute(self, name: str) -> Any:
        return getattr(importlib.import_module(self.module), name)


_ENTRIES = (
    ModelEntry("nafnet", "models.nafnet", "NafnetConfig", "NafnetRestorer", "restorer", "NAFNet, ECCV 2022"),
    ModelEntry(
        "foundir",
        "models.foundir",
        "FoundirConfig",
        "FoundirRestorer",
        "restorer",
        "FoundIR's generalist, ICCV 2025",
    ),
    ModelEntry(
        "restormer",
        "models.plain",
        "RestormerConfig",
        "RestormerRestorer",
        "restorer",
        "Restormer, CVPR 2022",
    ),
    ModelEntry(
        "promptir", "models.plain", "PromptirConfig", "PromptirRestorer", "restorer", "PromptIR, NeurIPS 2023"
    ),
    ModelEntry("swinir", "models.plain", "SwinirConfig", "SwinirRestorer", "restorer", "SwinIR, ICCVW 2021"),
    ModelEntry(
        "wavelet-scan",
        "models.plain",
        "WaveletScanConfig",
        "WaveletScanRestorer",
        "restorer",
        "low light, in the spirit of Wave-Mamba, ACM MM 2024",
    ),
    ModelEntry(
        "expert",
        "models.experts",
        "ExpertConfig",
        "ExpertRestorer",
        "restorer",
        "any network behind a generalist: weather, illumination",
    ),
    ModelEntry(
        "text-expert",
        "models.text_expert",
        "TextExpertConfig",
        "TextExpert",
        "restorer",
        "printed characters behind a generalist",
    ),
    ModelEntry(
        "router",
        "models.router",
        "RouterConfig",
        "Router",
        "classifier",
        "degradations of a picture; chooses an expert",
    ),
)
REGISTRY = {entry.name: entry for entry in _ENTRIES}


def find_model(name: str) -> ModelEntry:
    """Look a model up by name.

    Raises:
        UnknownModelError: No such model; the message names the nearest one.
    """
    if name not in REGISTRY:
        raise UnknownModelError(
            f"no model '{name}'{_nearest(name, tuple(REGISTRY))}", next_step="see `models list`"
        )
    return REGISTRY[name]


def _nearest(name: str, valid: tuple[str, ...]) -> str:
    match = difflib.get_close_matches(name, valid, n=1)
    return f"; did you mean '{match[0]}'?" if match else ""
