import contextlib
import gzip
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from tinyadv.data import DataUnavailable
from tinyadv.data.fetch import ROUNDS, fetch
from tinyadv.data.mnist import MIRRORS

CONTENT = b"the pixels" * 1000
GOOD, WRONG = gzip.compress(CONTENT, mtime=0), gzip.compress(b"other pixels", mtime=0)
HASH = hashlib.sha256(CONTENT).hexdigest()
WRONG_HASH = hashlib.sha256(b"other pixels").hexdigest()
FILES = {"images": (HASH, len(CONTENT))}


def body(content, sent=None):
    """A web server's answer: ``content``, or only its first ``sent`` bytes before the connection drops."""
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:sent])
    return answer


def missing(handler):
    handler.send_error(404)


def stalled(handler):
    """The right content, but only after longer than a client should wait."""
    if not handler.server.stop.wait(10):
        body(GOOD)(handler)


def drip(handler):
    """A byte now and then: no two are far enough apart for a timeout."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.stop.wait(0.05):
        handler.wfile.write(b".")


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.stop.is_set():
        handler.wfile.write(bytes(4096))


BOMB = gzip.compress(bytes(30_000_000))
FAILURES = {"missing": missing, "wrong": body(WRONG), "empty": body(b""), "page": body(b"<html>"),
            "dropped": body(GOOD, sent=len(GOOD) // 2), "stalled": stalled, "drip": drip,
            "endless": endless, "bomb": body(BOMB)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the set "tiny" in a cache that is not the user's; no other folder is known."""
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "caches" / project)
    monkeypatch.delenv("TINYADV_DATA", raising=False)
    return tmp_path / "caches" / "tinyadv" / "tiny"


