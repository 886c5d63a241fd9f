"""Loading configurations: includes, overrides, and errors that name file, line and remedy."""

from pathlib import Path

import pytest

from xmask3d.config import Config, load_config, save_config
from xmask3d.errors import UserError
from xmask3d.resources import REPOSITORY


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, list(overrides))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "a.yaml", "")) == Config()


def test_later_layers_win(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "train: {epochs: 3, batch_size: 4}\nseed: 1\n")
    top = write(tmp_path, "sub/top.yaml", "include: ../base.yaml\ntrain:\n  epochs: 5\n")
    config = load_config(top, ["train.batch_size=6", "data.image_size=[64, 96]", "train.ema=0.9"])
    assert (config.train.epochs, config.train.batch_size, config.seed) == (5, 6, 1)
    assert config.data.image_size == (64, 96)
    assert config.train.ema == 0.9


def test_several_includes_in_order(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "seed: 1\ntrain: {epochs: 2}\n")
    write(tmp_path, "b.yaml", "seed: 2\n")
    config = load_config(write(tmp_path, "top.yaml", "include: [a.yaml, b.yaml]\n"))
    assert (config.seed, config.train.epochs) == (2, 2)


def test_saved_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, "a.yaml", "data: {root: /x/y}\ntrain: {checkpoints: [3]}\n"), ["train.ema=0.5"]
    )
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


def test_unknown_key_has_a_line_and_a_suggestion(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "seed: 1\ntrain:\n  epochs: 2\n  batch_sise: 4\n")
    text = message(path)
    assert f"{path}:4" in text and "'train.batch_sise'" in text and "'batch_size'" in text


def test_unknown_key_in_an_include_names_that_file(tmp_path: Path) -> None:
    below = write(tmp_path, "below.yaml", "# a comment\nlos: {}\n")
    text = message(write(tmp_path, "top.yaml", "seed: 3\n\ninclude: below.yaml\n"))
    assert f"{below}:2" in text and "'loss'" in text


def test_a_key_of_earlier_runs_without_effect_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {diffusion_size: null, hidden: 64}\n")
    assert load_config(path).model.hidden == 64
    path.write_text("model: {diffusion_size: [8, 8]}\n")
    with pytest.raises(UserError, match=r"unknown key 'model\.diffusion_size'"):
        load_config(path)


def test_rounded_products_of_earlier_runs_are_dropped_with_a_warning(tmp_path: Path, caplog) -> None:
    path = write(tmp_path, "a.yaml", "sparse: {backend: torch, products: bfloat16}\n")
    assert load_config(path).sparse.model_dump() == {"backend": "torch"}
    assert [record.getMessage() for record in caplog.records] == [
        "sparse.products is of earlier versions and has no effect: convolutions compute in float32"
    ]


def test_a_renamed_key_is_read_with_a_warning_and_the_shipped_model_has_none(tmp_path: Path, caplog) -> None:
    assert load_config(write(tmp_path, "a.yaml", "train: {keep_encodings: true}\n")).train.feature_cache
    assert not load_config("rooms/B15N4", ["train.keep_encodings=false"]).train.feature_cache
    wanted = ["train.keep_encodings is now named train.feature_cache"] * 2
    assert [record.getMessage() for record in caplog.records] == wanted
    caplog.clear()
    assert load_config(REPOSITORY / "xmask3d" / "weights" / "rooms-B15N4" / "config.yaml").train.feature_cache
    assert not caplog.records


def test_unknown_override(tmp_path: Path) -> None:
    text = message(write(tmp_path, "a.yaml", ""), "train.epoch=3")
    assert "override 'train.epoch=3'" in text and "'epochs'" in text


def test_wrong_type_has_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "train:\n  lr_3d: fast\n")
    text = message(path)
    assert f"{path}:2" in text and "train.lr_3d" in text and "'fast'" in text


def test_out_of_range_in_an_include(tmp_path: Path) -> None:
    below = write(tmp_path, "below.yaml", "evaluate: {novel_ratio: 3}\n")
    text = message(write(tmp_path, "top.yaml", "include: below.yaml\n"))
    assert f"{below}:1" in text and "novel_ratio" in text


def test_a_value_where_a_group_belongs(tmp_path: Path) -> None:
    assert "train" in message(write(tmp_path, "a.yaml", "train: 3\n"))
    assert "seed" in message(write(tmp_path, "b.yaml", "seed: 3\n"), "seed.deep=1")


def test_override_without_value(tmp_path: Path) -> None:
    assert "key=value" in message(write(tmp_path, "a.yaml", ""), "train.epochs")


def test_bad_yaml_has_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "seed: 1\ntrain: {epochs: 2\n")
    assert f"{path}:" in message(path)


