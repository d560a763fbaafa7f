from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from catalog.label_file import read_labels
from catalog.records import Degradation
from catalog.session_folder import file_sha256
from models.base import Classifier, RestorationBatch
from models.classify import classify_files, classify_with_run
from models.errors import NoPairsError
from models.images import plain_picture, write_png
from models.router import SIGHTS, Router, RouterConfig, certainty, seen_in, spread_crops

SMALL = RouterConfig(width=8, halvings=2, crop_px=32, printed_share=0)


def _batch(lq: Tensor, gt: Tensor, classes: tuple[str, ...]) -> RestorationBatch:
    return RestorationBatch(lq, gt, None, classes, lq, classes, torch.zeros(len(lq), 2))


def _router(config: RouterConfig = SMALL) -> Router:
    torch.manual_seed(3)
    return Router(config)


def _sure_of(*sights: str) -> Router:
    """A router that sees the same everywhere."""
    router, last = _router(), -1
    with torch.no_grad():
        router.head[last].weight.zero_()
        router.head[last].bias.copy_(torch.tensor([5.0 if name in sights else -5.0 for name in SIGHTS]))
    return router.eval()


def test_degraded_crops_count_as_their_class_and_references_as_clean():
    """One that always sees haze and rain is right about two hazy rains, wrong about the noise and all references."""
    lq = torch.rand(3, 3, 32, 32)

    parts = _sure_of("haze", "rain").loss(_batch(lq, lq, ("haze+rain", "rain+haze", "noise")))

    assert parts["exact"].item() == pytest.approx(2 / 6)


def test_print_on_a_crop_is_a_sight_of_its_own():
    config = SMALL.model_copy(update={"printed_share": 1.0})
    router = _sure_of("text")
    router.config = config
    gt = torch.full((2, 3, 48, 48), 0.5)

    parts = router.loss(_batch(gt, gt, ("clean", "clean")))

    assert parts["exact"].item() == 1


def test_degradations_and_their_couples_are_learned_from_pixels():
    """Noise of 20 code values and an eighth of the light, alone and together, on patches of colour not seen before."""
    router = _router()
    optimiser = torch.optim.Adam(router.parameters(), lr=5e-3)
    names = ("noise", "low_light", "low_light+noise", "clean")
    generator = torch.Generator().manual_seed(1)

    def drawn(side: int) -> tuple[Tensor, Tensor]:
        coarse = torch.rand(4, 3, side // 8, side // 8, generator=generator)
        gt = coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        lq = gt.clone()
        lq[1:3] /= 8
        noise = 20 / 255 * torch.randn(2, 3, side, side, generator=generator)
        lq[[0, 2]] += torch.stack([noise[0], noise[1] / 4])
        return lq.clamp(0, 1), gt

    for _ in range(120):
        optimiser.zero_grad()
        router.loss(_batch(*drawn(32), names))["loss"].backward()
        optimiser.step()

    router.eval()
    with torch.inference_mode():
        seen = [seen_in(router.classify(one)) for one in drawn(96)[0].split(1)]

    assert seen == [{"noise"}, {"low_light"}, {"low_light", "noise"}, set()]


@pytest.mark.parametrize("size", [(1, 1), (20, 200), (70, 90)])
def test_pictures_of_any_size_are_judged(size):
    router = _router().eval()
    assert isinstance(router, Classifier)

    with torch.inference_mode():
        votes = router.classify(torch.rand(1, 3, *size))

    assert tuple(votes) == SIGHTS
    assert all(0 < sure < 1 for sure in votes.values())


def test_crops_lie_evenly_from_border_to_border():
    """300 px hold two whole crops of 128 and a part: three at 0, 86 and 172; 100 px are less than one."""
    columns = torch.arange(300.0).expand(1, 3, 100, 300)

    crops = spread_crops(columns, side_px=128, per_side=4)

    assert crops.shape == (3, 3, 100, 128)
    assert crops[:, 0, 0, 0].tolist() == [0, 86, 172]
    assert len(spread_crops(torch.zeros(1, 3, 500, 900), side_px=128, per_side=2)) == 4


def test_crops_are_averaged_but_the_one_with_print_speaks_for_all():
    class Sees(Router):
        def forward(self, crops: Tensor) -> Tensor:
            logits = torch.full((len(crops), len(SIGHTS)), -4.0)
            logits[0, SIGHTS.index("text")] = 4
            logits[0, SIGHTS.index("haze")] = 4
            return logits

    votes = Sees(SMALL).classify(torch.zeros(1, 3, 64, 64))

    assert seen_in(votes) == {"text"}


def test_certainty_is_that_of_the_weakest_vote():
    votes = {"noise": 0.99, "haze": 0.2, "rain": 0.05}

    assert seen_in(votes) == {"noise"}
    assert certainty(votes) == pytest.approx(0.8)


class Dark:
    """Sees low light in what is dark, and print everywhere."""

    def classify(self, lq: Tensor) -> dict[str, float]:
        return {"low_light": 0.9 if lq.mean() < 0.3 else 0.2, "text": 1.0}


def test_labels_name_the_file_by_its_checksum_and_leave_print_out(tmp_path):
    files = [tmp_path / "dark.png", tmp_path / "bright.png"]
    for file, value in zip(files, (20, 200), strict=True):
        write_png(file, plain_picture(np.full((9, 7, 3), value, np.uint8)))

    labels = [label for _, label in classify_files(Dark(), files, source="x" * 300)]

    assert [label.degradations for label in labels] == [(Degradation.LOW_LIGHT,), ()]
    assert [label.confidence for label in labels] == pytest.approx([0.9, 0.8])
    assert [label.sha256 for label in labels] == [file_sha256(file) for file in files]
    assert len(labels[0].source) == 200


def test_a_router_writes_labels_that_a_catalog_reads(saved_run, console, tmp_path):
    run = saved_run("router", "tiny", "model.width=8", "model.halvings=1")
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / "a.png", plain_picture(np.full((20, 30, 3), 90, np.uint8)))
    out = tmp_path / "labels" / "labels.jsonl"

    labelled = classify_with_run(str(run), [tmp_path / "in"], out, device="cpu", console=console)

    assert [label for _, label in read_labels(out)] == [label for _, label in labelled]
    with pytest.raises(NoPairsError, match="no such file"):
        classify_with_run(str(run), [tmp_path / "gone"], out, device="cpu", console=console)
