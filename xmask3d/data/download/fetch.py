"""Downloads that survive a lost connection."""

import http.client
import json
import logging
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from tqdm import tqdm

from xmask3d.errors import UserError
from xmask3d.files import atomic_write, sha256_of
from xmask3d.guarded import read_json
from xmask3d.seal import read_sealed_json, sealed_json

log = logging.getLogger(__name__)

RECORDS = "downloads.json"
BLOCK = 1 << 20
RESERVE = 1 << 28  # bytes that must stay free on the disk


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    attempts: int = 5,
    wait: float = 2.0,
    timeout: float = 60.0,
) -> Path:
    """Download a file once; a broken transfer resumes, also in a later call.

    Size and SHA-256 of the file are recorded in `downloads.json` beside it. An existing file is not fetched again, but
    checked against the given or recorded digest.

    Args:
        url: http or https.
        target: path of the file; a partial one is kept as `<target>.part`.
        sha256, size: expected digest and size. If unknown, those of the first download are recorded and expected later.
        attempts: number of times in a row that a transfer may break without any progress.
        wait: seconds before the second attempt, which double for each further one.
        timeout: seconds without a byte after which a transfer counts as broken.

    Returns:
        `target`.

    Raises:
        UserError: there is no connection, the server refuses, it sends a web page instead of a file, the disk is full,
            or size or digest are wrong (a wrong download is deleted, an existing file stays untouched).
    """
    target = Path(target)
    if not url.startswith(("http://", "https://")):
        raise UserError(f"download {url}: only http and https links can be fetched")
    recorded = read_records(target.parent).get(target.name, {})
    known = sha256 or recorded.get("sha256")
    if target.exists():
        return _check_present(target, url, known, size)
    make_folder(target.parent)
    part = target.with_name(target.name + ".part")
    _transfer(url, part, size, attempts, wait, timeout)
    _version(part).unlink(missing_ok=True)
    digest = sha256_of(part)
    if known and digest != known:
        part.unlink()
        raise UserError(
            f"{url}: the download has SHA-256 {digest}, expected {known}; it was deleted. If the publisher changed "
            f"the file on purpose, remove '{target.name}' from {target.parent / RECORDS}"
        )
    part.replace(target)
    record(target.parent, target.name, url=url, size=target.stat().st_size, sha256=digest)
    return target


def _check_present(target: Path, url: str, known: str | None, size: int | None) -> Path:
    actual = target.stat().st_size
    if size is not None and actual != size:
        raise UserError(f"{target}: has {actual} bytes, expected {size}; move it away to download it again")
    digest = sha256_of(target)
    if known and digest != known:
        raise UserError(f"{target}: has SHA-256 {digest}, expected {known}; move it away to download it again")
    if not known:
        record(target.parent, target.name, url=url, size=actual, sha256=digest)
    return target


