from __future__ import annotations

import pytest

from catalog.errors import ExitCode, InvalidDocumentError
from models.config import dump_config, load_config
from models.errors import UnknownModelError
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


def test_unknown_models_and_sizes_name_the_nearest():
    with pytest.raises(UnknownModelError, match="no model 'nafent'; did you mean 'nafnet'"):
        find_model("nafent")
    with pytest.raises(UnknownModelError, match=r"no configuration 'smal'; did you mean 'small'.*tiny"):
        load_config(NAFNET, "smal")
