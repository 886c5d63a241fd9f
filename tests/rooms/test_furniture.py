"""Furniture models: classes, sizes, the split by model, the library's catalogue."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmask3d.errors import UserError
from xmask3d.rooms.catalogue import CLASS_IDS, CLASS_NAMES, CLASS_OF_KIND, KIND_OF_MODEL
from xmask3d.rooms.furniture import _load_mesh, load_catalogue, load_mesh, procedural_models, split_models
from xmask3d.rooms.style import SLOTS, Style

CATALOGUE = """id=Test
id#1=Scopia#iron_bed
name#1=Iron bed
model#1=/scopia/iron_bed/bed.obj
width#1=200
depth#1=100
height#1=50
creator#1=Somebody
id#2=Scopia#desk_lamp1
name#2=Desk lamp
model#2=/scopia/lamp/lamp.obj
width#2=10
depth#2=10
height#2=10
creator#2=Somebody
"""

# y is up and the front looks to +z, as in Sweet Home 3D; the slab at the front is red, the other is textured.
OBJ = """mtllib bed.mtl
v 0 0 1
v 2 0 1
v 2 4 1
v 0 4 1
v 0 0 0
v 2 0 0
v 2 4 0
v 0 4 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl front
f 1 2 3
f 1 3 4
usemtl back
f 5/1 6/2 7/3
f 5/1 7/3 8/4
"""

MTL = """newmtl front
Kd 1 0 0
newmtl back
Kd 1 1 1
map_Kd green.png
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    picture = io.BytesIO()
    Image.new("RGB", (300, 200), (0, 255, 0)).save(picture, "PNG")
    with zipfile.ZipFile(tmp_path / "Test.sh3f", "w") as package:
        package.writestr("PluginFurnitureCatalog.properties", CATALOGUE)
        package.writestr("scopia/iron_bed/bed.obj", OBJ)
        package.writestr("scopia/iron_bed/bed.mtl", MTL)
        package.writestr("scopia/iron_bed/green.png", picture.getvalue())
    return tmp_path


def test_catalogue_lists_what_has_a_class(library: Path) -> None:
    (model,) = load_catalogue(library)
    assert (model.key, model.kind, model.class_name, model.creator) == ("scopia/iron_bed", "bed", "bed", "Somebody")
    assert model.size == (2.0, 1.0, 0.5)
    assert model.licence == "CC BY 3.0"


def test_library_mesh_is_scaled_upright_and_faces_minus_y(library: Path) -> None:
    (model,) = load_catalogue(library)
    for _ in range(2):
        mesh = load_mesh(model)
        np.testing.assert_allclose(mesh.bounds, [[-1, -0.5, 0], [1, 0.5, 0.5]], atol=1e-6)
        colors = np.array([mesh.textures[i].reshape(-1, 3).mean(0) for i in mesh.texture])
        front = mesh.vertices[mesh.faces].mean(1)[:, 1] < 0
        np.testing.assert_array_equal(colors[front], [[255, 0, 0]] * 2)
        np.testing.assert_array_equal(colors[~front], [[0, 255, 0]] * 2)
        assert max(image.shape[0] for image in mesh.textures) <= 128
    kept = library / "meshes" / "scopia" / "iron_bed.npz"
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    _load_mesh.cache_clear()
    np.testing.assert_array_equal(load_mesh(model).vertices, mesh.vertices)
    assert len(kept.read_bytes()) == len(whole)  # made again


def test_missing_library_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sweethome3d-furniture"):
        load_catalogue(tmp_path)


def test_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "Broken.sh3f").write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"Broken\.sh3f"):
        load_catalogue(tmp_path)


def test_every_kind_has_a_class_and_lamps_are_no_desks() -> None:
    assert set(KIND_OF_MODEL.values()) <= set(CLASS_OF_KIND)
    assert set(CLASS_OF_KIND.values()) == set(CLASS_NAMES) - {"wall", "floor"}
    assert "desk_lamp1" not in KIND_OF_MODEL and "table_tennis" not in KIND_OF_MODEL


@pytest.mark.parametrize("split", ["train", "val"])
def test_procedural_furniture_covers_all_classes_and_fits_its_size(split: str) -> None:
    models = procedural_models(split, per_kind=2)
    assert {model.class_id for model in models} == set(range(20)) - {CLASS_IDS["wall"], CLASS_IDS["floor"]}
    for model in models:
        mesh = load_mesh(model)
        low, high = mesh.bounds
        np.testing.assert_allclose(high - low, model.size, rtol=1e-4)
        np.testing.assert_allclose([low[0] + high[0], low[1] + high[1], low[2]], 0, atol=1e-4)
        assert np.isfinite(mesh.vertices).all() and mesh.texture.max() < len(mesh.textures)


def test_split_is_by_model_and_total() -> None:
    models = procedural_models("train", per_kind=2) + procedural_models("val", per_kind=2)
    parts = split_models(models, seed=3)
    train, val = ({model.key for model in parts[name]} for name in ("train", "val"))
    assert not train & val
    assert train | val == {model.key for model in models}
    assert {model.class_id for model in parts["val"]} == {model.class_id for model in parts["train"]}


def test_library_is_divided_within_each_kind(library: Path) -> None:
    (bed,) = load_catalogue(library)
    beds = [type(bed)(f"scopia/{i}", bed.name, bed.class_id, bed.size, "", "", bed.source, "bed") for i in range(9)]
    parts = split_models(beds, seed=0)
    assert (len(parts["train"]), len(parts["val"])) == (6, 3)
    assert [m.key for m in split_models(beds[::-1], seed=0)["val"]] == [m.key for m in parts["val"]]


def test_styles_of_the_splits_never_meet() -> None:
    assert not set(SLOTS["train"]) & set(SLOTS["val"])
    drawn = {split: [Style(np.random.default_rng(i), split).between(2, 10) for i in range(200)] for split in SLOTS}
    assert {int(value) - 2 for value in drawn["val"]} == set(SLOTS["val"])
    assert {int(value) - 2 for value in drawn["train"]} == set(SLOTS["train"])
    with pytest.raises(UserError):
        Style(np.random.default_rng(0), "test")
