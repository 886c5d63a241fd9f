"""What a room of Rooms costs to film: drawn, made noisy as a sensor's pictures are, and fused to a cloud."""

import numpy as np

from tools.benchmark.case import Case, Job, Request
from xmask3d.rooms import structure
from xmask3d.rooms import viewpoints as camera
from xmask3d.rooms.generate import models_of
from xmask3d.rooms.layout import Room
from xmask3d.rooms.noise import sensor_color, sensor_depth
from xmask3d.rooms.point_fusion import Picture, fuse, fuse_plainly
from xmask3d.rooms.render import Frame
from xmask3d.rooms.room_types import furnish
from xmask3d.rooms.writer import POINT_SPACING

CONTENDERS = ("plain",)


def film(room: Room, poses: list[camera.Pose], *, compiled: bool) -> tuple[list[Frame], list[np.ndarray], np.ndarray]:
    """Build a room, draw its views, make them a sensor's pictures, and fuse them.

    Returns:
        V frames; V times a colour (H x W x 3 uint8) and a depth picture (H x W uint16, mm); N x 3 points, metres.
    """
    renderer = structure.build_room(room, np.random.default_rng(0), compiled=compiled).renderer
    rng = np.random.default_rng(1)
    frames = [renderer.render(pose, camera.INTRINSICS, camera.HEIGHT, camera.WIDTH) for pose in poses]
    pictures = [Picture(frame, pose, 2) for frame, pose in zip(frames, poses, strict=True)]
    points, _, _ = (fuse if compiled else fuse_plainly)(pictures, camera.INTRINSICS, 2, POINT_SPACING)
    seen: list[np.ndarray] = []
    for frame in frames:
        seen += [
            sensor_color(frame.color, 1.2, rng, compiled=compiled),
            sensor_depth(frame.depth, rng, compiled=compiled),
        ]
    return frames, seen, points


def cases(request: Request) -> list[Case]:
    """One room of procedural furniture by numbers of views; one thread, as in each process that makes rooms."""
    return [
        Case("room", f"room, {views} views of 320x240", contender, {"views": views}, "cpu", 1, request.repeats)
        for views in request.views or (10,)
        for contender in ("xmask3d", *request.against)
    ]


def prepare(case: Case) -> Job:
    """One variant, ready to be timed by the worker."""
    rng = np.random.default_rng(0)
    room = furnish("living room", models_of(None, 0)["train"], rng)
    compiled = case.contender != "plain"
    poses = camera.choose_views(structure.build_room(room, rng, compiled=compiled), int(case.options["views"]), rng)
    return Job(lambda: film(room, poses, compiled=compiled))
