"""Rooms are furnished sensibly and nothing stands in anything else."""

from itertools import combinations

import numpy as np
import pytest

from xmask3d.rooms.catalogue import CLASS_NAMES
from xmask3d.rooms.furniture import procedural_models
from xmask3d.rooms.layout import Piece, Room, beside
from xmask3d.rooms.room_types import CYCLE, furnish

MODELS = {split: procedural_models(split, per_kind=3) for split in ("train", "val")}


def _rooms(split: str, count: int = 12) -> list[Room]:
    return [furnish(CYCLE[i % len(CYCLE)], MODELS[split], np.random.default_rng([5, i])) for i in range(count)]


@pytest.mark.parametrize("split", ["train", "val"])
def test_nothing_interpenetrates_or_leaves_the_room(split: str) -> None:
    for room in _rooms(split):
        for piece in room.pieces:
            assert min(piece.box.low) >= -1e-6, piece.model.key
            assert all(h <= s + 1e-6 for h, s in zip(piece.box.high, room.size, strict=True)), piece.model.key
        for a, b in combinations(room.pieces, 2):
            # A basin is set on its worktop, whose box includes the splash-back.
            if {a.model.kind, b.model.kind} != {"counter", "counter sink"}:
                assert not a.box.overlaps(b.box), (a.model.key, b.model.key)


def test_twelve_validation_rooms_hold_every_class_twice() -> None:
    holds = [{piece.model.class_name for piece in room.pieces} for room in _rooms("val")]
    for name in set(CLASS_NAMES) - {"wall", "floor"}:
        assert sum(name in classes for classes in holds) >= 2, name


def test_meshes_lie_in_their_boxes() -> None:
    for piece in furnish("office", MODELS["train"], np.random.default_rng(1)).pieces:
        bounds = piece.mesh().bounds
        assert (bounds[0] >= np.array(piece.box.low) - 1e-4).all()
        assert (bounds[1] <= np.array(piece.box.high) + 1e-4).all()


def test_furniture_stands_on_the_floor_or_hangs_on_a_wall() -> None:
    hangs = {"picture", "window", "curtain", "shower curtain", "mirror", "wall cabinet", "counter", "counter sink"}
    for room in _rooms("train"):
        for piece in room.pieces:
            assert piece.position[2] == 0 or piece.model.kind in hangs


def test_chairs_at_desks_look_at_them() -> None:
    looked = 0
    for i in range(6):
        room = furnish("office", MODELS["train"], np.random.default_rng(i))
        desks = [piece for piece in room.pieces if piece.model.kind == "desk"]
        for desk in desks:
            near = [
                p
                for p in room.pieces
                if p.model.class_name == "chair"
                and np.hypot(
                    p.position[0] - beside(desk, 0, desk.size[1])[0], p.position[1] - beside(desk, 0, desk.size[1])[1]
                )
                < 0.6
            ]
            for chair in near[:1]:
                front = np.array(beside(chair, 0, 1)) - chair.position[:2]
                to_desk = np.array(desk.position[:2]) - chair.position[:2]
                assert front @ to_desk > 0
                looked += 1
    assert looked >= 4


def test_beside_follows_the_turn() -> None:
    model = MODELS["train"][0]
    assert beside(Piece(model, (1, 1, 0), 0.0), 0, 2) == pytest.approx((1, -1))
    assert beside(Piece(model, (1, 1, 0), np.pi / 2), 0, 2) == pytest.approx((3, 1))
    assert beside(Piece(model, (1, 1, 0), np.pi / 2), 0.5, 0) == pytest.approx((1, 1.5))


def test_same_seed_same_room() -> None:
    first, second = (furnish("living room", MODELS["train"], np.random.default_rng(9)) for _ in range(2))
    assert first.pieces == second.pieces
