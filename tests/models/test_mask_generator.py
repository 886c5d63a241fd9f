"""Pixel decoder and mask decoder."""

import pytest
import torch
from torch import Tensor

from tests.helpers.golden import assert_matches, load_case
from tests.parity.filler import fill_module, random_normal
from xmask3d.models.blocks import sine_position_encoding
from xmask3d.models.deformable_attention import DeformableAttention
from xmask3d.models.mask_decoder import MaskDecoder, attention_mask, pool_under_masks
from xmask3d.models.pixel_decoder import PixelDecoder


def small_decoder(**changes: int) -> MaskDecoder:
    torch.manual_seed(0)
    sizes = {"dim": 16, "mask_dim": 8, "queries": 5, "heads": 2, "ffn_dim": 24, "layers": 4, "projection_dim": 12}
    return MaskDecoder(**{**sizes, **changes}).double()


def small_features(batch: int = 2) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(1)
    sizes = [(2, 3), (4, 6), (8, 12)]
    memories = [torch.randn(batch, 16, *size, dtype=torch.float64, requires_grad=True) for size in sizes]
    return torch.randn(batch, 8, 16, 24, dtype=torch.float64, requires_grad=True), memories


def test_matches_recorded_masks() -> None:
    inputs, outputs = load_case("c_decoder")
    names = {level: f"c_decoder.features.{inputs['feature_seed']}.s{level}" for level in (2, 3, 4, 5)}
    shapes = {level: tuple(inputs[f"features_s{level}_shape"]) for level in names}
    pyramid = [torch.from_numpy(random_normal(name, shapes[level])) for level, name in names.items()]
    pixel_decoder, mask_decoder = PixelDecoder(), MaskDecoder()
    fill_module(pixel_decoder, "sem_seg_head.pixel_decoder.")
    fill_module(mask_decoder, "sem_seg_head.predictor.")
    with torch.no_grad():
        features = pixel_decoder(pyramid)
        final, *auxiliary = mask_decoder(*features, auxiliary=True)
    assert_matches(outputs, "mask_features", features.mask_features)
    for level, memory in enumerate(features.memories):
        assert_matches(outputs, f"ms{level}", memory)
    assert_matches(outputs, "pred_masks", final.mask_logits)
    assert_matches(outputs, "mask_embed", final.embeddings)
    assert_matches(outputs, "pooled", final.pooled)
    assert_matches(outputs, "logit_scale", final.temperature)
    assert len(auxiliary) == 9
    for index, prediction in enumerate(auxiliary):
        assert_matches(outputs, f"aux{index}_pred_masks", prediction.mask_logits)
        assert_matches(outputs, f"aux{index}_mask_embed", prediction.embeddings)
        assert_matches(outputs, f"aux{index}_mask_pooled_features", prediction.pooled)


def test_published_names_and_shapes() -> None:
    pixel, masks = PixelDecoder().state_dict(), MaskDecoder().state_dict()
    assert (len(pixel), sum(x.numel() for x in pixel.values())) == (117, 5_577_152)
    assert (len(masks), sum(x.numel() for x in masks.values())) == (186, 14_828_801)
    assert pixel["transformer.encoder.layers.5.self_attn.sampling_offsets.weight"].shape == (192, 256)
    assert masks["post_mask_embed.mask_embed.1.layers.2.weight"].shape == (768, 256)


def test_without_auxiliary_the_final_prediction_and_its_gradients_stay() -> None:
    decoder = small_decoder()
    results = []
    for auxiliary in (True, False):
        features, memories = small_features()
        predictions = decoder(features, memories, auxiliary=auxiliary)
        assert len(predictions) == (5 if auxiliary else 1)
        loss = predictions[0].mask_logits.square().mean() + predictions[0].embeddings.square().mean()
        gradients = torch.autograd.grad(loss, [features, *memories, *decoder.parameters()], allow_unused=True)
        results.append((loss, [g for g in gradients if g is not None]))
    torch.testing.assert_close(results[0], results[1])


def test_blocked_rows_open_and_others_stay() -> None:
    logits = torch.full((1, 3, 4, 4), -1.0)
    logits[0, 1, :2, :2] = 1.0
    logits[0, 2] = 1.0
    blocked = attention_mask(logits, (2, 2))
    assert blocked[0].tolist() == [[False] * 4, [False, True, True, True], [False] * 4]


