import csv
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.golden import GOLDEN
from tests.helpers.losses import REGULARISED, criterion_of
from tests.helpers.outputs import FRAME
from tests.parity.run import run_case
from xmask3d.checkpoints.names import CONSTANTS, package_name, published_name
from xmask3d.data.batch import Batch, collate
from xmask3d.data.sample import Sample
from xmask3d.errors import UserError
from xmask3d.inference.class_scores import label_views
from xmask3d.models.clip import MaskClip, TextClassifier
from xmask3d.models.conditioner import Condition, ConditionedDiffusion, ImplicitConditioner
from xmask3d.models.fusion import Fuser, fuse_inference, fuse_training
from xmask3d.models.loading.clip_weights import build_clip
from xmask3d.models.loading.diffusion_weights import UNET_CONFIG_1, VAE_CONFIG, build_diffusion
from xmask3d.models.mask_decoder import MaskDecoder
from xmask3d.models.mink_unet import BinaryHead, MinkUNet, PointEncoder
from xmask3d.models.pixel_decoder import PixelDecoder
from xmask3d.models.pyramid import FeaturePyramid
from xmask3d.models.xmask3d import XMask3D

WIDTH, CLASSES, IMAGE = 12, 4, 32
PLANES, LAYERS = (8, 8, 8, 8, 8, 8, 8, 8), (1,) * 8