def test_missing_file_and_endless_include(tmp_path: Path) -> None:
    assert "nowhere.yaml" in message(tmp_path / "nowhere.yaml")
    write(tmp_path, "a.yaml", "include: b.yaml\n")
    assert "includes itself" in message(write(tmp_path, "b.yaml", "include: a.yaml\n"))


@pytest.mark.parametrize(("written", "means"), [("true", "hard"), ("false", "none"), ("soft", "soft")])
def test_the_gate_of_earlier_configurations_is_understood(written: str, means: str) -> None:
    config = load_config("config/rooms/B15N4.yaml", [f"evaluate.gate={written}"])
    assert config.evaluate.gate == means


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    assert f"{path}: not a text file" in message(path)
    path.write_bytes(b"\0\1")
    assert f"{path}: not valid YAML" in message(path)


@pytest.mark.parametrize("value", ["5", "{a: b}", "[1]"])
def test_include_of_something_else(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "a.yaml", f"seed: 1\ninclude: {value}\n")
    assert f"{path}:2: include: expected the name of a file" in message(path)


def test_values_that_yaml_cannot_make(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "output: 2020-13-01\n")
    assert f"{path}: not valid YAML: month must be" in message(path)
    assert "override 'output=2020-13-01': not valid YAML" in message(write(tmp_path, "b.yaml", ""), "output=2020-13-01")


@pytest.mark.parametrize("override", ["evaluate.max_views=0", "evaluate.max_views=-3", "data.image_size=[0, 64]"])
def test_sizes_below_one_are_refused(tmp_path: Path, override: str) -> None:
    assert f"override '{override}'" in message(write(tmp_path, "a.yaml", ""), override)


@pytest.mark.parametrize(
    "override, reason",
    [
        ("train.clip_grad=-1", "greater than 0"),
        ("train.ema=2", "less than 1"),
        ("seed=-1", "greater than or equal to 0"),
        ("seed=5000000000", "less than"),
        ("model.heads=7", "the 256 channels of model.hidden do not divide by it"),
        ("model.hidden=100", "multiple of 32"),
        ("model.point_unet.layers=[1, 1]", "at least 8 items"),
        ("model.binary_unet.planes=[1, 1, 1, 1, 1, 1, 1, 0]", "greater than 0"),
        ("loss.num_points=0", "greater than or equal to 1"),
        ("loss.dice=-1", "greater than or equal to 0"),
    ],
)
def test_values_that_no_run_can_have(tmp_path: Path, override: str, reason: str) -> None:
    text = message(write(tmp_path, "a.yaml", ""), override)
    assert override.partition("=")[0] in text and reason in text


def test_dotted_paths_of_an_untrusted_configuration_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "seed: 1\nevaluate:\n  headlines: [hiou, their_package.score]\n")
    assert load_config(path).evaluate.headlines == ["hiou", "their_package.score"]
    with pytest.raises(
        UserError, match=r"a\.yaml:3: evaluate\.headlines names code .*their_package\.score.*--trust-code"
    ):
        load_config(path, trusted=False)
    assert load_config(path, ["evaluate.headlines=[hiou]"], trusted=False).evaluate.headlines == ["hiou"]


def test_losses_of_ones_own_are_dotted_paths_with_weights(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "loss: {extra: {my_package.Edges: 0.5}}\n")
    assert load_config(path).loss.extra == {"my_package.Edges": 0.5}
    assert load_config(write(tmp_path, "b.yaml", ""), ["loss.extra={a.B: 2}"]).loss.extra == {"a.B": 2.0}
    assert "loss.extra: " in message(path, "loss.extra={Edges: 1}")
    assert "dotted paths of classes with weights" in message(path, "loss.extra={a.Edges: -1}")
    with pytest.raises(UserError, match=r"loss\.extra names code"):
        load_config(path, trusted=False)


def test_regions_need_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("evaluate: {regions: votes}\n")
    with pytest.raises(UserError, match=r"evaluate: .*regions sum probabilities; set evaluate.votes=soft"):
        load_config(path)


@pytest.mark.parametrize(
    "override",
    ["data.voxel_size=.inf", "train.lr_3d=.nan", "train.save_minutes=-1", "train.save_minutes=.nan",
     "train.checkpoints=[0]", "data.image_size=[1000000, 1000000]", "loss.num_points=1000000000000",
     "evaluate.templates=['{x}']", "evaluate.templates=['{0.__class__}']", "evaluate.templates=['a {} of {}']",
     "evaluate.templates=['{']", "seed=true", "data.workers=yes", "train.ema=no"],
)  # fmt: skip
def test_numbers_and_templates_that_cannot_be_meant(override: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("rooms/B15N4", [override])
    assert override.partition("=")[0] in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_that_is_given_twice_is_refused_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for text, line in (("seed: 1\nseed: 2\n", 2), ("train:\n  epochs: 1\n  lr_3d: 0.1\n  epochs: 2\n", 4)):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"a\.yaml:{line}: '(seed|epochs)' is given twice"):
            load_config(path)