@pytest.fixture
def serve(monkeypatch):
    """serve(a=[...], b=[...]): mirrors a and b, which give these answers in turn; and the log of requests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answers, requests = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            mirror, file = self.path[1:].split("/")
            requests.append((mirror, file))
            with contextlib.suppress(ConnectionError):  # a client that has had enough
                answers[mirror].pop(0)(self)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.stop = threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def start(**answers_of):
            answers.update(answers_of)
            urls = [f"http://127.0.0.1:{server.server_port}/{mirror}/" for mirror in answers_of]
            return SimpleNamespace(mirrors=urls, requests=requests)

        yield start
        server.stop.set()
        server.shutdown()
        thread.join()


def files_under(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_download_is_verified_cached_and_not_repeated(cache, serve, capsys):
    web = serve(a=[body(GOOD)])
    assert fetch("tiny", FILES, web.mirrors) == {"images": CONTENT}
    assert web.requests == [("a", "images.gz")]
    assert (cache / "images").read_bytes() == CONTENT
    assert "100%" in capsys.readouterr().err  # the progress bar
    assert fetch("tiny", FILES, web.mirrors) == {"images": CONTENT}
    assert fetch("tiny", FILES, web.mirrors, download=False) == {"images": CONTENT}
    assert len(web.requests) == 1


def test_mirrors_may_compress_differently_or_not_at_all(cache, serve):
    for content in (gzip.compress(CONTENT, 1, mtime=7), CONTENT):
        assert fetch("tiny", FILES, serve(a=[body(content)]).mirrors) == {"images": CONTENT}
        (cache / "images").unlink()


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_after_a_failure_the_next_mirror_is_asked(cache, serve, failure, monkeypatch):
    monkeypatch.setattr("tinyadv.data.fetch.TIMEOUT", (5, 1))
    monkeypatch.setattr("tinyadv.data.fetch.START", 1.5)
    web = serve(a=[failure], b=[body(GOOD)])
    assert fetch("tiny", FILES, web.mirrors) == {"images": CONTENT}
    assert [mirror for mirror, _ in web.requests] == ["a", "b"]
    assert files_under(cache) == ["images"]


@pytest.mark.parametrize("failure", ["missing", "wrong", "dropped"])
def test_a_mirror_that_failed_is_asked_again(cache, serve, failure):
    web = serve(a=[FAILURES[failure], FAILURES[failure], body(GOOD)])
    assert fetch("tiny", FILES, web.mirrors) == {"images": CONTENT}
    assert len(web.requests) == 3


def test_failure_lists_every_place_and_reason_and_leaves_nothing_behind(cache, serve, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYADV_DATA", str(tmp_path / "local"))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    web = serve(a=[missing] * ROUNDS, b=[body(WRONG)] * ROUNDS,
                c=[FAILURES["dropped"]] * ROUNDS)
    with pytest.raises(DataUnavailable) as caught:
        fetch("tiny", FILES, [*web.mirrors, refused])
    a, b, c = web.mirrors
    for line in [
        f"{tmp_path / 'local' / 'tiny' / 'images'}: no such file",
        f"{tmp_path / 'local' / 'tiny' / 'images.gz'}: no such file",
        f"{cache / 'images'}: no such file",
        f"{a}images.gz: 404",
        f"{b}images.gz: its decompressed SHA-256 is {WRONG_HASH}, expected {HASH}",
        f"{c}images.gz: ",
        f"{refused}images.gz: ",
        "set the environment variable TINYADV_DATA to the folder that holds tiny/",
    ]:
        assert line in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert len(web.requests) == 3 * ROUNDS
    assert list(cache.iterdir()) == []


def test_a_file_that_came_is_kept_when_another_did_not(cache, serve):
    web = serve(a=[body(GOOD), *[missing] * ROUNDS])
    with pytest.raises(DataUnavailable, match="could not get labels"):
        fetch("tiny", FILES | {"labels": ("0" * 64, 9)}, web.mirrors)
    assert [path.name for path in cache.iterdir()] == ["images"]


def test_without_download_nothing_is_asked_or_written(cache, serve):
    web = serve(a=[body(GOOD)])
    with pytest.raises(DataUnavailable, match="download=False"):
        fetch("tiny", FILES, web.mirrors, download=False)
    assert web.requests == []
    assert not cache.exists()


@pytest.mark.parametrize("damaged", [
    b"", CONTENT[:-1], GOOD[:-9], GOOD[:2], GOOD[:20] + bytes(9) + GOOD[29:], WRONG,
], ids=["empty", "cut", "gzip cut", "gzip magic", "gzip overwritten", "other"])
def test_a_damaged_file_in_the_cache_is_downloaded_again(cache, serve, damaged):
    cache.mkdir(parents=True)
    (cache / "images").write_bytes(damaged)
    with pytest.raises(DataUnavailable, match="images: damaged: it"):
        fetch("tiny", FILES, [], download=False)
    assert fetch("tiny", FILES, serve(a=[body(GOOD)]).mirrors) == {"images": CONTENT}
    assert (cache / "images").read_bytes() == CONTENT


def test_a_download_that_cannot_be_stored_leaves_nothing_behind(cache, serve, monkeypatch):
    def full(path, content):
        path.touch()
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        fetch("tiny", FILES, serve(a=[body(GOOD)]).mirrors)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("file", "content"), [("images", CONTENT), ("images.gz", GOOD)], ids=["plain", "gz"])
@pytest.mark.parametrize("by_environment", [True, False])
def test_a_local_file_comes_before_cache_and_mirrors(cache, serve, tmp_path, monkeypatch, file, content,
                                                     by_environment):
    local = tmp_path / "data" / "tiny"
    local.mkdir(parents=True)
    (local / file).write_bytes(content)
    web = serve(a=[body(GOOD)])
    if by_environment:
        monkeypatch.setenv("TINYADV_DATA", str(tmp_path / "data"))
    assert fetch("tiny", FILES, web.mirrors, None if by_environment else local) == {"images": CONTENT}
    assert web.requests == []
    assert not cache.exists()


def test_a_path_replaces_the_environment(cache, tmp_path, monkeypatch):
    for folder, content in [("data/tiny", b"damaged"), ("mine", CONTENT)]:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "images").write_bytes(content)
    monkeypatch.setenv("TINYADV_DATA", str(tmp_path / "data"))
    assert fetch("tiny", FILES, [], str(tmp_path / "mine")) == {"images": CONTENT}


@pytest.mark.parametrize(("file", "content", "reason"), [
    ("images", b"other pixels", f"SHA-256 is {WRONG_HASH}, expected {HASH}"),
    ("images.gz", WRONG, f"SHA-256 is {WRONG_HASH}, expected {HASH}"),
    ("images.gz", GOOD[:-9], "it is not a whole gzip file"),
], ids=["plain", "gzip", "gzip cut"])
def test_a_damaged_local_file_is_an_error_and_not_downloaded(cache, serve, tmp_path, file, content, reason):
    (tmp_path / file).write_bytes(content)
    web = serve(a=[body(GOOD)])
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / file))} is damaged: .*{reason}"):
        fetch("tiny", FILES, web.mirrors, tmp_path)
    assert web.requests == []


def test_no_answer_takes_longer_or_more_memory_than_the_file_may(cache, serve, monkeypatch):
    monkeypatch.setattr("tinyadv.data.fetch.START", 0.5)
    web = serve(**{name: [FAILURES[name]] * ROUNDS for name in ("drip", "endless", "bomb")})
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(DataUnavailable) as caught:
            fetch("tiny", FILES, web.mirrors)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # the web client's own
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 0.5 * ROUNDS + 3
    drip, endless, bomb = web.mirrors
    assert f"{drip}images.gz: it took more than 1 seconds" in str(caught.value)
    assert f"{endless}images.gz: it sends more than the 14,196 bytes that are expected" in str(caught.value)
    assert f"{bomb}images.gz: it sends more than" in str(caught.value)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("spoil", [
    lambda cached: cached.mkdir(parents=True),
    lambda cached: (cached.parent.parent.mkdir(parents=True), cached.parent.write_bytes(b"")),
    lambda cached: cached.parents[2].write_bytes(b""),
    lambda cached: (cached.parent.parent.mkdir(parents=True), cached.parent.symlink_to("nowhere")),
], ids=["folder for the file", "file for the folder", "file for the cache", "dangling link for the folder"])
def test_a_cache_that_cannot_be_used_is_said_in_one_line_before_a_download(cache, serve, spoil, tmp_path):
    spoil(cache / "images")
    web = serve(a=[body(GOOD)])
    with pytest.raises(DataUnavailable, match=rf"\n  {re.escape(str(cache / 'images'))}: cannot be written: .*\nPut"):
        fetch("tiny", FILES, web.mirrors)
    assert web.requests == []
    with pytest.raises(DataUnavailable, match=r"download=False"):
        fetch("tiny", FILES, web.mirrors, download=False)


def test_a_dangling_link_in_the_cache_is_replaced(cache, serve):
    cache.mkdir(parents=True)
    (cache / "images").symlink_to("nowhere")
    assert fetch("tiny", FILES, serve(a=[body(GOOD)]).mirrors) == {"images": CONTENT}
    assert (cache / "images").read_bytes() == CONTENT


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)],
                         ids=["folder", "fifo", "dangling link"])
@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_what_is_no_file_is_passed_over_and_told(cache, tmp_path, make, name):
    make(tmp_path / name)
    with pytest.raises(DataUnavailable, match=rf"\n  {re.escape(str(tmp_path / name))}: (is not a|no such) file\n"):
        fetch("tiny", FILES, [], tmp_path)


def test_a_local_file_that_is_too_large_is_not_read(cache, tmp_path):
    with (tmp_path / "images").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"is damaged: it has 1,099,511,627,776 bytes, more than the expected"):
        fetch("tiny", FILES, [], tmp_path)
    (tmp_path / "images").write_bytes(BOMB)
    with pytest.raises(ValueError, match=r"is damaged: it has 29,\d\d\d bytes|decompresses to more than the 10,000"):
        fetch("tiny", FILES, [], tmp_path)


def test_each_mirror_has_one_line(cache):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    with pytest.raises(DataUnavailable) as caught:
        fetch("tiny", FILES, [refused, "http://nowhere.invalid/"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert lines[2] == f"  {refused}images.gz: [Errno 111] Connection refused"
    assert all(len(line) < 100 for line in lines[2:4])
    assert not any("urllib3" in line or "HTTPConnection" in line for line in lines)


def test_the_mirrors_are_asked_over_https():
    assert len(MIRRORS) > 1
    assert all(mirror.startswith("https://") for mirror in MIRRORS)


def test_a_notebook_without_widgets_gets_no_warning():
    """tqdm takes a process with this module for a notebook."""
    code = ("import sys; from tinyadv.data.fetch import user_cache; "
            "sys.modules['IPython.utils._process_emscripten'] = sys; user_cache('tiny')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert (done.returncode, done.stderr) == (0, "")


def test_the_home_folder_may_be_named_by_a_tilde(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "images").write_bytes(CONTENT)
    assert fetch("tiny", FILES, [], path="~/mine", download=False) == {"images": CONTENT}
