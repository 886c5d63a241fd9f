"""The folder of a result: whose it is, and where its features are."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from xmask3d.errors import UserError
from xmask3d.segment import folder


def test_the_summary_leads_to_the_features(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "room.features"
    out.mkdir()
    elsewhere.touch()
    assert folder.features_file(elsewhere) == elsewhere
    assert folder.features_file(out) == out / "features.safetensors"  # of a result written without a word of it
    for features in (elsewhere, out / "other.safetensors"):
        said = folder.name_features(features, out)
        (out / "summary.json").write_text(json.dumps({"features": said}))
        assert folder.features_file(out) == features
    assert said == "other.safetensors"  # the folder can be moved
    (out / "summary.json").write_text('{"features"')
    with pytest.raises(UserError, match=r"summary\.json: damaged"):
        folder.features_file(out)


def test_scans_of_one_name_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chess, heads, office = (Path(name) / "seq-01" for name in ("chess", "heads", "office"))
    first = folder.default_folder("seq-01", chess)
    assert first == Path("segmented/seq-01")
    folder.begin(first, chess)  # not even unfinished work is written over
    assert folder.default_folder("seq-01", chess) == first
    second = folder.default_folder("seq-01", heads)
    assert second == Path("segmented/seq-01-2")
    (first / "summary.json").write_text(json.dumps({"path": str(chess.resolve())}))
    folder.end(first)
    folder.begin(second, heads)
    assert [path.name for path in first.iterdir()] == ["summary.json"]
    assert folder.default_folder("seq-01", chess) == first
    assert folder.default_folder("seq-01", heads) == second
    assert folder.default_folder("seq-01", office) == Path("segmented/seq-01-3")
    (first / "summary.json").write_text('{"path"')  # cut off: whose it was is not known
    assert folder.default_folder("seq-01", office) == first


def test_files_where_folders_are_needed_are_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    folder.check_places(tmp_path / "new" / "out", tmp_path / "new" / "room.features")
    for out, features, message in (
        (file, None, f"--out {file}: {file} is a file"),
        (file / "out", None, f"--out {file / 'out'}: {file} is a file"),
        (tmp_path, tmp_path, f"--save-features {tmp_path}: a folder; name a file, such as"),
        (tmp_path, file / "room.features", f"--save-features {file / 'room.features'}: {file} is a file"),
    ):
        with pytest.raises(UserError) as caught:
            folder.check_places(out, features)
        assert str(caught.value).startswith(message)


def test_features_never_replace_a_file_of_another_kind(tmp_path: Path) -> None:
    scan, model, earlier = tmp_path / "room.ply", tmp_path / "model.safetensors", tmp_path / "room.features"
    scan.write_bytes(b"ply\nformat ascii 1.0\n")
    save_file({"a": np.zeros(3, np.float32)}, model)
    for path in (scan, model):
        before = path.read_bytes()
        with pytest.raises(UserError, match=f"{path.name}: this file holds something else"):
            folder.check_places(tmp_path / "out", path)
        assert path.read_bytes() == before
    save_file({"a": np.zeros(3, np.float32)}, earlier, {"format": folder.FORMAT})
    folder.check_places(tmp_path / "out", earlier)
