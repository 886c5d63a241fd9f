import bz2
import gzip
import lzma
import tarfile
import zipfile

import numpy as np
import pytest

from tests.helpers.archives import link, tar_of
from xmask3d.data.download.archives import extract
from xmask3d.errors import UserError

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


HOSTILE = {
    "absolute": "/tmp/xmask3d-escaped",
    "parent": "../escaped",
    "hidden parent": "a/b/../../../escaped",
    "backslashes": "..\\escaped",
    "drive": "C:/escaped",
    "link outside": link("../escaped", "good.txt"),
}
LINKS = {
    "a/link": link("a/link", "good.txt"),
    "b/up": link("b/up", "../a/good.txt"),
    "a/hard": link("a/hard", "a/good.txt", tarfile.LNKTYPE),
    "a/chain": link("a/chain", "link"),
}
LEFT_OUT = {
    "a/absolute": link("a/absolute", "/etc/passwd"),
    "a/parent": link("a/parent", "../../outside.txt"),
    "a/hard outside": link("a/hard outside", "../outside.txt", tarfile.LNKTYPE),
    "a/folder": link("a/folder", "/etc"),
    "a/dangling": link("a/dangling", "nothing"),
    "a/circle": link("a/circle", "circle"),
    "a/present": link("a/present", "before.txt"),
    "a/device": link("a/device", "", tarfile.CHRTYPE),
    "a/fifo": link("a/fifo", "", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_tars_are_refused(tmp_path, kind):
    folder = tmp_path / "in" / "side"
    archive = tar_of(tmp_path / "x.tar.gz", [("a/good.txt", b"good"), (HOSTILE[kind], b"")])
    with pytest.raises(UserError, match=r"x\.tar\.gz.*refused"):
        extract(archive, folder)
    assert {p.name for p in tmp_path.rglob("*")} <= {"in", "side", "a", "good.txt", "x.tar.gz"}
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for content in ("first", "second"):
            archive.writestr("a.txt", content)
    with pytest.raises(UserError, match="two files of one name"):
        extract(tmp_path / "x.zip", tmp_path / "in")
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize("name", [v for v in HOSTILE.values() if isinstance(v, str)])
def test_hostile_zips_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/good.txt", "good")
        archive.writestr(name, "bad")
    with pytest.raises(UserError, match="refused"):
        extract(tmp_path / "x.zip", tmp_path / "in")
    assert not list((tmp_path / "in").iterdir())


def prepare(tmp_path):
    """A folder that holds a file already, and one outside it."""
    folder = tmp_path / "side" / "in"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "before.txt").write_text("private")
    for outside in (folder.parent, tmp_path):
        (outside / "outside.txt").write_text("private")
    return folder


def check_links(folder, linked, left_out, caplog):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    assert found == {"a/good.txt", "a/before.txt", *linked}
    assert all((folder / name).read_bytes() == b"good" and not (folder / name).is_symlink() for name in linked)
    assert len(caplog.messages) == 1
    assert f"left out {len(left_out)} links" in caplog.messages[0] and next(iter(left_out)) in caplog.messages[0]


def test_links_in_tars_become_copies_or_are_left_out(tmp_path, caplog):
    folder = prepare(tmp_path)
    links = [(member, b"") for member in [*LINKS.values(), *LEFT_OUT.values()]]
    archive = tar_of(tmp_path / "x.tar.gz", [*links, ("a/good.txt", b"good")])
    extract(archive, folder)
    check_links(folder, LINKS, LEFT_OUT, caplog)


def test_links_in_zips_become_copies_or_are_left_out(tmp_path, caplog):
    folder = prepare(tmp_path)
    linked = {name: member for name, member in LINKS.items() if member.issym()}
    left_out = {name: member for name, member in LEFT_OUT.items() if member.issym()}
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, member in (linked | left_out).items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, member.linkname)
        archive.writestr("a/good.txt", "good")
    extract(tmp_path / "x.zip", folder)
    check_links(folder, linked, left_out, caplog)


def test_a_tar_that_ends_with_a_zip_is_none(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as inner:
        inner.writestr("data.pkl", "weights")
    with tarfile.open(tmp_path / "x.tar.gz", "w") as archive:  # without compression, whatever its name
        archive.add(tmp_path / "model.ckpt", "models/model.ckpt")
    extract(tmp_path / "x.tar.gz", tmp_path / "out")
    assert (tmp_path / "out/models/model.ckpt").read_bytes() == (tmp_path / "model.ckpt").read_bytes()


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_extract(tmp_path, form):
    members = [("top/a.txt", b"a" * 1000), ("top/deep/b.txt", b"b"), ("top/empty", b"")]
    archive = tmp_path / "x"
    if form == "tar":
        tar_of(archive, members)
    else:
        with zipfile.ZipFile(archive, "w") as target:
            for name, content in members:
                target.writestr(name, content)
    (tmp_path / "out" / "top").mkdir(parents=True)
    (tmp_path / "out" / "top" / "a.txt").write_bytes(b"half")
    extract(archive, tmp_path / "out")
    for name, content in members:
        assert (tmp_path / "out" / name).read_bytes() == content
    stamp = (tmp_path / "out" / "top" / "a.txt").stat().st_mtime_ns
    extract(archive, tmp_path / "out")
    assert (tmp_path / "out" / "top" / "a.txt").stat().st_mtime_ns == stamp


def test_damaged_archives(tmp_path):
    archive = tar_of(tmp_path / "x.tar.gz", [("a", CONTENT)])
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"x\.tar\.gz"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()
    (tmp_path / "y").write_bytes(b"nothing")
    with pytest.raises(UserError, match="neither"):
        extract(tmp_path / "y", tmp_path / "out")


@pytest.mark.parametrize("form", ["flipped", "cut", "bz2", "xz", "header", "plain"])
def test_damaged_tars_leave_nothing(tmp_path, form):
    members = [(f"{i}", CONTENT[i * 3000 :][:3000]) for i in range(50)]
    plain = gzip.decompress(tar_of(tmp_path / "whole", members).read_bytes())
    packed, middle = {"bz2": bz2.compress, "xz": lzma.compress}.get(form, gzip.compress), 25 * 3584
    if form in ("cut", "plain"):
        plain = plain[:middle]
    if form == "header":
        plain = plain[:middle] + b"x" * 64 + plain[middle + 64 :]
    content = bytearray(plain if form == "plain" else packed(plain))
    if form in ("flipped", "bz2", "xz"):
        half = len(content) // 2
        content[half : half + 64] = bytes(255 - byte for byte in content[half : half + 64])
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.tar: .*damaged.*delete it to fetch it again"):
        extract(tmp_path / "x.tar", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_wrong_checksum_of_a_tar(tmp_path):
    content = bytearray(tar_of(tmp_path / "x.tar.gz", [("a", CONTENT)]).read_bytes())
    content[-8] ^= 1
    (tmp_path / "x.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match="CRC"):
        extract(tmp_path / "x.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()


def test_damage_inside_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"text " * 50_000)
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[40:80] = b"\xff" * 40
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.zip: damaged"):
        extract(tmp_path / "x.zip", tmp_path / "out")
