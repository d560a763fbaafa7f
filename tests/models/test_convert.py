"""Files in the layouts of the official releases, written here with drawn weights, become runs that give the same."""

from __future__ import annotations

import contextlib
import errno
import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import models
from catalog.errors import ExitCode
from models.backbones.nafnet import NAFNet
from models.backbones.promptir import PromptIR
from models.backbones.restormer import Restormer
from models.backbones.swinir import SwinIR
from models.checkpoint import read_info
from models.cli import app
from models.convert import convert
from models.errors import CheckpointError, RunExistsError, StorageError
from models.foundir import FoundirConfig, FoundirRestorer
from models.images import plain_picture, read_pixels, write_png
from models.inspection import inspect_checkpoint
from models.released import read_released
from models.run_folder import RunFolder

BUFFERS = ("alphas", "alphas_cumsum", "betas", "delta", "delta_cumsum", "posterior_variance")
FOUNDIR = FoundirConfig(dim=8, dim_mults=(1, 2))


def _drawn(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights without a zero among them, so that no error hides behind a stock initial value."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.3 * torch.randn(tensor.shape, generator=generator) + (tensor.ndim == 1)
        for name, tensor in network.state_dict().items()
    }


def _foundir_file(path: Path, *, front: str = "", with_average: bool = True) -> dict[str, Tensor]:
    """Write the release's layout; returns the weights that count. The others are different ones."""
    network = FoundirRestorer(FOUNDIR).network
    online, average = _drawn(network, 1), _drawn(network, 2)

    def diffusion(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        buffers = {name: torch.rand(1000) for name in BUFFERS}
        return buffers | {f"model.unet0.{name}": tensor for name, tensor in weights.items()}

    parameters = [nn.Parameter(tensor) for tensor in online.values()]
    optimiser = torch.optim.Adam(parameters, lr=1e-4, betas=(0.9, 0.99))
    sum(p.square().sum() for p in parameters).backward()
    optimiser.step()
    content: dict[str, Any] = {
        "step": 2_000_000,
        "model": {f"{front}{name}": tensor for name, tensor in diffusion(online).items()},
        "opt0": optimiser.state_dict(),
        "scaler": None,
    }
    if with_average:
        content["ema"] = {
            "initted": torch.tensor([True]),
            "step": torch.tensor([2_000_000]),
            **{f"{front}online_model.{name}": tensor for name, tensor in diffusion(online).items()},
            **{f"{front}ema_model.{name}": tensor for name, tensor in diffusion(average).items()},
        }
    torch.save(content, path)
    return average if with_average else online


@pytest.mark.parametrize("front", ["", "module."])
@pytest.mark.parametrize("with_average", [True, False])
def test_a_released_generalist_becomes_a_run_that_restores_the_same(tmp_path, front, with_average):
    weights = _foundir_file(tmp_path / "model-2000.pt", front=front, with_average=with_average)
    reference = FoundirRestorer(FOUNDIR).eval()
    reference.network.load_state_dict(weights)

    result = convert(tmp_path / "model-2000.pt", RunFolder(tmp_path / "run"))

    loaded, lq = models.load(tmp_path / "run"), torch.rand(1, 3, 20, 24)
    assert (result.model, result.step) == ("foundir", 2_000_000)
    with torch.inference_mode():
        assert torch.equal(loaded.restore(lq), reference.restore(lq))  # type: ignore[union-attr]


def _old_lists(name: str) -> str:
    """MaskDCPT's names of block lists."""
    name = re.sub(r"^decoders\.(\d+)\.", r"decoder\1.", name)
    return re.sub(r"^(encoders\.\d+|decoder\d+|middle_blks)\.(\d+)\.", r"\1.blocks.\2.", name)


PLAIN: dict[str, tuple[str, Callable[[], nn.Module], Callable[[dict[str, Tensor]], dict[str, Any]]]] = {
    "nafnet, official": (
        "nafnet",
        lambda: NAFNet(width=4, enc_blk_nums=(1, 2), middle_blk_num=1, dec_blk_nums=(2, 1)),
        lambda weights: {"params": weights},
    ),
    "nafnet, maskdcpt": (
        "nafnet",
        lambda: NAFNet(width=4, enc_blk_nums=(1, 2), middle_blk_num=1, dec_blk_nums=(1, 1), norm_eps=1e-5),
        lambda weights: {"state_dict": {f"module.{_old_lists(name)}": t for name, t in weights.items()}},
    ),
    "restormer, weather expert": (
        "restormer",
        lambda: Restormer(dim=12, num_blocks=(1, 2, 1, 1), num_refinement_blocks=2, heads=(1, 2, 3, 4)),
        lambda weights: {"params": {f"restoration_network.{name}": t for name, t in weights.items()}},
    ),
    "restormer, bias-free": (
        "restormer",
        lambda: Restormer(
            dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, LayerNorm_type="BiasFree", bias=True
        ),
        lambda weights: {"params_ema": weights, "params": {name: 0 * t for name, t in weights.items()}},
    ),
    "promptir, lightning": (
        "promptir",
        lambda: PromptIR(dim=12, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, official_leftovers=True),
        lambda weights: {"epoch": 3, "state_dict": {f"net.{name}": t for name, t in weights.items()}},
    ),
    "swinir, maskdcpt": (
        "swinir",
        lambda: SwinIR(embed_dim=12, depths=(2, 1, 1), num_heads=(6, 6, 6)),
        lambda weights: {"params": weights},
    ),
}


@pytest.mark.parametrize("release", PLAIN)
def test_a_released_backbone_becomes_a_run_that_restores_the_same(tmp_path, release):
    model, build, wrap = PLAIN[release]
    network = build().eval()
    network.load_state_dict(_drawn(network, 3))
    torch.save(wrap(dict(network.state_dict())), tmp_path / "net.pth")

    result = convert(tmp_path / "net.pth", RunFolder(tmp_path / "run"))

    loaded, lq = models.load(tmp_path / "run"), torch.rand(1, 3, 20, 24)
    assert result.model == model
    with torch.inference_mode():
        assert torch.equal(loaded.restore(lq), network(lq).clamp(0, 1))  # type: ignore[union-attr]


def test_a_conversion_is_a_run_like_any_other_and_says_where_it_came_from(tmp_path):
    _foundir_file(tmp_path / "model-2000.pt")
    run = RunFolder(tmp_path / "run")
    result = convert(tmp_path / "model-2000.pt", run, assignments=("model.sampling_steps=3",))

    config, _ = run.read()
    info = read_info(run.weights_path(run.latest_step()))

    assert run.latest_step() == 2_000_000
    assert (config.name, config.model.dim, config.model.sampling_steps) == ("foundir", 8, 3)
    assert info.source == f"model-2000.pt sha256 {result.source_sha256}"
    with pytest.raises(RunExistsError):
        convert(tmp_path / "model-2000.pt", run)


def _coiled(content: dict[str, Any]) -> dict[str, Any]:
    """Sixty levels, each of which holds the next one twice, and the last the first: 2^60 ways to every tensor."""
    first = content
    for _ in range(60):
        content = {"one": content, "other": content}
    first["again"] = content
    return content


def _spoil(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        _foundir_file(path, with_average=False)
        content = torch.load(path, weights_only=True)
        change(content["model"])
        torch.save(content, path)

    return spoil


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "not readable as a released checkpoint"),
        (lambda path: path.write_bytes(b"PK\3\4 torn"), "not readable as a released checkpoint"),
        (lambda path: torch.save([1, 2], path), "holds list instead of named tensors"),
        (lambda path: torch.save({"params": {"conv.weight": torch.zeros(3)}}, path), "1 tensors, but none"),
        (lambda path: torch.save(_coiled({"conv.weight": torch.zeros(3)}), path), "1 tensors, but none"),
        (
            _spoil(lambda m: m.update({"model.unet0.init_conv.weight": torch.zeros(0, 6, 7, 7)})),
            "looks like foundir, but it is incomplete",
        ),
        (
            _spoil(lambda m: m.update({"model.unet0.init_conv.weight": torch.zeros(4, 6, 7, 7)})),
            r"looks like foundir, but model\.dim",
        ),
        (
            _spoil(lambda m: m.update({"model.unet0.init_conv.weight": torch.zeros(8, 4, 7, 7)})),
            r"init_conv\.weight is \(8, 4, 7, 7\), needs \(8, 6, 7, 7\)",
        ),
        (_spoil(lambda m: m.pop("model.unet0.final_conv.bias")), r"final_conv\.bias is missing"),
        (_spoil(lambda m: m.pop("model.unet0.downs.1.3.weight")), "looks like foundir, but it is incomplete"),
        (
            _spoil(lambda m: m.update({"model.unet0.extra": torch.zeros(1)})),
            r"network\.extra is not known to it",
        ),
    ],
    ids=[
        "empty",
        "torn",
        "list",
        "foreign",
        "coiled",
        "nothing wide",
        "narrow",
        "channels",
        "missing",
        "no size",
        "extra",
    ],
)
def test_damaged_and_foreign_files_are_named_and_leave_nothing_behind(tmp_path, write, message):
    path = tmp_path / "file.pt"
    write(path)

    with pytest.raises(CheckpointError, match=message) as caught:
        convert(path, RunFolder(tmp_path / "run"))

    assert caught.value.exit_code == ExitCode.DAMAGED
    assert not (tmp_path / "run").exists()


