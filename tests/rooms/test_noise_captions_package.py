"""Sensor noise, captions and the furniture package."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from xmask3d.errors import UserError
from xmask3d.rooms import package
from xmask3d.rooms.catalogue import CLASS_OF_KIND
from xmask3d.rooms.noise import sensor_color, sensor_depth
from xmask3d.rooms.sentences import WORDS, describe, word_for


def test_depth_noise_grows_with_the_squared_distance() -> None:
    rng = np.random.default_rng(0)
    near, far = (sensor_depth(np.full((240, 320), z, np.float32), rng).astype(float) for z in (1.0, 4.0))
    assert near[near > 0].std() == pytest.approx(2.4, abs=0.3)
    assert far[far > 0].std() == pytest.approx(23.4, abs=2)
    assert far[far > 0].mean() == pytest.approx(4000, abs=1)


def test_depth_has_holes_at_edges_and_where_nothing_is() -> None:
    depth = np.full((100, 100), 2.0, np.float32)
    depth[:, 50:] = 3.0
    depth[:10] = 0
    measured = sensor_depth(depth, np.random.default_rng(1))
    assert (measured[:10] == 0).all()
    assert (measured[12:, 49:51] == 0).mean() > 0.4
    assert (measured[12:, 52:] == 0).mean() < 0.1


def test_color_noise_keeps_the_mean_times_exposure() -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    noisy = sensor_color(image, 1.3, np.random.default_rng(0))
    assert noisy.mean() == pytest.approx(130, abs=5)
    assert 1 < noisy[..., 0].std() < 5


def test_captions_name_the_biggest_things_only() -> None:
    for seed in range(30):
        text = describe(["wall", "sofa", "lamp"], [0.6, 0.2, 0.001], "living room", np.random.default_rng(seed))
        assert any(word in text for word in ("sofa", "couch", "settee"))
        assert "lamp" not in text
        assert "a office" not in text


def test_captions_count_and_vary() -> None:
    texts = {describe(["chair"] * 3, [0.1] * 3, "office", np.random.default_rng(seed)) for seed in range(40)}
    assert len(texts) > 15
    assert all("chairs" in text or "seats" in text for text in texts)
    assert "wall" in describe(["wall"], [1.0], "office", np.random.default_rng(0))


def test_every_kind_has_words_and_classes_are_often_named() -> None:
    assert set(CLASS_OF_KIND) <= set(WORDS)
    words = [word_for("sofa", np.random.default_rng(i)) for i in range(100)]
    assert words.count("sofa") > 40 and "couch" in words


def _deb(path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in (
            ("./usr/share/sweethome3d/furniture/A.sh3f", b"zip"),
            ("./usr/share/doc/x/copyright", b"CC"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    members = [(b"debian-binary", b"2.0\n"), (b"data.tar.xz", data.getvalue())]
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in members:
            file.write(
                name.ljust(16)
                + b"0".ljust(12)
                + b"0".ljust(6) * 2
                + b"100644".ljust(8)
                + str(len(content)).encode().ljust(10)
                + b"`\n"
                + content
                + b"\n" * (len(content) % 2)
            )


def test_package_is_unpacked_without_dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    _deb(tmp_path / "x.deb")
    package.unpack(tmp_path / "x.deb", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "A.sh3f": b"zip",
        "copyright": b"CC",
    }
    (tmp_path / "bad.deb").write_bytes(b"!<arch>\nshort")
    with pytest.raises(UserError, match=r"bad\.deb"):
        package.unpack(tmp_path / "bad.deb", tmp_path / "bad")


def test_package_put_there_by_hand_is_checked_unpacked_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    deb = tmp_path / package.FILE
    _deb(deb)
    monkeypatch.setattr(package, "SHA256", hashlib.sha256(deb.read_bytes()).hexdigest())
    monkeypatch.setattr(package, "SIZE", deb.stat().st_size)
    folder = package.get_furniture(tmp_path)
    assert [path.name for path in folder.rglob("*.sh3f")] == ["A.sh3f"]
    assert not deb.exists()
    assert package.get_furniture(tmp_path) == folder


def test_mirrors_come_from_the_environment_and_from_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources.list.d").mkdir()
    old = "# deb http://old.example/debian x\n"
    (tmp_path / "sources.list").write_text(f"{old}deb [arch=amd64] http://a.example/debian/ x\n")
    (tmp_path / "sources.list.d" / "b.sources").write_text("Types: deb\nURIs: https://b.example/debian\nSuites: x\n")
    monkeypatch.delenv(package.MIRROR, raising=False)
    assert package.mirrors(tmp_path) == ["http://a.example/debian", "https://b.example/debian"]
    monkeypatch.setenv(package.MIRROR, "https://mine.example/debian/")
    assert package.mirrors(tmp_path)[0] == "https://mine.example/debian"
    assert package.mirrors(tmp_path / "nowhere") == ["https://mine.example/debian"]


def test_a_mirror_is_used_where_apt_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    _deb(tmp_path / "source.deb")
    content = (tmp_path / "source.deb").read_bytes()
    monkeypatch.setattr(package, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(package, "SIZE", len(content))
    monkeypatch.setattr(package, "_by_apt", lambda cache: False)
    monkeypatch.setattr(package, "mirrors", lambda: ["https://down.example/debian", "https://up.example/debian"])

    def fetch(url: str, target: Path, *, sha256: str, size: int) -> Path:
        if "down" in url:
            raise OSError("no answer")
        assert url == f"https://up.example/debian/{package.POOL}"
        target.write_bytes(content)
        return target

    monkeypatch.setattr(package, "fetch", fetch)
    folder = package.get_furniture(tmp_path / "cache")
    assert [path.name for path in folder.rglob("*.sh3f")] == ["A.sh3f"]


def test_without_any_way_the_error_names_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_by_apt", lambda cache: False)
    monkeypatch.setattr(package, "mirrors", lambda: [])
    with pytest.raises(UserError, match=f"put {package.FILE} .* into {tmp_path}"):
        package.get_furniture(tmp_path)