def small_model() -> XMask3D:
    torch.manual_seed(0)
    diffusion = build_diffusion(
        {**VAE_CONFIG, "block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4},
        {
            **UNET_CONFIG_1,
            "block_out_channels": [8, 8, 16, 16],
            "cross_attention_dim": 10,
            "norm_num_groups": 4,
            "attention_head_dim": 2,
        },
    )
    clip = build_clip(
        {
            "embed_dim": WIDTH,
            "vision_cfg": {"image_size": 28, "patch_size": 7, "width": 64, "layers": 1},
            "text_cfg": {"context_length": 8, "vocab_size": 30, "width": 64, "heads": 1, "layers": 1},
        }
    )
    point_encoder = PointEncoder(MinkUNet(3, 8, PLANES, LAYERS, stem=8), 8, WIDTH)
    binary_head = BinaryHead(MinkUNet(3, 8, PLANES, LAYERS, stem=8), 8)
    conditioner = ImplicitConditioner(WIDTH, torch.randn(1, 5, 10), diffusion.time_dim)
    return XMask3D(
        point_encoder=point_encoder,
        binary_head=binary_head,
        image_features=ConditionedDiffusion(diffusion, conditioner),
        conditioner=conditioner,
        pyramid=FeaturePyramid(diffusion.channels, diffusion.strides, channels=16, mid_channels=8, groups=4),
        pixel_decoder=PixelDecoder(16, dim=16, mask_dim=16, ffn_dim=16, layers=1, heads=2, groups=4),
        mask_decoder=MaskDecoder(dim=16, mask_dim=16, queries=6, heads=2, ffn_dim=16, layers=3, projection_dim=WIDTH),
        classifier=TextClassifier(torch.randn(1, WIDTH)),
        mask_clip=MaskClip(clip),
        fuser=Fuser(WIDTH, FRAME),
    )


def sample(seed: int, points: int = 60) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(12, (points, 3), generator=generator, dtype=torch.int32)
    coords, inverse = cells.unique(dim=0, return_inverse=True)
    labels = torch.randint(CLASSES + 1, (points,), generator=generator)
    return Sample(
        scene="scene",
        view=str(seed),
        image=torch.rand(3, IMAGE, IMAGE, generator=generator),
        voxel_coords=coords,
        voxel_features=torch.rand(len(coords), 3, generator=generator) * 2 - 1,
        point_to_voxel=inverse,
        points=cells.float(),
        point_index=torch.arange(points),
        pixels=torch.stack([torch.randint(size, (points,), generator=generator) for size in FRAME], 1),
        labels=labels,
        binary_labels=(labels < CLASSES).long(),
        label_map=torch.randint(CLASSES + 1, (IMAGE, IMAGE), generator=generator),
        caption="a view",
    )


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    return torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def batch() -> Batch:
    return collate([sample(1), sample(2, 45)])


def training_losses(model: XMask3D, batch: Batch, text: torch.Tensor) -> dict[str, torch.Tensor]:
    outputs = model(batch, text, mask_clip=True, auxiliary=True)
    criterion = criterion_of(num_classes=CLASSES, frame_size=FRAME, num_points=40)
    captions = torch.ones(batch.size, WIDTH)
    return criterion(outputs, batch, captions, epoch=REGULARISED, generator=torch.Generator().manual_seed(0))


def test_shapes(batch: Batch, text: torch.Tensor) -> None:
    outputs = small_model()(batch, text, mask_clip=True, auxiliary=True)
    assert len(outputs.masks) == len(outputs.class_logits) == 4
    assert outputs.mask_logits.shape == (2, 6, 8, 8) and outputs.mask_embeddings.shape == (2, 6, WIDTH)
    assert outputs.class_logits[3].shape == (2, 6, CLASSES + 1) and outputs.class_embeddings.shape == (5, WIDTH)
    assert outputs.global_feature.shape == (2, WIDTH) and outputs.points_3d.shape == (105, WIDTH)
    assert outputs.binary_logits.shape == (105,)
    assert outputs.clip_embeddings is not None and outputs.clip_embeddings.shape == (2, 6, WIDTH)
    assert not outputs.clip_embeddings.requires_grad
    plain = small_model()(batch, text, mask_clip=False, auxiliary=False)
    assert plain.clip_embeddings is None and len(plain.masks) == 1
    torch.testing.assert_close(plain.mask_logits, outputs.mask_logits)
    points = small_model()(batch, text, masks=False)
    assert points.masks == [] and points.class_logits == [] and points.clip_embeddings is points.fused is None
    assert torch.equal(points.temperature, outputs.temperature)
    torch.testing.assert_close(points.points_3d, outputs.points_3d)
    torch.testing.assert_close(points.binary_logits, outputs.binary_logits)


def test_masks_own_points_by_training_scores_or_by_gated_ones(batch: Batch, text: torch.Tensor) -> None:
    model, novel = small_model().eval(), torch.arange(CLASSES) > 2
    with torch.no_grad():
        trained, tested = model(batch, text), model(batch, text, novel=novel)
        expected = fuse_training(model.fuser, trained, batch), fuse_inference(model.fuser, tested, batch, novel)
        with torch.autocast("cpu", torch.bfloat16):
            rounded, exact = model(batch, text).fused, model(batch, text, novel=novel).fused
    for outputs, wanted in zip((trained, tested), expected, strict=True):
        assert torch.equal(outputs.fused.owner, wanted.owner) and torch.equal(outputs.fused.rows, wanted.rows)
    assert not torch.equal(trained.fused.owner, tested.fused.owner)
    assert rounded.rows.dtype == torch.bfloat16 and exact.rows.dtype == torch.float32


def test_a_point_network_of_other_sizes_is_named(batch: Batch, text: torch.Tensor) -> None:
    model = small_model()
    model.point_encoder = PointEncoder(MinkUNet(3, 8, PLANES, LAYERS, stem=8), 8, WIDTH + 1)
    sizes = rf"\(2, {WIDTH + 1}\), \(\d+, {WIDTH + 1}\)\), expected \(\(2, {WIDTH}\)"
    with pytest.raises(UserError, match=f"PointEncoder gives features of .*{sizes}"):
        model(batch, text)


def test_every_parameter_trains(batch: Batch, text: torch.Tensor) -> None:
    model = small_model().train()
    with torch.no_grad():
        for gate in (model.conditioner.alpha_cond, model.conditioner.alpha_cond_time_embed):
            gate.fill_(0.5)  # they start closed
        for name, parameter in model.pixel_decoder.named_parameters():
            if "sampling_offsets.weight" in name or "attention_weights.weight" in name:
                parameter.normal_(std=0.1)  # at the start nothing moves the places that are looked at
    training_losses(model, batch, text)["total"].backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    zero = [name for name, p in model.named_parameters() if name not in silent and not p.grad.any()]
    assert silent == []
    assert zero == []


def test_a_few_steps_fit_a_batch(batch: Batch, text: torch.Tensor) -> None:
    model = small_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(8):
        losses = training_losses(model, batch, text)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    for name in ("total", "mask", "point_fused", "point_3d", "caption_3d", "binary"):
        assert history[-1][name] < history[0][name], name


def test_views_do_not_see_each_other(text: torch.Tensor) -> None:
    model = small_model().double().eval()
    samples = [sample(1), sample(2, 45), sample(3, 1)]
    together = collate(samples).to("cpu", torch.float64)
    with torch.no_grad():
        joint = model(together, text.double(), mask_clip=True, auxiliary=False)
        for index, one in enumerate(samples):
            alone = model(collate([one]).to("cpu", torch.float64), text.double(), mask_clip=True, auxiliary=False)
            rows = together.point_batch == index
            torch.testing.assert_close(joint.points_3d[rows], alone.points_3d)
            torch.testing.assert_close(joint.binary_logits[rows], alone.binary_logits)
            torch.testing.assert_close(joint.global_feature[[index]], alone.global_feature)
            torch.testing.assert_close(joint.mask_logits[[index]], alone.mask_logits)
            torch.testing.assert_close(joint.clip_embeddings[[index]], alone.clip_embeddings)


def test_points_condition_the_masks(batch: Batch, text: torch.Tensor) -> None:
    model = small_model().eval()
    other = dataclasses.replace(batch, voxel_features=-batch.voxel_features)
    with torch.no_grad():
        before = [model(b, text, mask_clip=False, auxiliary=False).mask_logits for b in (batch, other)]
        model.conditioner.alpha_cond.fill_(2.0)
        after = [model(b, text, mask_clip=False, auxiliary=False).mask_logits for b in (batch, other)]
    torch.testing.assert_close(before[0], before[1])
    assert not torch.allclose(after[0], after[1])


@pytest.mark.parametrize("condition", ["image", "text"])
def test_other_conditions_of_the_masks(batch: Batch, text: torch.Tensor, condition: Condition) -> None:
    """Images or sentences condition the masks in place of the points, whose branch they leave alone."""
    model = small_model().eval()
    model.condition = condition
    recoloured = dataclasses.replace(batch, voxel_features=-batch.voxel_features)
    bright = dataclasses.replace(batch, images=batch.images.flip(0))
    sentences = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(6))

    def masks(batch: Batch, captions: torch.Tensor | None = None) -> torch.Tensor:
        encoded = model.image_features.encode(images)
        return model(batch, text, encoded=encoded, captions=captions).mask_logits

    images = batch.images
    with torch.no_grad():
        model.conditioner.alpha_cond.fill_(2.0)
        torch.testing.assert_close(masks(batch), masks(recoloured))
        assert torch.allclose(masks(batch), masks(bright)) == (condition == "text")
        assert torch.allclose(masks(batch), masks(batch, sentences)) == (condition == "image")
        names = text.mean(0).expand(2, -1)
        torch.testing.assert_close(masks(batch), masks(batch, names))
        whole = torch.full((2, 1, 8, 8), 9.0)
        expected = model.mask_clip(images, whole)[:, 0]
        torch.testing.assert_close(model.mask_clip.embed_whole(model.mask_clip.encode(images)), expected)


