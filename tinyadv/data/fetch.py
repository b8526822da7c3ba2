"""The files of a public data set: from a local folder, the user's cache, or downloaded; always verified."""

import gzip
import hashlib
import io
import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

ROUNDS = 3  # all mirrors are tried in turn this often, so that a retry asks another server first
TIMEOUT = (10, 30)  # seconds to connect, and between two packets


class DataUnavailable(OSError):
    """A data set is neither on this machine nor to be had from a mirror; the message lists what was tried."""


def fetch(name: str, files: Mapping[str, str], mirrors: Sequence[str],
          path: str | os.PathLike[str] | None = None, download: bool = True) -> dict[str, bytes]:
    """The decompressed contents of the ``files`` of the data set ``name``, by file name.

    files: file name -> SHA-256 in hexadecimal, of the decompressed file because mirrors compress differently.
    mirrors: URL prefixes; each serves a file as ``<prefix><file name>.gz``.
    path: a local folder to look in first, for the files plain or as .gz; by default ``$TINYADV_DATA/<name>``.
    download: whether a file found neither there nor in the user's cache is downloaded, into the cache.

    Raises ValueError for a damaged file in the local folder, and DataUnavailable where every source failed.
    A damaged file in the cache is downloaded again.
    """
    import pooch  # only now: it takes longer than all of tinyadv

    root = os.environ.get("TINYADV_DATA")
    if path is None and root:
        path = Path(root).expanduser() / name
    local = [] if path is None else [Path(path)]
    cache = Path(pooch.os_cache("tinyadv")) / name
    mirrors = mirrors if download else ()
    return {file: _fetch_file(file, sha256, local, cache, mirrors) for file, sha256 in files.items()}


def _fetch_file(file: str, sha256: str, local: list[Path], cache: Path, mirrors: Sequence[str]) -> bytes:
    candidates = [folder / f"{file}{suffix}" for folder in local for suffix in ("", ".gz")]
    for candidate in filter(Path.is_file, candidates):
        try:
            return _verified(candidate.read_bytes(), sha256)
        except ValueError as error:
            raise ValueError(f"{candidate} is damaged: {error}; replace or remove it") from error

    cached = cache / file
    tried = {str(candidate): "no such file" for candidate in [*candidates, cached]}
    try:
        return _verified(cached.read_bytes(), sha256)
    except FileNotFoundError:
        pass
    except ValueError as error:
        tried[str(cached)] = f"damaged: {error}"

    for url in [f"{mirror}{file}.gz" for mirror in mirrors] * ROUNDS:
        cache.mkdir(parents=True, exist_ok=True)  # first, or the download would be for nothing if it fails
        try:
            content = _verified(_download(url), sha256)
        except (OSError, ValueError) as error:
            tried[url] = str(error)
        else:
            _write_atomically(cached, content)
            return content
    if not mirrors:
        tried["download"] = "not allowed (download=False)"
    raise DataUnavailable("\n".join([
        f"could not get {file}:", *(f"  {place}: {reason}" for place, reason in tried.items()),
        f"Put the files of this data set, plain or as .gz, into a folder named {cache.name}, and set the "
        f"environment variable TINYADV_DATA to the folder that holds {cache.name}/."]))


def decompressed(raw: bytes) -> bytes:
    """``raw`` itself, or what it unpacks to where it is gzip. Raises ValueError if that is damaged."""
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it is not a whole gzip file ({error})") from error


def _verified(raw: bytes, sha256: str) -> bytes:
    content = decompressed(raw)
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ValueError(f"its decompressed SHA-256 is {got}, expected {sha256}")
    return content


def _download(url: str) -> bytes:
    import pooch

    buffer = io.BytesIO()
    pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)(url, buffer, None)
    return buffer.getvalue()


def _write_atomically(path: Path, content: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # on the same disk, as a rename must be
        part = Path(scratch) / path.name
        part.write_bytes(content)
        part.replace(path)
