"""Code and downloads that a configuration names, which nobody gets from somebody else's without having been asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xmask3d.dotted import is_dotted
from xmask3d.resources import find_file, is_of_hub

if TYPE_CHECKING:
    from xmask3d.config import Config

PUBLISHED_CLIP = "ViT-L-14/openai"


def foreign_names(config: Config) -> Iterator[tuple[str, str, str]]:
    """List the keys of a configuration that lead out of this program.

    Files of this machine are not among them, since whatever reads a file of weights executes nothing.

    Yields:
        The key, the name given there, and the kind: code that is imported, or a download.
    """
    yield from ((key, name, "code that is not part of this program") for key, name in dotted_paths(config))
    model = config.model
    downloads = (
        ("model.clip", model.clip, not _is_known_clip(model.clip)),
        ("model.diffusion", model.diffusion, is_of_hub(model.diffusion)),
        ("model.image_features", "weights of timm's hub", model.image_features_options.get("weights") == "hub"),
    )
    for key, name, is_foreign in downloads:
        if is_foreign and not find_file(name).exists():
            yield key, name, "a download that is not on open_clip's list or the program's own"


def dotted_paths(config: Config) -> list[tuple[str, str]]:
    """List the keys of a configuration that name parts to import by dotted path, with the path."""
    named = [("data.layout", config.data.layout)]
    named += [("loss.extra", name) for name in config.loss.extra]
    own = (("model.image_features", config.model.image_features), ("model.point_network", config.model.point_network))
    named += [(key, name) for key, name in own if name]
    named += [("evaluate.headlines", name) for name in config.evaluate.headlines]
    return [(key, name) for key, name in named if is_dotted(name)]


def _is_known_clip(source: str) -> bool:
    """Return True for the shipped CLIP, a file or folder of this machine, and what open_clip lists."""
    if source in ("shipped", PUBLISHED_CLIP) or find_file(source).exists():
        return True
    import open_clip  # loads torch, which a configuration of other networks does not need

    name, _, tag = source.partition("/")
    return (name, tag or "openai") in open_clip.list_pretrained()