def _transfer(url: str, part: Path, size: int | None, attempts: int, wait: float, timeout: float) -> None:
    """Fill `part`, requesting the rest after every break."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(url, part, size, timeout):
                return
            reason: object = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code not in (408, 425, 429) and error.code < 500:
                raise UserError(f"{url}: the server answers {error.code} {error.reason}") from error
            reason = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno == 28:
                raise UserError(f"{part}: the disk is full") from error
            # an error of this disk, not of the connection
            if isinstance(error, OSError) and error.filename is not None:
                raise UserError(f"{error.filename}: cannot be written ({error.strerror})") from error
            reason = getattr(error, "reason", None) or error
        gained = part.exists() and part.stat().st_size > before
        failures = 1 if gained else failures + 1
        if failures >= attempts:
            raise UserError(f"{url}: cannot be downloaded ({reason}); run the command again to resume")
        log.warning("%s: %s; trying again", url, reason)
        time.sleep(wait * 2 ** (failures - 1))


def _receive(url: str, part: Path, size: int | None, timeout: float) -> bool:
    """Request the missing bytes once; return True if the file is complete afterwards."""
    begun = _read_version(part, url)
    start = part.stat().st_size if begun else 0
    headers = {"User-Agent": "xmask3d", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if begun["validator"]:
            headers["If-Range"] = begun["validator"]
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        error.close()  # nothing is missing or the file has changed, so start again
        part.unlink()
        return False
    except (ValueError, http.client.InvalidURL) as error:
        raise UserError(f"{url}: not a valid address ({error})") from error
    with response:
        if response.status != 206:
            start = 0
        total = _total(response, start)
        if start and total != begun["length"]:
            part.unlink()
            return False
        if response.headers.get_content_type() == "text/html":
            raise UserError(f"{url}: gives a web page, not a file; the link may have moved or ask for a login")
        if size is not None and total is not None and total != size:
            raise UserError(f"{url}: the server offers {total} bytes, expected {size}")
        need_space(part.parent, (total or 0) - start)
        if not start:
            _write_version(part, url, response, total)
        return _copy(response, part, start, total)


def _write_version(part: Path, url: str, response: http.client.HTTPResponse, total: int | None) -> None:
    """Record the server's version of the file, so that `part` is only continued with the same version."""
    tag = response.headers.get("ETag") or ""
    validator = response.headers.get("Last-Modified") or "" if tag.startswith("W/") or not tag else tag
    _version(part).write_text(json.dumps({"url": url, "validator": validator, "length": total}), encoding="utf-8")


def _read_version(part: Path, url: str) -> dict:
    """Read the record of `_write_version`; empty if `part` cannot be continued from this link."""
    try:
        begun = read_json(_version(part))
        usable = begun["url"] == url and begun["length"] is not None and part.stat().st_size > 0
    except (UserError, OSError, KeyError, TypeError):
        return {}
    return begun if usable else {}


def _copy(response: IO[bytes], part: Path, start: int, total: int | None) -> bool:
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None, leave=False)
    with bar, open(part, "ab" if start else "wb") as file:
        try:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
        except http.client.IncompleteRead as error:
            file.write(error.partial)
            return False
        return total is None or file.tell() == total


def _total(response: http.client.HTTPResponse, start: int) -> int | None:
    """Return the size of the complete file in bytes, if the server states it."""
    if start:
        ranged = response.headers.get("Content-Range", "")
        if not ranged.startswith(f"bytes {start}-"):
            raise UserError(f"{response.url}: the server sends another part than asked for ({ranged})")
        whole = ranged.rpartition("/")[2]
        return int(whole) if whole.isdigit() else None
    length = response.headers.get("Content-Length")
    return int(length) if length else None


def _version(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def need_space(folder: Path, needed: int) -> None:
    """Raise `UserError` unless `needed` bytes plus a reserve are free on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise UserError(f"{folder}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free on that disk")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UserError: the folder cannot be made, for example below a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be made ({error.strerror}); choose another") from error


def read_records(folder: Path) -> dict[str, dict]:
    """Read `downloads.json` of a folder: {file name: {url, size, sha256, ...}}."""
    path = Path(folder) / RECORDS
    if not path.is_file():
        return {}
    try:
        content = read_sealed_json(path)
    except UserError as error:
        raise UserError(f"{error}; delete it to have the files recorded again") from error
    if not all(isinstance(facts, dict) for facts in content.values()):
        raise UserError(f"{path}: damaged; delete it to have the files recorded again")
    return content


def record(folder: Path, name: str, **facts: object) -> None:
    """Add facts about a file to `downloads.json`."""
    records = read_records(folder)
    records[name] = records.get(name, {}) | facts
    _write_records(folder, records)


def forget(folder: Path, name: str) -> None:
    """Drop a file's entry in `downloads.json`, so that another version of it may be fetched."""
    records = read_records(folder)
    if records.pop(name, None) is not None:
        _write_records(folder, records)


def _write_records(folder: Path, records: dict[str, dict]) -> None:
    path = Path(folder) / RECORDS
    atomic_write(path, sealed_json(records, indent=1, sort_keys=True))
