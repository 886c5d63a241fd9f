"""Rooms that look like scans: shapes, things on walls and tops, furniture, light."""

from collections import Counter

import numpy as np
import pytest

from xmask3d.rooms.catalogue import CLASS_IDS
from xmask3d.rooms.furniture import procedural_models
from xmask3d.rooms.layout import NORTH, Room, Slope
from xmask3d.rooms.render import Renderer
from xmask3d.rooms.scanned.build import build_scanned
from xmask3d.rooms.scanned.film import ScannedRoom, _beam_light, expose
from xmask3d.rooms.scanned.furnishing import furnish_scanned, low_stands
from xmask3d.rooms.scanned.handheld import choose_route, film_room, rotation, tracked, turned_pose, world_frame
from xmask3d.rooms.scanned.settings import ScanSettings
from xmask3d.rooms.scanned.shape import ceiling_height, shape_room, slope_mesh
from xmask3d.rooms.structure import UNLABELLED
from xmask3d.rooms.textures import plaster
from xmask3d.rooms.viewpoints import small_intrinsics

BARE = ScanSettings().changed(
    dict.fromkeys(
        ("l_shape", "chimney", "slope", "clutter", "wall_things", "tiles", "unit_color", "natural", "tall_windows",
         "low_stand", "curtains", "sunbeam"), 0
    ), "test"
)  # fmt: skip
MODELS = procedural_models("train", 0, 3)


def _built(kind: str, seed: int = 0, **changes: object) -> ScannedRoom:
    settings, rng = BARE.changed(changes, "test"), np.random.default_rng(seed)
    return build_scanned(furnish_scanned(kind, "train", MODELS, settings, rng), settings, rng)


def test_without_effects_only_shell_furniture_and_lamp_are_left() -> None:
    room = _built("living room")
    furniture = [piece.model.kind for piece in room.room.pieces]
    shell = {"floor", "wall", "ceiling", "ceiling lamp"}
    assert Counter(kind for kind in room.kinds if kind not in shell | {"rug"}) == Counter(furniture)
    assert shell < set(room.kinds) and room.beam is None and not room.room.blocks and room.room.slope is None


def test_corners_chimneys_and_slopes_stay_free_of_furniture() -> None:
    shapes = Counter()
    for seed in range(12):
        built = _built("bedroom", seed, l_shape=0.5, chimney=1.0, slope=0.5)
        shapes["block"] += bool(built.room.blocks)
        shapes["slope"] += built.room.slope is not None
        for piece in built.room.pieces:
            assert not any(piece.box.overlaps(block) for block in built.room.blocks)
            (x0, y0, _), (x1, y1, top) = piece.box.low, piece.box.high
            assert top <= min(ceiling_height(built.room, x, y) for x in (x0, x1) for y in (y0, y1)) + 0.12
    assert shapes["block"] == 12 and shapes["slope"] >= 3


def test_a_slope_is_where_its_height_says() -> None:
    room = Room("bedroom", (4.0, 3.0, 2.5), slope=Slope(NORTH, 1.3, 1.2))
    assert ceiling_height(room, 2.0, 3.0) == pytest.approx(1.3)
    assert ceiling_height(room, 2.0, 2.4) == pytest.approx(1.9)
    assert ceiling_height(room, 2.0, 1.0) == 2.5
    mesh = Renderer(slope_mesh(room, plaster(np.random.default_rng(0), (1, 1, 1))))
    hit = mesh.rays.cast(np.array([[2.0, 2.4, 0.0]]), np.array([[0.0, 0.0, 1.0]]), colored=False)
    assert hit.distance[0] == pytest.approx(1.9, abs=1e-4)


def test_small_rooms_stay_boxes() -> None:
    room = Room("bathroom", (2.4, 2.5, 2.5))
    shape_room(room, BARE.changed({"l_shape": 1, "slope": 1}, "test"), np.random.default_rng(0))
    assert not room.blocks and room.slope is None and not room.reserved


