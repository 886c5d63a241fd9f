"""Picture of one view with the model's masks and labels."""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from xmask3d.visualize.cloud import class_palette
from xmask3d.visualize.pictures import draw_points, overlay_masks, side_by_side


def draw_view(
    *,
    image: np.ndarray,
    mask_logits: Tensor,
    class_logits: Tensor,
    pixels: np.ndarray,
    frame_size: tuple[int, int],
    truth: np.ndarray | None,
    predicted: np.ndarray,
    names: Sequence[str],
) -> np.ndarray:
    """Draw image, predicted masks in the colours of their classes, and truth and prediction of points side by side.

    Args:
        image: H x W x 3 uint8, stretched to the size of the network's input; the result has the shape of the frame
            again.
        mask_logits: Q x h x w. class_logits: Q x (K + 1), null last.
        pixels: N x 2 (row, column) on the frame grid.
        frame_size: height and width of the frame grid.
        truth, predicted: N class ids; truth may be None.
        names: K class names.

    Returns:
        height x width x 3 uint8.
    """
    palette = class_palette(names)
    frame = _resize(image, frame_size)
    owner = disjoint_masks(mask_logits, class_logits, frame_size)
    classes = class_logits.argmax(-1).numpy()
    panels = [("image", frame), ("predicted masks", overlay_masks(frame, owner, palette[classes]))]
    if truth is not None:
        panels.append(("points: truth", draw_points(frame, pixels, palette[truth])))
    panels.append(("points: prediction", draw_points(frame, pixels, palette[predicted])))
    shown = np.union1d(predicted, classes[np.unique(owner[owner >= 0])])
    if truth is not None:
        shown = np.union1d(shown, truth)
    shown = shown[(shown >= 0) & (shown < len(names))]
    return side_by_side(panels, [names[i] for i in shown], palette[shown])


def disjoint_masks(mask_logits: Tensor, class_logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Find the query that owns each pixel: the largest class times mask probability, if the mask covers the pixel.

    Args:
        mask_logits: Q x h x w. class_logits: Q x (K + 1).
        size: height and width of the result.

    Returns:
        height x width int64, -1 where there is no mask.
    """
    resized = F.interpolate(mask_logits[None], size, mode="bilinear", align_corners=False)[0]
    scores = class_logits.softmax(-1).amax(-1)[:, None, None]
    owner = (scores * resized.sigmoid()).argmax(0)
    covered = resized.gather(0, owner[None])[0] >= 0
    return owner.where(covered, owner.new_tensor(-1)).numpy()


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0])))
