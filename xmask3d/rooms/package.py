"""Download of the furniture library: Debian's package sweethome3d-furniture, unpacked without installing anything."""

import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from xmask3d.data.download.fetch import fetch, make_folder
from xmask3d.errors import UserError
from xmask3d.files import sha256_of

NAME = "sweethome3d-furniture"
FILE = "sweethome3d-furniture_1.8-1_all.deb"
SHA256 = "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668"
SIZE = 119782356
POOL = f"pool/main/s/sweethome3d-furniture/{FILE}"
MIRROR = "XMASK3D_DEBIAN_MIRROR"
APT = Path("/etc/apt")
SOURCE = re.compile(r"^(?:deb|URIs:)\s(?:.*?\s)??(https?://\S*debian/?)(?=\s|$)", re.MULTILINE)


def get_furniture(cache: Path) -> Path:
    """Return the folder with the furniture archives, which are downloaded and unpacked once.

    Tries what is there, then `apt-get download`, then the mirrors that `mirrors` finds; the SHA-256 is checked.

    Args:
        cache: folder to keep them in.

    Raises:
        UserError: the package cannot be obtained; the message names the file and its place.
    """
    cache = Path(cache)
    target = cache / "unpacked"
    if any(target.rglob("*.sh3f")):
        return target
    package = cache / FILE
    make_folder(cache)
    if not _is_right(package) and not _by_apt(cache):
        _from_mirrors(package)
    temporary = cache / "unpacked.part"
    shutil.rmtree(temporary, ignore_errors=True)
    unpack(package, temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    package.unlink()
    return target


def unpack(package: Path, target: Path) -> None:
    """Unpack the furniture and the copyright notice of a Debian package, with dpkg-deb or without."""
    target.mkdir(parents=True, exist_ok=True)
    if shutil.which("dpkg-deb"):
        done = subprocess.run(
            ["dpkg-deb", "-x", str(package), str(target)], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode == 0:
            return
    try:
        with tarfile.open(fileobj=io.BytesIO(_member(package.read_bytes(), b"data.tar"))) as archive:
            for entry in archive:
                if entry.isfile() and (entry.name.endswith(".sh3f") or entry.name.endswith("/copyright")):
                    content = archive.extractfile(entry)
                    assert content is not None
                    (target / Path(entry.name).name).write_bytes(content.read())
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UserError(f"cannot unpack {package} ({error}): delete it and try again") from error


def _member(content: bytes, name: bytes) -> bytes:
    """Return a member of an ar archive (which a Debian package is), by the beginning of its name."""
    position = 8
    while position + 60 <= len(content):
        header = content[position : position + 60]
        size = int(header[48:58])
        if header.startswith(name):
            return content[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
    raise ValueError(f"no member {name.decode()}")


def _by_apt(cache: Path) -> bool:
    """Run `apt-get download`; return True where it brought the right file."""
    if not shutil.which("apt-get"):
        return False
    try:
        subprocess.run(["apt-get", "download", NAME], cwd=cache, capture_output=True, timeout=1800, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return _is_right(cache / FILE)


def mirrors(apt: Path = APT) -> list[str]:
    """Return addresses of Debian mirrors: from the variable XMASK3D_DEBIAN_MIRROR, then from apt's own sources."""
    found = [os.environ[MIRROR]] if os.environ.get(MIRROR) else []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        try:
            found += SOURCE.findall(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:  # not there, a folder, or not for this user
            continue
    return list(dict.fromkeys(address.rstrip("/") for address in found))


def _from_mirrors(package: Path) -> None:
    advice = (
        f"put {FILE} of Debian's package {NAME} into {package.parent}, name a Debian mirror in {MIRROR}, "
        "or use --furniture procedural"
    )
    reasons = []
    for mirror in mirrors():
        try:
            fetch(f"{mirror}/{POOL}", package, sha256=SHA256, size=SIZE)
        except (OSError, UserError) as error:
            reasons.append(str(error))
            continue
        if _is_right(package):
            return
        reasons.append(f"{mirror} has another version")
    raise UserError(f"cannot get the furniture ({'; '.join(reasons) or 'no apt-get and no mirror'}): {advice}")


def _is_right(package: Path) -> bool:
    if not package.is_file() or package.stat().st_size != SIZE:
        return False
    return sha256_of(package) == SHA256