def test_clutter_grows_with_its_setting_lies_on_things_and_has_no_class() -> None:
    count = {}
    for amount in (0.5, 2.0):
        built = _built("living room", 1, clutter=amount)
        labels = dict(zip(built.renderer.face_instance.tolist(), built.renderer.face_label.tolist(), strict=True))
        things = [index for index, kind in enumerate(built.kinds) if kind == "clutter"]
        assert all(labels[index] == UNLABELLED for index in things)
        count[amount] = len(things)
        pieces = Renderer([piece.mesh() for piece in built.room.pieces])
        mesh = built.renderer.mesh
        for index in things:
            points = mesh.vertices[np.unique(mesh.faces[built.renderer.face_instance == index])]
            (x, y), z = (points.min(0) + points.max(0))[:2] / 2, float(points[:, 2].min())
            below = pieces.rays.cast(np.array([[x, y, z + 0.05]]), np.array([[0, 0, -1.0]]), colored=False)
            assert z < 0.03 or (below.face[0] >= 0 and abs(below.distance[0] - 0.05) < 0.045)
    assert 0 < count[0.5] < count[2.0]


def test_walls_carry_switches_posters_and_shelves_in_front_of_them() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(10):
        built = _built("office", seed, wall_things=2.0)
        kinds.update(built.kinds)
        mesh, size = built.renderer.mesh, built.room.size
        label = dict(zip(built.renderer.face_instance.tolist(), built.renderer.face_label.tolist(), strict=True))
        for index, kind in enumerate(built.kinds):
            if kind in ("switch", "socket", "shelf", "radiator", "clock"):
                points = mesh.vertices[np.unique(mesh.faces[built.renderer.face_instance == index])]
                gap = min(points[:, :2].min(), (np.array(size[:2]) - points[:, :2]).min())
                assert 0 < gap < 0.02
                assert label[index] == (CLASS_IDS["otherfurniture"] if kind == "radiator" else UNLABELLED)
    assert all(kinds[kind] >= 3 for kind in ("switch", "socket", "picture", "shelf", "radiator"))


def test_kitchens_are_painted_alike() -> None:
    def tones(probability: float) -> float:
        spread = []
        for seed in range(4):
            built = _built("kitchen", seed, unit_color=probability)
            mesh, colors = built.renderer.mesh, []
            for index, kind in enumerate(built.kinds):
                if kind in ("kitchen cabinet", "wall cabinet"):
                    faces = np.flatnonzero(built.renderer.face_instance == index)
                    largest = np.bincount(mesh.texture[faces], mesh.areas()[faces]).argmax()
                    colors.append(mesh.textures[largest].reshape(-1, 3).mean(0))
            spread.append(np.std(colors, 0).max())
        return float(np.mean(spread))

    assert tones(1.0) < 6 < tones(0.0)


def test_furniture_keeps_its_own_colours_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    tint = ((0.2, 0.3, 0.9), 0.8)
    monkeypatch.setattr("xmask3d.rooms.planner.Planner._tint", lambda planner, model: tint)
    for probability, kept in ((0.0, 0), (1.0, 1)):
        settings = BARE.changed({"natural": probability}, "test")
        room = furnish_scanned("office", "train", MODELS, settings, np.random.default_rng(0))
        assert {piece.tint for piece in room.pieces} == {None if kept else tint}


def test_low_stands_have_a_television_and_differ_between_the_splits() -> None:
    built = [_built("living room", seed, low_stand=1.0) for seed in range(4)]
    with_stand = [room for room in built if "low tv stand" in room.kinds]
    assert with_stand and all("television" in room.kinds for room in with_stand)
    sizes = {split: {model.size for model in low_stands(split)} for split in ("train", "val")}
    assert not sizes["train"] & sizes["val"] and all(0.25 < size[2] < 0.6 for size in sizes["train"])


def test_windows_show_the_outside_and_let_the_sun_in() -> None:
    built = _built("living room", 0, sunbeam=1.0, outside=[3, 3])
    window = next(piece for piece in built.room.pieces if piece.model.kind == "window")
    assert built.beam is not None and built.surfaces.outside.sum() == 2 * built.kinds.count("window")
    x, y, z = window.position
    middle = np.array([built.room.size[0] / 2, built.room.size[1] / 2, z + window.size[2] / 2])
    yaw = float(np.arctan2(y - middle[1], x - middle[0]))
    film = expose(built, turned_pose(middle, yaw, 0.0, 0.0), small_intrinsics(2), 120, 160)
    assert film.outside.mean() > 0.02
    assert film.light[film.outside].mean() > 1.2 > film.light[~film.outside].mean()
    assert (film.label[film.outside] == CLASS_IDS["window"]).all()


def test_windows_reach_the_floor_where_nothing_stands_before_them() -> None:
    tall = []
    for seed in range(5):
        room = _built("living room", seed, tall_windows=1.0).room
        for window in (piece for piece in room.pieces if piece.model.kind == "window"):
            assert room.is_free(window.box, ignore=[window])
            tall.append(window.position[2] < 0.1 and window.size[2] > 1.6)
    assert sum(tall) > 0