def test_weights_that_repeat_one_stored_number_are_not_written_out(tmp_path):
    """A NAFNet of 1.2 GB in a file of some kilobytes: every tensor is one zero, seen many times."""
    with torch.device("meta"):
        shapes = {
            name: tensor.shape
            for name, tensor in NAFNet(
                width=2048, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,)
            ).state_dict().items()
        }  # fmt: skip
    path = tmp_path / "net.pth"
    torch.save({"params": {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}}, path)
    assert path.stat().st_size < 100_000

    with pytest.raises(CheckpointError, match=r"claims [\d,]+ bytes of weights in a file of [\d,]+ bytes"):
        convert(path, RunFolder(tmp_path / "run"))


def test_heads_that_no_tensor_shows_can_be_said_and_are_checked(tmp_path):
    network = SwinIR(embed_dim=16, depths=(1, 1), num_heads=(4, 4))
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")

    with pytest.raises(CheckpointError, match="6 attention heads do not divide 16 channels"):
        convert(tmp_path / "net.pth", RunFolder(tmp_path / "run"))

    result = convert(
        tmp_path / "net.pth", RunFolder(tmp_path / "run"), assignments=("model.num_heads=[4, 4]",)
    )
    assert result.model == "swinir"


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_executes_nothing(tmp_path, protocol, zipped):
    trap, path = tmp_path / "trap", tmp_path / "file.pt"

    class Malicious:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trap,))

    content = {"params": {"intro.weight": torch.zeros(4, 3, 3, 3)}, "ema": Malicious()}
    if zipped:
        torch.save(content, path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps({"ema": Malicious()}, protocol=protocol))

    for read in (read_released, inspect_checkpoint, lambda p: convert(p, RunFolder(tmp_path / "run"))):
        with pytest.raises(
            CheckpointError, match=r"neither a tensor nor a plain value.*; nothing was executed"
        ):
            read(path)
    assert not trap.exists()


