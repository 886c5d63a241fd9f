"""Recording of a room by a hand-held depth camera, fused by the same code as a user's recording."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xmask3d.rooms.scanned.camera import choose_camera, decode, take_picture
from xmask3d.rooms.scanned.film import Film, ScannedRoom, expose
from xmask3d.rooms.scanned.handheld import choose_route, film_room, tracked, world_frame
from xmask3d.rooms.scanned.kinect import sense_depth
from xmask3d.rooms.scanned.settings import ScanSettings
from xmask3d.rooms.scanned.truth import nearest_instance, true_surfaces
from xmask3d.rooms.viewpoints import HEIGHT, INTRINSICS, WIDTH, Pose, small_intrinsics
from xmask3d.scan.fuse import FusedCloud, fuse
from xmask3d.scan.views import lift


@dataclass(frozen=True)
class Shot:
    """Frame of a recording: the light on the film, and the recorded pictures.

    Attributes:
        film: light, true depth and true instances.
        jpeg: colour picture.
        depth: H x W millimetres, 0 where nothing was measured.
        true_pose, pose: camera to world, the true pose and the one recorded by the tracker.
        intrinsics: 4 x 4.
    """

    film: Film
    jpeg: bytes
    depth: NDArray[np.uint16]
    true_pose: Pose
    pose: Pose
    intrinsics: NDArray[np.float64]


@dataclass(frozen=True)
class RoomScan:
    """Kept frames of a recording, and the cloud fused from them and from other frames.

    Attributes:
        shots: frames in the order of the walk.
        points: n x 3 metres. colors: n x 3 in [-1, 1]. Both float32.
        instance: n, position in the room's list of instances, `NOBODY` where no surface is near.
    """

    shots: list[Shot]
    points: NDArray[np.float32]
    colors: NDArray[np.float32]
    instance: NDArray[np.int32]


def record(room: ScannedRoom, views: int, settings: ScanSettings, rng: np.random.Generator) -> RoomScan:
    """Film a room and fuse the frames. Args: views: frames that are kept; others of half the size are fused too."""
    camera = choose_camera(settings, rng)
    more = round(views * settings.more_views)
    route = choose_route(room, settings, rng)
    true_poses = film_room(room, route, views, settings, rng)
    true_poses += film_room(room, route, more, settings, rng) if more else []
    world = world_frame(settings, rng)
    poses = tracked([world @ pose for pose in true_poses], settings, rng)
    shots = []
    for index, (true_pose, pose) in enumerate(zip(true_poses, poses, strict=True)):
        factor = 1 if index < views else 2
        intrinsics = small_intrinsics(factor) if factor > 1 else INTRINSICS
        film = expose(room, true_pose, intrinsics, HEIGHT // factor, WIDTH // factor)
        jpeg = take_picture(film, camera, settings, rng)
        depth = sense_depth(film, float(intrinsics[0, 0]), settings, rng)
        shots.append(Shot(film, jpeg, depth, world @ true_pose, pose, intrinsics))
    cloud = _fused(shots, settings.voxel_size)
    surface = true_surfaces([s.film for s in shots], [s.true_pose for s in shots], [s.intrinsics for s in shots])
    instance = nearest_instance(cloud.points, *surface, settings.label_reach)
    return RoomScan(shots[:views], cloud.points, cloud.colors, instance)


def _fused(shots: list[Shot], voxel_size: float) -> FusedCloud:
    def load(index: int) -> tuple[NDArray, NDArray, NDArray]:
        shot = shots[index]
        depth = shot.depth.astype(np.float32) / 1000
        return depth, lift(depth, shot.intrinsics, shot.pose), decode(shot.jpeg)

    return fuse(range(len(shots)), load, voxel_size)
