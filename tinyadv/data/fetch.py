"""The files of a public data set: from a local folder, the user's cache, or downloaded; always verified."""

import gzip
import hashlib
import io
import os
import stat
import tempfile
import threading
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

ROUNDS = 3  # how often all mirrors are tried in turn, so that a retry asks another server first
TIMEOUT = (10, 30)  # seconds to connect, and between two packets
START, SLOWEST = 60.0, 50_000  # the deadline of a download: START seconds, and 1 more for every SLOWEST bytes


class DataUnavailable(OSError):
    """A data set is not on this machine and no mirror could deliver it; the message lists what was tried."""


def fetch(name: str, files: Mapping[str, tuple[str, int]], mirrors: Sequence[str],
          path: str | os.PathLike[str] | None = None, download: bool = True, suffix: str = ".gz") -> dict[str, bytes]:
    """The decompressed contents of the ``files`` of the data set ``name``, by file name.

    files: {file name: (SHA-256 in hexadecimal, or its start, and size in bytes)}, both of the decompressed file,
    because mirrors compress differently. Nothing larger is read, received or decompressed.
    mirrors: URL prefixes; each serves a file as ``<prefix><file name><suffix>``.
    path: a local folder to search first, for plain files or .gz; by default ``$TINYADV_DATA/<name>``.
    download: whether to download a file that is neither there nor in the user's cache; it is put into the cache.

    Raises ValueError for a damaged file in the local folder, and DataUnavailable if every source failed or the
    cache cannot be used. A damaged file in the cache is downloaded again.
    """
    root = os.environ.get("TINYADV_DATA")
    if path is None and root:
        path = Path(root).expanduser() / name
    local = [] if path is None else [Path(path).expanduser()]
    cache = user_cache(name)
    urls = {file: [f"{mirror}{file}{suffix}" for mirror in mirrors if download] for file in files}
    return {file: _fetch_file(file, *expected, local, cache, urls[file]) for file, expected in files.items()}


def user_cache(name: str) -> Path:
    """The folder for the data set ``name`` in the user's cache."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pooch looks for the progress bars of notebooks, and warns if there are none
        import pooch  # only now: it takes longer than all of tinyadv
    return Path(pooch.os_cache("tinyadv")) / name


def _fetch_file(file: str, sha256: str, size: int, local: list[Path], cache: Path, urls: Sequence[str]) -> bytes:
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
        for url in [*urls] * ROUNDS:
            cache.mkdir(parents=True, exist_ok=True)  # first: if this fails, a download would be wasted
            if cached.is_dir():
                raise OSError("is a folder, where a file must be: remove it")
            try:
                content = _verified(receive(url, size), sha256, size)
            except (OSError, ValueError) as error:
                tried[url] = str(error)
            else:
                write_atomically(cached, content)
                return content
    except OSError as error:
        tried[str(cached)] = f"cannot be written: {_reason(error)}"
    if not urls:
        tried["download"] = "not allowed (download=False)"
    raise DataUnavailable("\n".join([
        f"could not get {file}:", *(f"  {place}: {reason}" for place, reason in tried.items()),
        f"Put the files of this data set, plain or as .gz, into a folder named {cache.name}, and set the "
        f"environment variable TINYADV_DATA to the folder that holds {cache.name}/."]))


def _reason(error: BaseException) -> str:
    """Why it failed, in one short line: the message of the error that came first, not of those that wrap it."""
    while error.__context__ and not isinstance(error, ValueError | TimeoutError):
        error = error.__context__
    path = getattr(error, "filename", None)
    text = f"{error.strerror}: {path}" if isinstance(error, OSError) and path else str(error) or type(error).__name__
    return text.splitlines()[0][:200]


def decompressed(raw: bytes, largest: int, whole: bool = True) -> bytes:
    """The decompressed bytes if ``raw`` is a gzip file, otherwise ``raw``; only the first ``largest`` if not ``whole``.

    Raises ValueError for damaged gzip, and if a ``whole`` file decompresses to more than ``largest`` bytes.
    """
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    limit, unpacked = largest + whole, io.BytesIO()
    unpacked.seek(min(limit, int.from_bytes(raw[-4:], "little") + 1))  # the size, as gzip says it at its end
    unpacked.write(b"0")  # room for all of it at once, or it would be copied as it grows
    unpacked.seek(0)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            while piece := file.read(min(1 << 16, limit - unpacked.tell())):
                unpacked.write(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it is not a whole gzip file ({error})") from error
    if unpacked.tell() > largest:
        raise ValueError(f"it decompresses to more than the {largest:,} bytes that are expected")
    unpacked.truncate()
    return unpacked.getvalue()


def _verified(raw: bytes, sha256: str, size: int) -> bytes:
    content = decompressed(raw, size)
    got = hashlib.sha256(content).hexdigest()
    if not got.startswith(sha256):
        raise ValueError(f"its decompressed SHA-256 is {got}, expected {sha256}")
    return content


def _packed(size: int) -> int:
    """The largest size that a file of `size` bytes can have as gzip, with a long name in its header."""
    return size + size // 100 + 4096


def _read(path: Path, size: int) -> bytes:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("is not a file")
    if found.st_size > _packed(size):
        raise ValueError(f"it has {found.st_size:,} bytes, more than the expected file, {size:,} decompressed")
    return path.read_bytes()


def receive(url: str, size: int) -> bytes:
    """The bytes that the server sends for a file of `size` bytes; OSError if it sends more, or takes too long.

    A thread receives them, so that the whole download can have a deadline. (No timeout of requests does that: looking
    up the host name has none, and that of reading restarts at each packet.)
    """
    import requests  # it comes with pooch
    from tqdm import tqdm

    answer, failures, late = io.BytesIO(), [], threading.Event()
    largest, seconds = _packed(size), START + size / SLOWEST

    def work() -> None:
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT) as response:
                response.raise_for_status()
                length = int(response.headers.get("content-length", 0))
                with tqdm(total=length, unit="B", unit_scale=True) as bar:
                    for chunk in response.iter_content(1 << 14):
                        if late.is_set() or answer.tell() + len(chunk) > largest:
                            raise ValueError(f"it sends more than the {largest:,} bytes that are expected")
                        answer.write(chunk)
                        bar.update(len(chunk))
        except Exception as error:  # from requests, urllib3, or a content-length that is not a number
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
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


def write_atomically(path: Path, content: bytes) -> None:
    """Write the file, which is whole or not there at all."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # on the same disk, as a rename must be
        part = Path(scratch) / path.name
        part.write_bytes(content)
        part.replace(path)
