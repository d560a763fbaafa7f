from __future__ import annotations

import pytest

from catalog.errors import ExitCode, InvalidDocumentError
from models.config import dump_config, load_config
from models.errors import RunNotFoundError, UnknownModelError
from models.job import plan_training
from models.registry import REGISTRY, find_model

NAFNET = find_model("nafnet")


@pytest.mark.parametrize(("name", "size"), [(e.name, size) for e in REGISTRY.values() for size in e.sizes()])
def test_every_shipped_configuration_is_valid_and_can_be_built(name, size):
    entry = find_model(name)

    config = load_config(entry, size)

    assert config.name == name
    if size != "32":  # the full network takes seconds to draw and proves nothing more
        assert sum(p.numel() for p in entry.build(config.model).parameters()) > 0


def test_overrides_change_one_value_by_its_name():
    config = load_config(
        NAFNET, "tiny", ["training.steps=7", "model.enc_blk_nums=[2, 1]", "training.budget_s=2.5"]
    )

    assert config.training.steps == 7
    assert config.model.enc_blk_nums == (2, 1)
    assert config.training.budget_s == 2.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.step=7", "training.step: unknown key; did you mean 'training.steps'"),
        ("width=8", "width: unknown key; did you mean 'model.width'"),
        ("training.steps", "needs the form key=value"),
        ("training.steps=many", "training.steps: Input should be a valid integer"),
        ("training.batch=0", "training.batch: Input should be greater than or equal to 1"),
        ("training.steps=[", "not readable as YAML"),
    ],
)
def test_wrong_overrides_say_what_is_wrong(override, message):
    with pytest.raises(InvalidDocumentError) as caught:
        load_config(NAFNET, "tiny", [override])
    assert message in str(caught.value)
    assert caught.value.exit_code == ExitCode.INVALID_INPUT


def test_a_file_with_an_unknown_key_names_line_and_nearest_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("schema: 1\nname: nafnet\nmodel: {width: 8}\ntraining:\n  steps: 5\n  bacth: 4\n")

    with pytest.raises(
        InvalidDocumentError, match=r"mine\.yaml:6:3: unknown key 'bacth'; did you mean 'batch'"
    ):
        load_config(NAFNET, str(path))


def test_a_file_for_another_model_is_refused(tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("schema: 1\nname: other\nmodel: {}\ntraining: {steps: 5}\n")

    with pytest.raises(InvalidDocumentError, match="configures model 'other', not 'nafnet'"):
        load_config(NAFNET, str(path))


def test_a_configuration_survives_being_written(tmp_path):
    config = load_config(NAFNET, "small", ["training.seed=9"])
    path = tmp_path / "again.yaml"
    path.write_text(dump_config(config))

    assert load_config(NAFNET, str(path)) == config


@pytest.mark.parametrize(
    ("name", "size", "override", "message"),
    [
        ("nafnet", "tiny", "model.enc_blk_nums=[1]", "model nafnet: 1 encoder and 2 decoder stages"),
        ("restormer", "base", "model.heads=[5, 2, 4, 8]", "5 attention heads do not divide 48 channels"),
        (
            "swinir",
            "base",
            "model.num_heads=[7, 6, 6, 6, 6, 6]",
            "7 attention heads do not divide 180 channels",
        ),
        ("wavelet-scan", "tiny", "model.low_blocks=[1]", "1 levels of low blocks and 2 of high ones"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused_in_one_line(name, size, override, message):
    entry = find_model(name)
    config = load_config(entry, size, [override])

    with pytest.raises(InvalidDocumentError, match=message) as caught:
        entry.build(config.model)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "size", "overrides", "message"),
    [
        ("nafnet", "tiny", ("model.shift_px=8", "training.patch_px=16"), "set training.patch_px to 32 or more"),
        (
            "expert", "weather-tiny",
            ("model.generalist=GENERALIST", "model.network.model.shift_px=8", "training.patch_px=31"),
            "crops of 31 px leave too little inside a shift of 8 px",
        ),
        ("expert", "weather-tiny", (), "set model.generalist=RUN"),
        ("text-expert", "tiny", (), "set model.generalist=RUN"),
    ],
)  # fmt: skip
def test_a_training_that_would_learn_nothing_useful_is_not_begun(tmp_path, name, size, overrides, message):
    (tmp_path / "first.safetensors").touch()
    overrides = [o.replace("GENERALIST", str(tmp_path / "first.safetensors")) for o in overrides]

    with pytest.raises(InvalidDocumentError, match=message):
        plan_training(name, "export", data=tmp_path, config=size, overrides=overrides)


def test_crops_with_just_enough_room_to_shift_are_trained_on(tmp_path):
    overrides = ("model.shift_px=8", "training.patch_px=32")

    job = plan_training("nafnet", "export", data=tmp_path, config="tiny", overrides=overrides)

    assert (job.config.model.shift_px, job.config.training.patch_px) == (8, 32)


def test_an_expert_behind_a_run_that_does_not_exist_is_not_begun(tmp_path):
    with pytest.raises(RunNotFoundError, match="no training run 'gone'"):
        plan_training(
            "expert", "export", data=tmp_path, config="weather-tiny", overrides=("model.generalist=gone",)
        )


def test_unknown_models_and_sizes_name_the_nearest():
    with pytest.raises(UnknownModelError, match="no model 'nafent'; did you mean 'nafnet'"):
        find_model("nafent")
    with pytest.raises(UnknownModelError, match=r"no configuration 'smal'; did you mean 'small'.*tiny"):
        load_config(NAFNET, "smal")
