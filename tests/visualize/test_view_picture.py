"""The picture of one view."""

import numpy as np
import torch

from xmask3d.visualize.cloud import class_palette
from xmask3d.visualize.view_picture import disjoint_masks, draw_view


def half_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Query 0 covers the left half as class 0, query 1 everything, less surely, as class 1; query 2 nothing."""
    masks = torch.full((3, 4, 8), -5.0)
    masks[0, :, :4] = 5
    masks[1] = 1
    classes = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0]])
    return masks, classes


def test_the_surest_mask_owns_a_pixel() -> None:
    masks, classes = half_masks()
    owner = disjoint_masks(masks, classes, (4, 8))
    assert owner.tolist() == [[0] * 4 + [1] * 4] * 4
    masks[1] = -1
    assert disjoint_masks(masks, classes, (4, 8)).tolist() == [[0] * 4 + [-1] * 4] * 4


def test_colours_are_those_of_classes() -> None:
    masks, classes = half_masks()
    palette = class_palette(["wall", "floor"])
    picture = draw_view(
        image=np.zeros((32, 32, 3), np.uint8),
        mask_logits=masks,
        class_logits=classes,
        pixels=np.array([[30, 40]]),
        frame_size=(60, 80),
        truth=np.array([1]),
        predicted=np.array([0]),
        names=["wall", "floor"],
    )
    assert picture.shape[1] > 4 * 80
    tinted = np.rint(0.55 * palette[0]).astype(np.uint8)
    assert (picture == tinted).all(-1).sum() > 60 * 80 / 4
    assert (picture == palette[0]).all(-1).sum() >= 9 and (picture == palette[1]).all(-1).sum() >= 9
