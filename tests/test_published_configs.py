"""The configurations of published runs hold the published numbers."""

from pathlib import Path

import pytest

from xmask3d.config import Config, load_config
from xmask3d.engine.batch_norm import micro_batches
from xmask3d.resources import REPOSITORY
from xmask3d.splits import load_benchmark

FILES = sorted(path for path in (REPOSITORY / "config").rglob("*.yaml") if path.parent.name != "config")
PUBLISHED = [path for path in FILES if path.parent.name in ("scannet", "scannet200", "s3dis")]

# file: novel classes, base classes, binary, mask regularisation and its first epoch, positive weight, novel exponent,
# most points of a view
NUMBERS = {
    "scannet/B15N4": (4, 15, 16, 0.5, 50, 0.267, 0.35, 10_000_000),
    "scannet/B12N7": (7, 12, 12, 0.5, 50, 0.583, 0.35, 65_000),
    "scannet/B10N9": (9, 10, 8, 1, 50, 0.5, 0.20, 10_000_000),
    "scannet200/B170N30": (30, 170, 48, 2, 75, 0.1, 0.25, 10_000_000),
    "scannet200/B150N50": (50, 150, 32, 2, 75, 0.167, 0.35, 10_000_000),
    "s3dis/B8N4": (4, 8, 20, 1, 50, 0.5, 0.35, 10_000_000),
    "s3dis/B6N6": (6, 6, 15, 1, 50, 1.0, 0.35, 10_000_000),
}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_loads_and_names_a_benchmark(path: Path) -> None:
    config = load_config(path)
    assert load_benchmark(config.benchmark).num_base > 0
    assert config.output != Config().output or path.stem == "shared"


def test_all_published_benchmarks_have_a_file() -> None:
    assert {name_of(path) for path in PUBLISHED} == set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_a_benchmark(name: str) -> None:
    config = load_config(REPOSITORY / "config" / f"{name}.yaml")
    benchmark = load_benchmark(config.benchmark)
    loss, evaluate = config.loss, config.evaluate
    assert (
        len(benchmark.novel), len(benchmark.base), loss.binary, loss.mask_regularisation,
        loss.mask_regularisation_start, loss.binary_positive_weight, evaluate.novel_ratio, evaluate.max_points,
    ) == NUMBERS[name]  # fmt: skip
    list_name, split = config.benchmark.split("/")
    assert name.endswith(split) and list_name == {"scannet": "scannet20"}.get(name.split("/")[0], name.split("/")[0])
    assert config.data.layout == name.split("/")[0]


@pytest.mark.parametrize("path", PUBLISHED, ids=name_of)
def test_what_the_published_runs_share(path: Path) -> None:
    config = load_config(path)
    data, model, loss, train = config.data, config.model, config.loss, config.train
    assert (data.frame_size, data.image_size) == ((240, 320), (512, 512))
    assert (data.voxel_size, data.border, data.depth_tolerance) == (0.02, 10, 0.25)
    largest = 250_000 if data.layout == "s3dis" else 65000
    assert (data.min_points, data.max_points, data.min_labelled) == (400, largest, 10)
    assert (data.views_per_scene, data.rotate, data.augment_color, data.augment_shape) == (16, True, False, False)
    assert 1201 * data.views_per_scene // train.batch_size == 300
    assert model.point_unet.layers == (2, 3, 4, 6, 2, 2, 2, 2)
    assert model.point_unet.planes == (32, 64, 128, 256, 256, 128, 96, 96)
    assert model.binary_unet.layers == (2,) * 8
    assert model.binary_unet.planes == (32, 64, 128, 256, 128, 128, 96, 96)
    assert model.point_unet.stem == model.binary_unet.stem == 32
    assert model.point_unet.out_channels == model.binary_unet.out_channels == 256
    assert (model.queries, model.mask_layers, model.mask_ffn, model.pixel_layers, model.pixel_ffn) == (
        50, 9, 2048, 6, 1024,
    )  # fmt: skip
    assert (model.hidden, model.heads, model.pyramid_channels, model.pyramid_mid_channels) == (256, 8, 512, 128)
    assert (model.clip, model.condition) == ("ViT-L-14/openai", "point")
    assert (loss.mask_class, loss.mask, loss.dice, loss.no_object, loss.num_points) == (2, 5, 5, 0.1, 12544)
    assert (loss.point_fused, loss.point_3d) == (4, 4)
    assert (loss.caption_fused, loss.caption_3d, loss.caption_2d) == (1.5, 1, 4)
    assert (train.epochs, train.batch_size, train.lr_3d, train.lr_others) == (150, 64, 1e-3, 1e-4)
    assert (train.weight_decay, train.warmup_steps, train.clip_grad) == (0.01, 0, None)
    assert (train.precision, train.accumulate, train.ema) == ("float32", 1, None)
    assert (train.samples_per_process, train.batch_norm) == (16, "local")
    assert train.novel_supervision == "reference"
    assert (train.log_every, train.save_every, train.evaluate_every) == (10, 1, 1)
    assert (config.evaluate.base_ratio, config.seed, config.evaluate.prompts) == (0.65, 5557, None)


@pytest.mark.parametrize(("gigabytes", "views"), [(24, 4), (40, 8), (80, 16)])
def test_plans_for_cards_change_what_they_name_alone(gigabytes: int, views: int, tmp_path: Path) -> None:
    for name in NUMBERS:
        benchmark = REPOSITORY / "config" / f"{name}.yaml"
        plan = tmp_path / "plan.yaml"
        plan.write_text(f"include: [{benchmark}, {REPOSITORY / 'config' / f'card-{gigabytes}gb.yaml'}]\n")
        config, published = load_config(plan), load_config(benchmark)
        assert micro_batches(config.train, 1) == 64 // views
        published.train.samples_per_process = views
        assert config == published