def test_the_sun_falls_on_the_floor_within_the_windows_shadow() -> None:
    built = _built("living room", 0, sunbeam=1.0)
    beam, (width, depth, _) = built.beam, built.room.size
    assert beam is not None
    x, y = np.meshgrid(np.linspace(0.05, width - 0.05, 50), np.linspace(0.05, depth - 0.05, 50))
    points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1).astype(np.float32)
    down = np.tile(np.array([0, 0, -1], np.float32), (len(points), 1))
    lit = _beam_light(built.renderer, beam, points, -down, down[:, 2])
    sunny = points[lit > 0]
    assert 5 < len(sunny) < len(points) / 2
    assert lit.max() == pytest.approx(beam.strength * beam.sun[2], rel=1e-5)
    # Back along the sun's ray each lit place lies in the window.
    steps = (beam.place - sunny[:, beam.axis]) / beam.sun[beam.axis]
    height = steps * beam.sun[2]
    assert (height >= beam.low[1] - 1e-3).all() and (height <= beam.high[1] + 1e-3).all()


def test_cameras_keep_to_pitch_and_walls() -> None:
    settings = BARE.changed({"pitch": 12, "roll": 0, "l_shape": 1}, "test")
    rng = np.random.default_rng(3)
    built = build_scanned(furnish_scanned("living room", "train", MODELS, settings, rng), settings, rng)
    poses = film_room(built, choose_route(built, settings, rng), 8, settings, rng)
    assert len(poses) == 8
    for pose in poses:
        assert abs(np.degrees(np.arcsin(pose[2, 2]))) <= 12 + 1e-6
        assert abs(pose[2, 0]) < 1e-9  # no roll: the picture's rows are level
        assert (pose[:2, 3] > 0.1).all() and (pose[:2, 3] < np.array(built.room.size[:2]) - 0.1).all()


def test_recordings_of_one_side_look_one_way() -> None:
    spread = {}
    for probability in (0.0, 1.0):
        settings, rng = BARE.changed({"partial": probability}, "test"), np.random.default_rng(5)
        built = build_scanned(furnish_scanned("living room", "train", MODELS, settings, rng), settings, rng)
        route = choose_route(built, settings, rng)
        forward = np.array([pose[:2, 2] for pose in film_room(built, route, 10, settings, rng)])
        spread[probability] = np.linalg.norm((forward / np.linalg.norm(forward, axis=1)[:, None]).mean(0))
        assert (route.heading is None) == (probability == 0) and (not probability or len(route.places) <= 2)
    assert spread[1.0] > 0.7 > spread[0.0]


def test_poses_are_written_slightly_off_and_the_world_tilted() -> None:
    poses = [turned_pose(np.zeros(3), angle, 0.0, 0.0) for angle in np.linspace(0, 6, 400)]
    settings = ScanSettings().changed({"pose_shift": 0.02, "pose_turn": 1.0}, "test")
    written = tracked(poses, settings, np.random.default_rng(0))
    shift = np.array([w[:3, 3] - p[:3, 3] for w, p in zip(written, poses, strict=True)])
    cosine = [(np.trace(w[:3, :3] @ p[:3, :3].T) - 1) / 2 for w, p in zip(written, poses, strict=True)]
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    assert 0.015 < shift.std() < 0.025 and 1.2 < np.sqrt((angle**2).mean()) < 2.2
    exact = tracked(poses, settings.changed({"pose_shift": 0, "pose_turn": 0}, "test"), np.random.default_rng(0))
    np.testing.assert_allclose(exact, poses, atol=1e-12)
    tilts = [world_frame(replace_tilt(30), np.random.default_rng(seed))[2, 2] for seed in range(40)]
    degrees = np.degrees(np.arccos(tilts))
    assert degrees.max() <= 30 and degrees.max() > 24
    level = world_frame(replace_tilt(0), np.random.default_rng(1))
    np.testing.assert_allclose(level[:, 2], [0, 0, 1, 0], atol=1e-12)


def replace_tilt(degrees: float) -> ScanSettings:
    """Return settings with another tilt."""
    return ScanSettings().changed({"tilt": degrees}, "test")


def test_rotations_are_rigid() -> None:
    turn = rotation([1, 2, 3], 0.7)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation([0, 0, 1], np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