def test_kept_encodings_give_the_same(batch: Batch, text: torch.Tensor) -> None:
    model = small_model().eval()
    with torch.no_grad():
        encoded = model.image_features.encode(batch.images)
        first = model(batch, text, mask_clip=False, auxiliary=False, encoded=encoded)
        second = model(batch, text, mask_clip=False, auxiliary=False)
    assert torch.equal(first.mask_logits, second.mask_logits)


def test_state_holds_what_trains_and_batch_norms_only() -> None:
    model = small_model()
    state = model.state_dict()
    trained = {name for name, _ in model.named_parameters()}
    rest = {name for name in state if name not in trained}
    assert trained <= set(state)
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in rest)
    assert not any(name.startswith(("image_features.", "mask_clip.")) for name in state)
    again = small_model()
    nn.init.zeros_(again.fuser.linear.weight)
    again.load_state_dict(state, strict=True)
    assert torch.equal(again.fuser.linear.weight, model.fuser.linear.weight)


def test_half_precision_is_close(batch: Batch, text: torch.Tensor) -> None:
    model = small_model().eval()
    with torch.no_grad():
        exact = model(batch, text, mask_clip=True, auxiliary=False)
        with torch.autocast("cpu", torch.bfloat16):
            novel = torch.arange(CLASSES) > 2
            half = model(batch, text, mask_clip=True, novel=novel)
            labels = label_views(half, batch, text, novel)
    assert half.class_logits[0].dtype == torch.float32
    assert F.cosine_similarity(half.points_3d.float(), exact.points_3d, dim=-1).min() > 0.95
    assert labels.fused.shape == (105,) and labels.scores.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert training_losses(model.train(), batch, text)["total"].isfinite()


def test_names_are_those_of_published_checkpoints() -> None:
    with (GOLDEN / "manifest_B15N4.tsv").open() as file:
        published = {row["name"]: row["shape"] for row in csv.DictReader(file, delimiter="\t")}
    assert len(published) == 1073
    with torch.device("meta"):
        model = XMask3D(
            point_encoder=PointEncoder(MinkUNet.unet34c()),
            binary_head=BinaryHead(MinkUNet.unet18a()),
            image_features=nn.Identity(),
            conditioner=ImplicitConditioner(768, torch.zeros(1, 77, 768), 1280),
            pyramid=FeaturePyramid([512, 512, 2560, 1920, 960, 640, 512, 512], [4, 8, 64, 32, 16, 8, 8, 4]),
            pixel_decoder=PixelDecoder(),
            mask_decoder=MaskDecoder(),
            classifier=TextClassifier(torch.zeros(1, 768)),
            mask_clip=nn.Identity(),
            fuser=Fuser(768),
        )
    state = {published_name(name): "x".join(map(str, t.shape)) or "scalar" for name, t in model.state_dict().items()}
    assert state == {name: shape for name, shape in published.items() if name not in CONSTANTS}
    assert all(published_name(package_name(f"module.{name}")) == name for name in state)
    for name in (*CONSTANTS, "backbone.unknown.weight"):
        with pytest.raises(KeyError):
            package_name(name)
    with pytest.raises(KeyError):
        published_name("teacher.weight")


@pytest.mark.slow
def test_matches_recorded_step_of_the_whole_model() -> None:
    report = run_case(GOLDEN / "k_end2end")
    assert report.passed, "\n".join(report.lines())
    assert {"eval/final_mask_3d", "train/total", "train/grad_l2"} <= {item.name for item in report.comparisons}
