"""The files of a public data set: from a local folder, the user's cache, or downloaded; always verified."""

import gzip
import hashlib
import io
import os
import stat
import tempfile
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

ROUNDS = 3  # all mirrors are tried in turn this often, so that a retry asks another server first
TIMEOUT = (10, 30)  # seconds to connect, and between two packets
START, SLOWEST = 60.0, 50_000  # a download has so many seconds, and one more for so many bytes of the file


class DataUnavailable(OSError):
    """A data set is neither on this machine nor to be had from a mirror; the message lists what was tried."""


def fetch(name: str, files: Mapping[str, tuple[str, int]], mirrors: Sequence[str],
          path: str | os.PathLike[str] | None = None, download: bool = True) -> dict[str, bytes]:
    """The decompressed contents of the ``files`` of the data set ``name``, by file name.

    files: file name -> (SHA-256 in hexadecimal, size in bytes), both of the decompressed file because mirrors
    compress differently. Nothing larger is read, received or unpacked.
    mirrors: URL prefixes; each serves a file as ``<prefix><file name>.gz``.
    path: a local folder to look in first, for the files plain or as .gz; by default ``$TINYADV_DATA/<name>``.
    download: whether a file found neither there nor in the user's cache is downloaded, into the cache.

    Raises ValueError for a damaged file in the local folder, and DataUnavailable where every source failed or the
    cache cannot be used. A damaged file in the cache is downloaded again.
    """
    import pooch  # only now: it takes longer than all of tinyadv

    root = os.environ.get("TINYADV_DATA")
    if path is None and root:
        path = Path(root).expanduser() / name
    local = [] if path is None else [Path(path)]
    cache = Path(pooch.os_cache("tinyadv")) / name
    mirrors = mirrors if download else ()
    return {file: _fetch_file(file, *expected, local, cache, mirrors) for file, expected in files.items()}


def _fetch_file(file: str, sha256: str, size: int, local: list[Path], cache: Path, mirrors: Sequence[str]) -> bytes:
    candidates = [folder / f"{file}{suffix}" for folder in local for suffix in ("", ".gz")]
    cached, tried = cache / file, {}
    for place in [*candidates, cached]:
        try:
            return _verified(_read(place, size), sha256, size)
        except OSError as error:
            tried[str(place)] = "no such file" if isinstance(error, FileNotFoundError) else _reason(error)
        except ValueError as error:
            if place is not cached:
                raise ValueError(f"{place} is damaged: {error}; replace or remove it") from error
            tried[str(place)] = f"damaged: {error}"

    try:
        for url in [f"{mirror}{file}.gz" for mirror in mirrors] * ROUNDS:
            cache.mkdir(parents=True, exist_ok=True)  # first, or the download would be for nothing if it fails
            if cached.is_dir():
                raise OSError("is a folder, where a file must be: remove it")
            try:
                content = _verified(_download(url, size), sha256, size)
            except (OSError, ValueError) as error:
                tried[url] = str(error)
            else:
                _write_atomically(cached, content)
                return content
    except OSError as error:
        tried[str(cached)] = f"cannot be written: {_reason(error)}"
    if not mirrors:
        tried["download"] = "not allowed (download=False)"
    raise DataUnavailable("\n".join([
        f"could not get {file}:", *(f"  {place}: {reason}" for place, reason in tried.items()),
        f"Put the files of this data set, plain or as .gz, into a folder named {cache.name}, and set the "
        f"environment variable TINYADV_DATA to the folder that holds {cache.name}/."]))


def _reason(error: BaseException) -> str:
    """Why it failed, in one short line: that of the first failure, not of what other libraries made of it."""
    while error.__context__ and not isinstance(error, ValueError | TimeoutError):
        error = error.__context__
    path = getattr(error, "filename", None)
    text = f"{error.strerror}: {path}" if isinstance(error, OSError) and path else str(error) or type(error).__name__
    return text.splitlines()[0][:200]


def decompressed(raw: bytes, largest: int, whole: bool = True) -> bytes:
    """``raw`` itself or, where it is gzip, what it unpacks to: ``largest`` bytes at most; the first ones, if not whole.

    Raises ValueError if that is damaged, or if there is more.
    """
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            content = file.read(largest + whole)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it is not a whole gzip file ({error})") from error
    if len(content) > largest:
        raise ValueError(f"it unpacks to more than the {largest:,} bytes that are right")
    return content


def _verified(raw: bytes, sha256: str, size: int) -> bytes:
    content = decompressed(raw, size)
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ValueError(f"its decompressed SHA-256 is {got}, expected {sha256}")
    return content


def _packed(size: int) -> int:
    """How large a file of that size can be as gzip, with room for a long name in it."""
    return size + size // 100 + 4096


def _read(path: Path, size: int) -> bytes:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("is not a file")
    if found.st_size > _packed(size):
        raise ValueError(f"it has {found.st_size:,} bytes, and the right one {size:,} before it is compressed")
    return path.read_bytes()


def _download(url: str, size: int) -> bytes:
    """What the server answers. A thread waits for it, and is left behind at the deadline: no timeout ends the rest.

    (The search for a name has none, and that between two packets starts anew with every byte.)
    """
    import requests  # which comes with pooch

    answer, failures, late = io.BytesIO(), [], threading.Event()
    largest, seconds = _packed(size), START + size / SLOWEST

    def receive() -> None:
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT) as response:
                response.raise_for_status()
                length = int(response.headers.get("content-length", 0))
                with tqdm(total=length, unit="B", unit_scale=True) as bar:
                    for chunk in response.iter_content(1 << 14):
                        if late.is_set() or answer.tell() + len(chunk) > largest:
                            raise ValueError(f"it sends more than the {largest:,} bytes that are right")
                        answer.write(chunk)
                        bar.update(len(chunk))
        except Exception as error:  # of requests, of urllib3, of a header that is no number
            failures.append(error)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    finally:
        late.set()  # also after Ctrl-C
    if thread.is_alive():
        raise TimeoutError(f"it took more than {seconds:,.0f} seconds")
    if failures:
        raise OSError(_reason(failures[0]))
    return answer.getvalue()


def _write_atomically(path: Path, content: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # on the same disk, as a rename must be
        part = Path(scratch) / path.name
        part.write_bytes(content)
        part.replace(path)
