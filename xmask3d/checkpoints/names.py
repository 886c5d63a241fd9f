"""Names of tensors in a published checkpoint, and in this package's `XMask3D.state_dict()`.

Names inside the parts are the published ones, so that little more than the prefixes differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Prefix here, prefix in a published checkpoint.
PREFIXES = (
    ("point_encoder.", "pc_decoder."),
    ("binary_head.", "pc_binary_head."),
    ("conditioner.", "backbone.feature_extractor."),
    ("pyramid.projections.", "backbone.feature_projections."),
    ("pixel_decoder.", "sem_seg_head.pixel_decoder."),
    ("mask_decoder.", "sem_seg_head.predictor."),
    ("classifier.", "category_head."),
    ("fuser.", "criterion.fuser."),
)
# Tensors of a published checkpoint that do not train: weights of losses, which are in the configuration here.
CONSTANTS = ("binary_loss_func.pos_weight", "criterion.empty_weight")

_PROJECTION = "backbone.feature_projections."
# Parts in the order in which a published checkpoint lists them; inside a part the order is that of this package.
_ORDER = (
    "pc_decoder.",
    "pc_binary_head.",
    "binary_loss_func.",
    "backbone.",
    "sem_seg_head.pixel_decoder.input_proj.",
    "sem_seg_head.pixel_decoder.transformer.",
    "sem_seg_head.pixel_decoder.mask_features.",
    "sem_seg_head.pixel_decoder.",
    "sem_seg_head.predictor.",
    "criterion.empty_weight",
    "criterion.fuser.",
    "category_head.",
)
# Parts in the first of the two published optimiser groups; the other group has the rest.
POINT_GROUP = ("pc_decoder.", "pc_binary_head.")


def published_name(name: str) -> str:
    """Return the published name of a tensor of `XMask3D`, without the leading `module.`.

    Raises:
        KeyError: no tensor of a published checkpoint corresponds to it.
    """
    for prefix, published in PREFIXES:
        if name.startswith(prefix):
            name = published + name[len(prefix) :]
            # A published projection is a sequence with a single block.
            return re.sub(rf"^({re.escape(_PROJECTION)}\d+\.)", r"\g<1>0.", name)
    raise KeyError(name)


def in_published_order(names: Iterable[str]) -> list[str]:
    """Sort published names, in the order of this package's `state_dict()`, into the order of a published checkpoint."""
    return sorted(names, key=lambda name: next(i for i, part in enumerate(_ORDER) if name.startswith(part)))


def package_name(published: str) -> str:
    """Return the name in `XMask3D` of a published tensor, with or without a leading `module.`.

    Raises:
        KeyError: the tensor does not belong to `XMask3D`, such as one of `CONSTANTS`.
    """
    name = published.removeprefix("module.")
    for prefix, published_prefix in PREFIXES:
        if name.startswith(published_prefix) and name not in CONSTANTS:
            name = re.sub(rf"^({re.escape(_PROJECTION)}\d+)\.0\.", r"\g<1>.", name)
            return prefix + name[len(published_prefix) :]
    raise KeyError(published)
