import numpy as np
import pytest

from tools.pretraining.collages import make_collage, model_table, render_view
from tools.pretraining.dataset import Pool, describe_regions
from xmask3d.rooms.furniture import procedural_models
from xmask3d.rooms.render import Renderer


@pytest.fixture(scope="session")
def pool() -> Pool:
    """Six views of two collages of procedural furniture."""
    table = model_table(procedural_models("train", 0, 2))
    rng = np.random.default_rng(3)
    views = []
    for _ in range(2):
        collage = make_collage(rng, table)
        renderer = Renderer(collage.meshes, light=collage.light)
        for _ in range(3):
            color, instance = render_view(rng, collage, renderer, 192)
            views.append((color, *describe_regions(instance, collage.concepts, collage.kinds, collage.keys)))
    images, regions, concepts, kinds, keys = zip(*views, strict=True)
    return Pool(np.stack(images), np.stack(regions), np.stack(concepts), list(kinds), list(keys))
