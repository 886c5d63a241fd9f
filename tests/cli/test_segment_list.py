"""Lists of scans: shared by processes, resumed, one bad scan of many, and one summary whoever did the work."""

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.helpers.runs import command_run, finish, run, start
from tests.helpers.scenes import write_scenes
from tests.helpers.tiny import write_model
from xmask3d.cli.main import run as segment
from xmask3d.files import sha256_of
from xmask3d.segment.scan_list import OVERVIEW, folder_names, read_list

SCANS = 4


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Begin of a command line that segments four scenes, the third of which is damaged."""
    root = tmp_path_factory.mktemp("scans")
    scenes = sorted((write_scenes(root / "data", {"val": SCANS}, 2, 0.15) / "scannet_3d" / "val").glob("*.pth"))
    scenes[2].write_bytes(scenes[2].read_bytes()[:5000])
    (root / "scans.txt").write_text("# of one building\n\n" + "\n".join(map(str, scenes)) + "\n")
    model = write_model(root / "model")
    return ["segment", "--list", str(root / "scans.txt"), "--query", "sofa", "floor", "--checkpoint", str(model),
            "--device", "cpu", "--out"]  # fmt: skip


@pytest.fixture(scope="module")
def done(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one process."""
    out = tmp_path_factory.mktemp("alone")
    assert run(command_run, [*words, str(out)], log=out.with_suffix(".log")) == 1
    return out


def contents(folder: Path) -> dict[str, object]:
    """All files below a folder: digests, or content where seconds or the order of metadata are those of a run."""
    found: dict[str, object] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        found[name] = sha256_of(path)
        if path.name == "summary.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("seconds", "seal")}
        if path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                arrays = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
                found[name] = arrays | {key: value for key, value in file.metadata().items() if key != "seal"}
    return found


def test_a_bad_scan_is_a_line_and_the_others_are_done(done: Path) -> None:
    lines = done.with_suffix(".log").read_text().splitlines()
    assert lines[0].endswith("scans.txt: 4 scans: 4, of which 0 are done already")
    each = [line for line in lines if line.startswith("[")]
    assert [line[:5] for line in each] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert [line.count("error: ") for line in each] == [0, 0, 1, 0] and "damaged" in each[2]
    assert " points, 2 views, " in each[0] and each[3].endswith("0:00:00 left")
    assert lines[-1] == f"3 done, 1 failed; summary: {done / OVERVIEW}"
    scans = json.loads((done / OVERVIEW).read_text())["scans"]
    assert [scan["state"] for scan in scans] == ["done", "done", "failed", "done"]
    assert "damaged" in scans[2]["reason"] and scans[3]["views"] == 2
    assert sum(c["points"] for c in scans[0]["classes"].values()) + scans[0]["unlabelled"] == scans[0]["points"] > 3000


def test_two_processes_of_torchrun_write_the_same_files(done: Path, words: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    codes = finish(start(command_run, [*words, str(tmp_path / "out")], log=log, processes=2))
    assert codes == [1, 1]  # the one without a bad scan waits for the other, and says the same
    assert "share 0 of 2: 2, " in log.read_text() and "share 1 of 2: 2, " in log.read_text()
    assert contents(tmp_path / "out") == contents(done)


def test_tasks_of_an_array_write_the_same_files(
    done: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MIN": 10, "MAX": 12, "STEP": 2, "COUNT": 2}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    codes, states = [], []
    for task in (12, 10):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        codes.append(segment([*words, str(tmp_path)]))
        states.append([scan["state"] for scan in json.loads((tmp_path / OVERVIEW).read_text())["scans"]])
    assert codes == [0, 1]
    assert states == [["waiting", "done", "waiting", "done"], ["done", "done", "failed", "done"]]
    assert contents(tmp_path) == contents(done)


def test_what_is_done_is_left_out_and_damage_is_not(
    done: Path, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    labels = out / "scene0001_00_vh_clean_2" / "labels.ply"
    content = bytearray(labels.read_bytes())
    content[-100] ^= 1
    labels.write_bytes(content)
    (out / "scene0000_00_vh_clean_2" / ".unfinished.txt").write_text("")  # of a process that was killed
    (out / "scene0000_00_vh_clean_2" / "overview.png").unlink()
    assert segment([*words, str(out)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("4 scans: 4, of which 1 are done already")
    order = [Path(line.split()[1]).name[:9] for line in said if line.startswith("[")]
    assert order == ["scene0001", "scene0002", "scene0000"]  # what may have killed a process comes last
    assert contents(out) == contents(done)
    stat = os.stat(labels)
    one = [word for word in words if word != "floor"]
    assert segment([*one, str(out)]) == 1  # other words: nothing is done
    assert "of which 0 are done already" in capsys.readouterr().out and os.stat(labels).st_mtime_ns > stat.st_mtime_ns
    scan = json.loads((out / OVERVIEW).read_text())["scans"][0]
    assert list(scan["phrases"]) == ["sofa"] and "classes" not in scan


def test_lists_and_their_folders(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("b/mesh.ply\n#c\n  a/mesh.ply\n\na/../b/mesh.ply\nc.ply\n", encoding="utf-8")
    assert read_list(tmp_path / "list") == [Path("a/../b/mesh.ply"), Path("a/mesh.ply"), Path("c.ply")]
    assert folder_names([Path("/s/b/mesh.ply"), Path("/s/a/mesh.ply"), Path("/s/c.ply")]) == ["b-mesh", "a-mesh", "c"]
    (tmp_path / "c").mkdir()
    assert len(set(folder_names([tmp_path / "c", tmp_path / "c.ply", tmp_path / "c.pcd"]))) == 3
