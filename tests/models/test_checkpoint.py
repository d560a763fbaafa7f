from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from catalog.errors import ExitCode
from models.averaging import AveragedWeights
from models.checkpoint import load, load_state, read_info, require_fit, save_state
from models.config import load_config
from models.errors import CheckpointError, RunNotFoundError
from models.job import plan_training
from models.registry import REGISTRY, find_model
from models.restore import restore_pixels
from models.train import train

SMALL = (
    "model.width=4",
    "training.steps=2",
    "training.batch=2",
    "training.patch_px=16",
    "training.validation_pairs=0",
)


@pytest.fixture
def run(make_export, tmp_path, console) -> Path:
    job = plan_training(
        "nafnet", str(make_export()), data=tmp_path / "data", config="tiny", overrides=SMALL, out="run"
    )
    train(job, console)
    return job.run.path


def test_a_trained_model_is_loaded_by_run_by_name_and_by_file(run, tmp_path):
    picture = np.random.default_rng(1).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    file = run / "checkpoints" / "step-000002.safetensors"

    loaded = [models.load(run), models.load("run", data=tmp_path / "data"), models.load(file)]

    restored = [restore_pixels(model, picture, device=torch.device("cpu")) for model in loaded]  # type: ignore[arg-type]
    assert all(isinstance(model, models.Restorer) for model in loaded)
    assert restored[0].shape == picture.shape
    assert np.array_equal(restored[0], restored[1])
    assert np.array_equal(restored[0], restored[2])


def test_a_checkpoint_says_what_it_is(run):
    info = read_info(run / "checkpoints" / "step-000002.safetensors")

    assert info.step == 2
    assert info.config["name"] == "nafnet"
    assert info.config["model"]["width"] == 4
    assert len(info.export_digest) == 64


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "not readable as safetensors"),
        (lambda path: path.write_bytes(b"PK\3\4 something else"), "not readable as safetensors"),
        (lambda path: save_file(load_file(path), path), "not written by `models train`"),
        (
            lambda path: save_file(load_file(path), path, metadata={"format": "cleanplate"}),
            "description of itself is damaged",
        ),
    ],
)
def test_damaged_and_foreign_checkpoints_are_refused(run, damage, message):
    path = run / "checkpoints" / "step-000002.safetensors"
    damage(path)

    with pytest.raises(CheckpointError, match=message) as caught:
        load(run)
    assert caught.value.exit_code == ExitCode.DAMAGED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("network.ending.bias"), r"network\.ending\.bias is missing"),
        (lambda w: w.update(extra=torch.zeros(1)), "extra is not known to it"),
        (lambda w: w.update({"network.ending.bias": torch.zeros(4)}), r"is \(4,\), needs \(3,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(run, change, message):
    path = run / "checkpoints" / "step-000002.safetensors"
    weights = load_file(path)
    info = read_info(path).model_dump_json()
    change(weights)
    save_file(weights, path, metadata={"format": "cleanplate", "info": info})

    with pytest.raises(CheckpointError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"width": 4096, "enc_blk_nums": [9] * 8, "dec_blk_nums": [9] * 8}, "does not fit the network"),
        ({"middle_blk_num": 10**12}, "its configuration asks for more tensors"),
        ({"width": 10**12}, "its configuration does not fit this version"),
        ({"enc_blk_nums": [1]}, "makes no network: model nafnet: 1 encoder and 2 decoder stages"),
    ],
    ids=["terabytes", "without end", "out of range", "contradicting"],
)
def test_a_small_file_that_asks_for_a_huge_network_costs_nothing(run, size, message):
    """The first would take more than 200 TB, the second as good as forever."""
    path = run / "checkpoints" / "step-000002.safetensors"
    weights, info = load_file(path), read_info(path)
    info.config["model"].update(size)
    save_file(weights, path, metadata={"format": "cleanplate", "info": info.model_dump_json()})

    with pytest.raises(CheckpointError, match=message):
        load(path)


@pytest.mark.parametrize("name", [entry.name for entry in REGISTRY.values()])
def test_every_network_is_laid_out_without_storage_as_it_is_built(name):
    """Otherwise a good checkpoint would be refused before it is read."""
    entry = find_model(name)
    config = load_config(entry, next((s for s in entry.sizes() if "tiny" in s), "base"))

    with torch.device("meta"):
        laid_out = entry.build(config.model)

    shapes = {name: tensor.shape for name, tensor in laid_out.state_dict().items()}
    require_fit(config, shapes, Path("of-this-network"))
    assert all(tensor.is_meta for tensor in laid_out.state_dict().values())
    with pytest.raises(CheckpointError, match="is missing"):
        require_fit(config, dict(list(shapes.items())[1:]), Path("of-this-network"))


def test_nothing_in_an_optimiser_file_is_executed(tmp_path):
    """A pickle that would create a file when it is opened the ordinary way."""
    trap, path = tmp_path / "trap", tmp_path / "state.pt"

    class Malicious:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trap,))

    path.write_bytes(pickle.dumps({"optimiser": Malicious()}))

    with pytest.raises(CheckpointError, match="not readable as optimiser state"):
        load_state(path)
    assert not trap.exists()


def test_optimiser_state_comes_back_as_it_was(tmp_path):
    state = {
        "optimiser": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "seconds": 1.5,
    }

    save_state(tmp_path / "s.pt", state)

    assert load_state(tmp_path / "s.pt") == state
    assert [p.name for p in tmp_path.iterdir()] == ["s.pt"]


def test_a_run_that_does_not_exist_is_missing(tmp_path):
    with pytest.raises(RunNotFoundError, match="no training run 'nothing'") as caught:
        load("nothing", data=tmp_path)
    assert caught.value.exit_code == ExitCode.MISSING
    with pytest.raises(RunNotFoundError, match="no such file"):
        load(tmp_path / "gone.safetensors")
    (tmp_path / "official.pt").write_bytes(b"PK")
    with pytest.raises(RunNotFoundError, match=r"neither a run nor a checkpoint of ours.*models convert"):
        load(tmp_path / "official.pt")


def test_the_average_forgets_its_start_quickly_and_can_be_put_in_place():
    """Decay at most (1 + n) / (10 + n): 1/10 first, 2/11 next. From 0, with weights 1 then 2:
    0.9 * 1 = 0.9, then 0.9 * 2/11 + 2 * 9/11 = 1.8.
    """
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = AveragedWeights(module, decay=0.999)

    for n, value in enumerate((1.0, 2.0)):
        torch.nn.init.constant_(module.weight, value)
        average.update(n)

    assert average.state_dict()["weight"].item() == pytest.approx(1.8)
    with average.applied():
        assert module.weight.item() == pytest.approx(1.8)
    assert module.weight.item() == 2.0
