import numpy as np

from tools.pretraining.collages import CONCEPT_IDS, make_collage, model_table
from tools.pretraining.dataset import MAX_REGIONS, MIN_PIXELS, Pool, describe_regions
from xmask3d.rooms.furniture import procedural_models


def test_furniture_stands_in_the_room() -> None:
    collage = make_collage(np.random.default_rng(0), model_table(procedural_models("train", 0, 1)), count=5)
    assert collage.kinds[:6] == ["floor", "ceiling", "wall", "wall", "wall", "wall"]
    assert len(collage.meshes) == len(collage.concepts) == len(collage.kinds) > 9
    width, length, height = collage.size
    for mesh in collage.meshes[6:]:
        low, high = mesh.bounds
        assert np.all(low[:2] > [-width / 2 - 0.3, -length / 2 - 0.3]) and np.all(
            high[:2] < [width / 2 + 0.3, length / 2 + 0.3]
        )
        assert low[2] > -0.01 and high[2] < height + 0.1


def test_a_collage_follows_from_its_seed() -> None:
    table = model_table(procedural_models("train", 0, 1))
    first, again, other = (make_collage(np.random.default_rng(seed), table) for seed in (1, 1, 2))
    assert first.keys == again.keys and first.keys != other.keys
    assert all(np.array_equal(a.vertices, b.vertices) for a, b in zip(first.meshes, again.meshes, strict=True))


def test_regions_are_numbered_by_size_and_the_walls_are_one() -> None:
    instance = np.full((40, 40), 2)
    instance[:10] = 3
    instance[30:] = 0
    instance[12:22, 5:25] = 6
    instance[0, : MIN_PIXELS - 50] = 7
    concepts = [CONCEPT_IDS[name] for name in ("floor", "ceiling", "wall", "wall", "wall", "wall", "bed", "chair")]
    names = ["floor", "ceiling", "wall", "wall", "wall", "wall", "bed", "chair"]
    regions, ids, kinds, keys = describe_regions(instance, concepts, names, names)
    assert kinds == keys == ["wall", "floor", "bed"]
    assert ids[:3].tolist() == [CONCEPT_IDS["wall"], CONCEPT_IDS["floor"], CONCEPT_IDS["bed"]] and np.all(ids[3:] == -1)
    assert np.array_equal(regions == 2, instance == 6)
    assert np.all(regions[instance == 7] == 255)


def test_views_show_described_things(pool: Pool) -> None:
    assert pool.images.shape == (6, 192, 192, 3) and pool.concepts.shape == (6, MAX_REGIONS)
    for regions, concepts in zip(pool.regions, pool.concepts, strict=True):
        numbers = np.unique(regions[regions < 255])
        assert numbers.tolist() == list(range((concepts >= 0).sum()))
    assert len(np.unique(pool.concepts)) > 6