def test_commands_convert_and_inspect_ours_and_theirs(tmp_path):
    source, data = tmp_path / "model-2000.pt", tmp_path / "data"
    _foundir_file(source)
    runner = CliRunner(env={"CLEANPLATE_DATA": str(data)})

    converted = runner.invoke(app, ["convert", str(source), "-o", "official", "--json"])
    theirs = json.loads(runner.invoke(app, ["inspect", str(source), "--json"]).stdout)
    ours = json.loads(runner.invoke(app, ["inspect", "official", "--json"]).stdout)

    parameters = sum(p.numel() for p in FoundirRestorer(FOUNDIR).parameters())
    assert json.loads(converted.stdout)["parameters"] == parameters
    assert (theirs["format"], ours["format"]) == ("released", "cleanplate")
    for document in (theirs, ours):
        assert (document["model"], document["step"]) == ("foundir", 2_000_000)
        assert document["parameters"] == parameters
        assert document["config"]["model"]["dim"] == 8
    assert ours["source"].endswith(theirs["sha256"])


def test_a_full_disk_is_said_and_the_source_kept(tmp_path, monkeypatch):
    _foundir_file(tmp_path / "model-2000.pt")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("models.checkpoint.replace_file", full)
    with pytest.raises(StorageError, match=r"No space left.*kept: the released file.*make room"):
        convert(tmp_path / "model-2000.pt", RunFolder(tmp_path / "run"))


def test_a_converted_run_restores_from_the_command_line_with_tiles_seed_and_precision(tmp_path):
    _foundir_file(tmp_path / "model-2000.pt")
    run = RunFolder(tmp_path / "run")
    convert(tmp_path / "model-2000.pt", run, assignments=("model.sampling_steps=2",))
    picture = np.random.default_rng(1).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", plain_picture(picture))

    def restored(*options: str) -> np.ndarray:
        arguments = ["restore", str(run.path), str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), *options]
        result = CliRunner().invoke(app, [*arguments, "--tile-px", "64", "--overlap-px", "16"])
        assert result.stdout.split() == [str(tmp_path / "out" / "a.png")]
        return read_pixels(tmp_path / "out" / "a.png").astype(int)

    first, again, other, half = (
        restored(*options) for options in ((), (), ("--seed", "3"), ("--precision", "bf16"))
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert 0 < np.abs(first - half).mean() < np.abs(first - picture).mean() / 10


def test_weights_in_safetensors_are_read_too(tmp_path):
    network = NAFNet(width=4, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,))
    save_file(network.state_dict(), tmp_path / "net.safetensors")

    released = read_released(tmp_path / "net.safetensors")

    assert released.model == "nafnet"
    assert released.size["norm_eps"] == 1e-6
    assert inspect_checkpoint(tmp_path / "net.safetensors")["format"] == "released"


@pytest.mark.parametrize("step", [float("nan"), float("inf"), -7, 10**15])
def test_a_step_that_cannot_be_is_not_believed(tmp_path, step):
    _foundir_file(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save({**content, "step": step}, tmp_path / "model.pt")

    assert read_released(tmp_path / "model.pt").step == 0


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_any_byte_changed_is_read_or_refused(tmp_path, zipped):
    rng, path = np.random.default_rng(3), tmp_path / "file.pt"
    torch.save(
        {"params": {"intro.weight": torch.ones(2, 3)}, "step": 7}, path, _use_new_zipfile_serialization=zipped
    )
    content = path.read_bytes()

    for _ in range(300):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            read_released(path)