def test_decoder_survives_masks_without_pixels() -> None:
    decoder = small_decoder()
    features, memories = small_features()
    with torch.no_grad():
        for parameter in decoder.mask_embed.parameters():
            parameter.zero_()
        decoder.mask_embed.layers[-1].bias.fill_(-1.0)
    predictions = decoder(features.abs(), memories, auxiliary=True)
    assert all((prediction.mask_logits < 0).all() for prediction in predictions)
    assert all(prediction.embeddings.isfinite().all() for prediction in predictions)
    sum(prediction.embeddings.sum() for prediction in predictions).backward()
    assert all(memory.grad.isfinite().all() for memory in memories)


def test_pooling_averages_inside_the_mask_and_gives_zero_for_none() -> None:
    features = torch.arange(8.0).view(1, 2, 2, 2)
    logits = torch.tensor([[[[1.0, -1.0], [1.0, 0.0]], [[-1.0, -1.0], [-1.0, -1.0]]]], requires_grad=True)
    pooled = pool_under_masks(features, logits)
    torch.testing.assert_close(pooled[0], torch.tensor([[1.0, 5.0], [0.0, 0.0]]))
    assert not pooled.requires_grad


def test_temperature_is_capped() -> None:
    decoder = small_decoder()
    torch.testing.assert_close(decoder.post_mask_embed.temperature().item(), 1 / 0.07, rtol=1e-6, atol=0)
    with torch.no_grad():
        decoder.post_mask_embed.logit_scale.fill_(7.0)
    assert decoder.post_mask_embed.temperature() == 100


def test_deformable_attention_samples_where_it_points() -> None:
    """With identity projections and one place of weight 1, a query reads the value there."""
    attention = DeformableAttention(4, heads=2, levels=2, points=1).double()
    sizes = [(2, 3), (4, 5)]
    with torch.no_grad():
        for projection in (attention.value_proj, attention.output_proj):
            projection.weight.copy_(torch.eye(4))
        # Level 1 only, one cell to the right and two cells down for head 0, none for head 1.
        attention.attention_weights.bias.copy_(torch.tensor([-1e9, 0.0, -1e9, 0.0]))
        attention.sampling_offsets.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]))
    memory = torch.randn(1, 6 + 20, 4, dtype=torch.float64)
    reference = torch.tensor([[0.5 / 5, 0.5 / 4], [4.5 / 5, 0.5 / 4]], dtype=torch.float64)
    out = attention(torch.zeros(1, 2, 4, dtype=torch.float64), reference, memory, sizes)[0]
    level = memory[0, 6:].view(4, 5, 4)
    torch.testing.assert_close(out[0], torch.cat([level[2, 1, :2], level[0, 0, 2:]]))
    # Beyond the right edge is zero.
    torch.testing.assert_close(out[1], torch.cat([torch.zeros(2), level[0, 4, 2:]]).double())


def test_position_encoding() -> None:
    encoding = sine_position_encoding(3, 5, 8, device=torch.device("cpu"), dtype=torch.float64)
    assert encoding.shape == (8, 3, 5)
    # The last row is a full turn; rows do not change along columns, nor columns along rows.
    torch.testing.assert_close(encoding[:2, 2, 0], torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-5)
    assert torch.equal(encoding[:4, :, 0], encoding[:4, :, 4])
    assert torch.equal(encoding[4:, 0], encoding[4:, 2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_runs_in_other_precisions(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    pixel = PixelDecoder(6, dim=16, mask_dim=8, ffn_dim=20, layers=2, heads=2, points=2, groups=4)
    decoder = small_decoder().float()
    pyramid = [torch.randn(1, 6, size, size) for size in (16, 8, 4, 2)]
    expected = decoder(*pixel(pyramid), auxiliary=False)[0]
    if dtype == torch.float64:
        features = pixel.double()([x.double() for x in pyramid])
        actual = decoder.double()(*features, auxiliary=False)[0]
        torch.testing.assert_close(actual.mask_logits.float(), expected.mask_logits, rtol=1e-3, atol=1e-4)
    else:
        with torch.autocast("cpu", dtype):
            features = pixel(pyramid)
            actual = decoder(*features, auxiliary=False)[0]
        difference = (actual.mask_logits - expected.mask_logits).norm() / expected.mask_logits.norm()
        assert difference < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pooling_of_half_precision_features(dtype: torch.dtype) -> None:
    """Whole maps of large values leave the range of float16, and masks without pixels divide by next to nothing."""
    features = torch.full((1, 3, 128, 128), 5.0, dtype=dtype)
    logits = torch.stack([torch.ones(128, 128), -torch.ones(128, 128)])[None].to(dtype)
    with torch.autocast("cpu", dtype):
        pooled = pool_under_masks(features, logits)
    assert pooled.dtype == dtype
    assert pooled.tolist() == [[[5.0] * 3, [0.0] * 3]]
