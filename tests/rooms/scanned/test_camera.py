"""Pictures of a cheap camera: each fault is there, and is gone when it is switched off."""

from dataclasses import replace

import numpy as np

from tests.rooms.scanned.films import SHAPE, film, halves
from xmask3d.rooms.scanned.camera import TARGET, Camera, choose_camera, decode, take_picture
from xmask3d.rooms.scanned.film import Film
from xmask3d.rooms.scanned.settings import ScanSettings

STILL = ScanSettings().changed({"motion": 0, "exposure": 0, "white_balance": 0}, "test")
PLAIN = Camera((1.0, 1.0, 1.0), 0.0, 1.0, 0.0, 0.0, 0.0, 95)


def _picture(seen: Film, settings: ScanSettings = STILL, **changes: object) -> np.ndarray:
    camera = replace(PLAIN, **changes)  # type: ignore[arg-type]
    return decode(take_picture(seen, camera, settings, np.random.default_rng(0))).astype(float)


def _edge(picture: np.ndarray) -> int:
    """Count columns that are neither dark nor light."""
    row = picture[SHAPE[0] // 2, :, 0]
    return int(((row > row.min() + 12) & (row < row.max() - 12)).sum())


def test_exposure_brings_the_mean_to_its_aim_and_may_err() -> None:
    dark = film(light=np.full((*SHAPE, 3), 0.3, np.float32))
    assert abs(_picture(dark).mean() - TARGET * 255) < 2
    assert abs(_picture(dark, offset=0.5).mean() - TARGET * 255 * 2**0.5) < 3


def test_what_is_too_bright_is_white_and_spills_over() -> None:
    light = np.repeat(halves(0.2, 4.0)[..., None], 3, 2)
    picture = _picture(film(light=light))
    assert (picture[:, -40:] > 250).all()
    assert picture[:, SHAPE[1] // 2 - 6].mean() > picture[:, 10].mean() + 10


def test_white_balance_tints_and_gamma_darkens() -> None:
    red, green, blue = _picture(film(), balance=(1.3, 1.0, 0.8)).mean((0, 1))
    assert red / green > 1.2 and blue / green < 0.9
    assert _picture(film(), gamma=1.5).mean() < _picture(film()).mean() - 20


def test_blur_and_motion_soften_edges() -> None:
    edge = film(light=np.repeat(halves(0.2, 0.8)[..., None], 3, 2))
    sharp = _edge(_picture(edge))
    assert _edge(_picture(edge, blur=1.5)) > sharp
    moving = [
        _edge(
            decode(take_picture(edge, PLAIN, STILL.changed({"motion": 8}, "test"), np.random.default_rng(seed))).astype(
                float
            )
        )
        for seed in range(8)
    ]
    assert max(moving) > sharp + 4 and np.mean(moving) > sharp + 1


def test_grain_vignette_and_jpeg() -> None:
    assert _picture(film()).std() < 1 and 3 < _picture(film(), grain=5.0).std() < 8
    dim = _picture(film(), vignette=0.4)
    assert dim[SHAPE[0] // 2, SHAPE[1] // 2].mean() > dim[0, 0].mean() + 30
    fine = np.random.default_rng(0).uniform(0.2, 0.8, (*SHAPE, 3)).astype(np.float32)
    files = [
        take_picture(film(light=fine), replace(PLAIN, quality=q), STILL, np.random.default_rng(0)) for q in (30, 95)
    ]
    assert len(files[0]) < len(files[1]) / 2


def test_cameras_are_drawn_within_their_settings() -> None:
    cameras = [choose_camera(ScanSettings(), np.random.default_rng(seed)) for seed in range(60)]
    assert min(c.quality for c in cameras) >= 45 and max(c.quality for c in cameras) <= 92
    assert len({c.quality for c in cameras}) > 20
    assert max(c.blur for c in cameras) <= ScanSettings().blur
    assert 0.05 < np.std([np.log(c.balance[0]) for c in cameras]) < 0.16
