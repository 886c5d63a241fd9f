"""Tiny releases of other data sets, in the names and formats that those publish: one box room and two frames each."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from tests.helpers.scenes import CLASSES, BoxRoom
from xmask3d.geometry.camera import Intrinsics
from xmask3d.geometry.ply import write_elements

OPENGL = np.diag([1.0, -1, -1, 1])
NAMES = {ids[0]: name for name, ids in CLASSES.items()}


class Shot:
    """A frame of a room: a camera of its own, pictures of colour and depth, and the name of what each pixel shows."""

    def __init__(self, room: BoxRoom, number: int, size: tuple[int, int], roll: int = 0, moved: int = 2) -> None:
        own = np.array([0.8, 0.8, 0.47, 0.52 * size[0] / size[1]]) * size[1] + moved * number
        self.camera = Intrinsics(*own.tolist())
        self.pose = room.pose(2.0 * number)
        self.pose[:3, :3] = self.pose[:3, :3] @ Rotation.from_euler("z", 90 * roll, degrees=True).as_matrix()
        self.color, self.depth, kind = room.render(self.pose, self.camera, size)
        self.names = np.array(room.surface_names)[kind]

    @property
    def matrix(self) -> np.ndarray:
        camera = self.camera
        return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])

    def save(self, color: Path, depth: Path, units: float = 1000, step: int = 1, times: int = 1) -> None:
        """Write colour, and every `step`-th pixel of depth; both repeated to be `times` as large."""
        for path, picture in ((color, self.color), (depth, np.round(self.depth * units).astype(np.uint16))):
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = picture[step // 2 :: step, step // 2 :: step] if path == depth else picture
            picture = np.repeat(np.repeat(picture, times, 0), times, 1)
            Image.fromarray(picture).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def names_of(room: BoxRoom) -> np.ndarray:
    """Class name of each point."""
    return np.array([NAMES[label] for label in room.labels])


def vertices_of(room: BoxRoom) -> np.ndarray:
    """Rows of vertices as meshes have them."""
    rows = np.zeros(
        len(room.points), [*((axis, "f4") for axis in "xyz"), *((c, "u1") for c in ("red", "green", "blue"))]
    )
    for name, values in zip(rows.dtype.names, (*room.points.T, *((room.colors + 1) * 127.5).T), strict=True):
        rows[name] = values
    return rows


def faces_of(room: BoxRoom, corners: int, **columns: np.ndarray) -> np.ndarray:
    """Faces of neighbouring points, with one more number each by the name of its column."""
    count = len(room.points) // corners
    rows = np.zeros(count, [("vertex_indices", "i4", corners), *((name, "i4") for name in columns)])
    rows["vertex_indices"] = np.arange(count * corners).reshape(-1, corners)
    for name, values in columns.items():
        rows[name] = values[::corners][:count]
    return rows


def objects_of(room: BoxRoom) -> tuple[list[str], np.ndarray]:
    """Names of the room's objects, one a class, and the number of each point's object."""
    names, objects = np.unique(names_of(room), return_inverse=True)
    return names.tolist(), objects


def write_segments(room: BoxRoom, groups: Path, segments: Path, each: int = 1) -> None:
    """Write the two annotation files of ScanNet's tool for every `each`-th point, an object being two segments."""
    names, objects = objects_of(room)
    own = (objects * 10 + np.arange(len(objects)) // 200 % 2)[::each][: len(objects) // each]
    segments.write_text(json.dumps({"segIndices": own.tolist()}))
    entries = [
        {"id": i, "objectId": i, "label": name, "segments": [10 * i, 10 * i + 1]} for i, name in enumerate(names)
    ]
    groups.write_text(json.dumps({"segGroups": entries}))


def write_scannetpp(root: Path, room: BoxRoom) -> dict[str, Shot]:
    """data/<scene>/{scans,iphone}, splits/, metadata/; the second frame is of a phone that is held upright."""
    scans, phone = root / "data" / "0a5c013435" / "scans", root / "data" / "0a5c013435" / "iphone"
    scans.mkdir(parents=True)
    write_elements(scans / "mesh_aligned_0.05.ply", {"vertex": vertices_of(room), "face": faces_of(room, 3)})
    write_segments(room, scans / "segments_anno.json", scans / "segments.json")
    shots = {f"frame_{60 * i:06}": Shot(room, i, (384, 512), roll=i) for i in range(2)}
    frames = {}
    for name, shot in shots.items():
        shot.save(phone / "rgb" / f"{name}.jpg", phone / "depth" / f"{name}.png", step=2)
        frames[name] = {"aligned_pose": shot.pose.tolist(), "intrinsic": shot.matrix.tolist(), "timestamp": 0.0}
    lost = {"aligned_pose": np.eye(4).tolist(), "intrinsic": np.eye(3).tolist()}  # not unpacked
    (phone / "pose_intrinsic_imu.json").write_text(json.dumps(frames | {"frame_000030": lost}))
    (root / "metadata" / "semantic_benchmark").mkdir(parents=True)
    with open(root / "metadata" / "semantic_benchmark" / "map_benchmark.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("class", "count", "semantic_map_to", "instance_map_to"))
        rows.writerows([("desk", 3, "table", "table"), ("otherfurniture", 1, "None", "None"), ("chair", 9, "", "")])
    (root / "splits").mkdir()
    (root / "splits" / "nvs_sem_val.txt").write_text("0a5c013435\nnot_downloaded\n")
    return {"frame_000000": shots["frame_000000"]}


def write_matterport(root: Path, room: BoxRoom) -> dict[str, Shot]:
    """v1/scans/<house>/, and lists and table as in the repository of the data set."""
    house, place, other = "17DRP5sb8fy", "a" * 32, "b" * 32
    folder = root / "v1" / "scans" / house
    regions = folder / "region_segmentations"
    regions.mkdir(parents=True)
    names, objects = objects_of(room)
    faces = faces_of(room, 3, material_id=objects, segment_id=objects, category_id=objects)
    write_elements(regions / "region0.ply", {"vertex": vertices_of(room), "face": faces})
    write_segments(room, regions / "region0.semseg.json", regions / "region0.fsegs.json", each=3)
    shots = [Shot(room, i, (256, 320)) for i in range(2)]
    lines = ["dataset matterport", "n_images 3", "depth_directory undistorted_depth_images", ""]
    for i, shot in enumerate(shots):
        files = [folder / f"undistorted_{kind}_images" / f"{place}_{letter}{i}_0.{suffix}"
                 for kind, letter, suffix in (("color", "i", "jpg"), ("depth", "d", "png"))]  # fmt: skip
        shot.save(*files, units=4000, times=4)
        fx, fy, cx, cy = (4 * value for value in (shot.camera.fx, shot.camera.fy, shot.camera.cx, shot.camera.cy))
        lines.append(f"intrinsics_matrix {fx} 0 {cx + 1.5}  0 {fy} {1023 - (cy + 1.5)}  0 0 1")
        pose = " ".join(f"{value:.6g}" for value in (shot.pose @ OPENGL).ravel())
        lines.append(f"scan {files[1].name} {files[0].name} {pose}")
    lines.append(f"scan {other}_d0_0.png {other}_i0_0.jpg {pose}")  # of another region
    for part, text in (("undistorted_camera_parameters", "\n".join(lines)), ("house_segmentations", "\n".join((
        "ASCII 1.1", f"H {house} label 3 2 0 0 0 0 0 1 0 1", "P 0 0 1 D 0 0 0",
        f"P {place} 0 0 0 1.0 1.0 1.0 0 0 0 0 0", f"P {other} 1 7 0 1.0 1.0 1.0 0 0 0 0 0"))),
    ):  # fmt: skip
        (folder / part).mkdir()
        (folder / part / f"{house}.{'conf' if 'camera' in part else 'house'}").write_text(text + "\n")
    (root / "metadata").mkdir()
    table = ["index\traw_category\tcategory\tcount\tnyuId\tnyu40id"]
    table += [f"{i}\t{name}\t{name}\t9\t\t{CLASSES[name][1] or ''}" for i, name in enumerate(names)]
    (root / "metadata" / "category_mapping.tsv").write_text("\n".join(table) + "\n")
    (root / "tasks" / "benchmark").mkdir(parents=True)
    (root / "tasks" / "benchmark" / "scenes_val.txt").write_text(f"{house}\n")
    return {f"{place}_i{i}_0": shot for i, shot in enumerate(shots)}


def write_arkitscenes(root: Path, room: BoxRoom) -> dict[str, Shot]:
    """Validation/<video>/ of the 3dod download."""
    video = "41069021"
    folder = root / "Validation" / video
    frames = folder / f"{video}_frames"
    (frames / "lowres_wide_intrinsics").mkdir(parents=True)
    write_elements(folder / f"{video}_3dod_mesh.ply", {"vertex": vertices_of(room), "face": faces_of(room, 3)})
    boxes = [{"label": box.name, "segments": {"obbAligned": {
        "centroid": ((np.array(box.low) + box.high) / 2).tolist(),
        "axesLengths": (np.subtract(box.high, box.low)[[1, 0, 2]] + 0.01).tolist(),
        "normalizedAxes": [0, 1, 0, -1, 0, 0, 0, 0, 1]}}} for box in room.boxes]  # fmt: skip
    (folder / f"{video}_3dod_annotation.json").write_text(json.dumps({"data": boxes, "skipped": False}))
    shots, lines = {}, []
    for i in range(2):
        shot, name = Shot(room, i, (192, 256)), f"{video}_{98.764 + i:.3f}"
        shot.save(frames / "lowres_wide" / f"{name}.png", frames / "lowres_depth" / f"{name}.png")
        camera = (256, 192, shot.camera.fx, shot.camera.fy, shot.camera.cx, shot.camera.cy)
        near = f"{video}_{98.765 + i:.3f}.pincam"  # names of the two differ by a millisecond now and then
        (frames / "lowres_wide_intrinsics" / near).write_text(" ".join(map(str, camera)) + "\n")
        inverse = np.linalg.inv(shot.pose)
        values = (98.7641 + i, *Rotation.from_matrix(inverse[:3, :3]).as_rotvec(), *inverse[:3, 3])
        lines.append(" ".join(f"{value:.9g}" for value in values))
        shots[name] = shot
    (frames / "lowres_wide.traj").write_text("\n".join(lines) + "\n")
    shot.save(frames / "lowres_wide" / f"{video}_200.000.png", frames / "lowres_depth" / f"{video}_200.000.png")  # lost
    return shots


def write_replica(root: Path, room: BoxRoom) -> dict[str, Shot]:
    """office_0/habitat/, and the frames of NICE-SLAM's rendering in office0/."""
    habitat, frames = root / "office_0" / "habitat", root / "office0"
    habitat.mkdir(parents=True)
    (frames / "results").mkdir(parents=True)
    names, objects = objects_of(room)
    faces = faces_of(room, 4, object_id=objects + 5)
    write_elements(habitat / "mesh_semantic.ply", {"vertex": vertices_of(room), "face": faces})
    ids = {"wall": 93, "floor": 40, "bed": 7, "chair": 20, "sofa": 76, "table": 80, "desk": 34, "toilet": -1}
    entries = [{"id": i + 5, "class_id": ids.get(name, 0), "class_name": name} for i, name in enumerate(names)]
    (habitat / "info_semantic.json").write_text(json.dumps({"objects": entries, "id_to_label": []}))
    shots = {f"frame{i:06}": Shot(room, i, (340, 600), moved=0) for i in range(2)}
    for name, shot in shots.items():
        shot.save(
            frames / "results" / f"{name}.jpg", frames / "results" / f"{name.replace('frame', 'depth')}.png", 6553.5
        )
    np.savetxt(frames / "traj.txt", [shot.pose.ravel() for shot in shots.values()])
    camera = shots["frame000000"].camera
    content = {"w": 600, "h": 340, "scale": 6553.5} | {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy")}
    (root / "cam_params.json").write_text(json.dumps({"camera": content}))
    return shots


WRITERS: dict[str, Callable[[Path, BoxRoom], dict[str, Shot]]] = {
    "scannetpp": write_scannetpp,
    "matterport": write_matterport,
    "arkitscenes": write_arkitscenes,
    "replica": write_replica,
}
