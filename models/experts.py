"""Experts: specialists that restore what FoundIR's generalist left behind.

Li, Chen, Dong, Tang, Pan: FoundIR, ICCV 2025. A specialist's input is the generalist's output: a second pass behind the
first. Ours may look at the degraded picture as well, which the text expert does. The authors release a Restormer for
weather and a Wave-Mamba for low light, and no way to train either.

Any network of the registry that restores can be one. While it is trained, the generalist is frozen and applied to the
crops, so nothing has to be restored beforehand; it is no part of the expert's checkpoint, only its name is. A whole run
(`restore`) makes both passes; an ensemble (`models.ensemble`) makes the first one once and asks the expert to `refine`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, SerializeAsAny, ValidationError, model_validator
from torch import Tensor, nn

from catalog.errors import InvalidDocumentError
from catalog.yaml_document import Document
from models.base import Refiner, Restorer, StartsFromNoise
from models.checkpoint import load
from models.precision import Usage
from models.registry import find_model

if TYPE_CHECKING:
    from models.base import RestorationBatch


class NetworkChoice(Document):
    """A network of the registry and its settings."""

    name: str
    """As `models list` names it."""
    model: SerializeAsAny[BaseModel]
    """What stands under ``model`` in a configuration of that network."""

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_network(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("model"), dict):
            return given
        settings = find_model(str(given.get("name"))).load_config_class()
        try:
            return {**given, "model": settings.model_validate(given["model"])}
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ValueError(f"model.{where}: {problem['msg']}") from None


class ExpertConfig(Document):
    """What the expert is and whom it follows."""

    generalist: str | None = None
    """Run whose output the expert restores further: a name in the data folder, or a path. A file of a run,
    ``….safetensors``, cannot move on under the expert. None: the expert restores degraded pictures themselves."""
    network: NetworkChoice


class SecondPass(nn.Module):
    """A restorer behind another one, which is loaded when it is first needed and never trained.

    Args:
        generalist: Run of the first pass, None for no first pass.
    """

    def __init__(self, generalist: str | None) -> None:
        super().__init__()
        self._generalist = generalist
        self._loaded: tuple[Restorer, ...] = ()  # in a tuple it is no part of this module

    @abstractmethod
    def refine(self, restored: Tensor, lq: Tensor) -> Tensor:
        """Restore what the first pass returned; as `Refiner.refine`."""

    def restore(self, lq: Tensor) -> Tensor:
        """Make both passes; as `Restorer.restore`."""
        return self.refine(self.first_pass(lq), lq)

    def restore_from(self, lq: Tensor, noise: Tensor) -> Tensor:
        """Make both passes from given start noise; as `StartsFromNoise.restore_from`."""
        return self.refine(self.first_pass(lq, noise), lq)

    def first_pass(self, lq: Tensor, noise: Tensor | None = None) -> Tensor:
        """Restore with the generalist, without gradients; the picture itself where there is none.

        Raises:
            RunNotFoundError: The generalist's run is not where it was.
            InvalidDocumentError: That run restores nothing.
        """
        if self._generalist is None:
            return lq
        with torch.no_grad(), torch.autocast(lq.device.type, enabled=False):
            return first_pass(self._first_restorer(self._generalist, lq.device), lq, noise)

    def _first_restorer(self, run: str, device: torch.device) -> Restorer:
        if not self._loaded:
            model = load(run, Usage(str(device)))
            if not isinstance(model, Restorer):
                raise InvalidDocumentError(f"model.generalist: {run} restores nothing")
            self._loaded = (model,)
        return self._loaded[0]


class ExpertRestorer(SecondPass):
    """A network of the registry behind the generalist, with that network's own loss."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config.generalist)
        self.network = find_model(config.network.name).build(config.network.model)

    def loss(self, batch: RestorationBatch) -> dict[str, Tensor]:
        """Return the network's loss on what the generalist makes of the batch."""
        # The reduced picture tells brightness, which the generalist changes there as it does everywhere.
        first, picture = self.first_pass(batch.lq), self.first_pass(batch.picture)
        losses: dict[str, Tensor] = self.network.loss(replace(batch, lq=first, picture=picture))  # type: ignore[operator]
        return losses

    def refine(self, restored: Tensor, lq: Tensor) -> Tensor:
        """Restore what the first pass returned."""
        return refined(self.network, restored, lq)


def first_pass(model: Restorer, lq: Tensor, noise: Tensor | None = None) -> Tensor:
    """Restore ``(B, 3, H, W)``, from given noise where the model starts from noise."""
    if noise is not None and isinstance(model, StartsFromNoise):
        return model.restore_from(lq, noise)
    return model.restore(lq)


def refined(model: Any, restored: Tensor, lq: Tensor) -> Tensor:
    """Restore what a first pass made of a degraded picture, with a model made for that or with any restorer."""
    out: Tensor = model.refine(restored, lq) if isinstance(model, Refiner) else model.restore(restored)
    return out
