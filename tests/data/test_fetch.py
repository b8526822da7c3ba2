import gzip
import hashlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from tinyadv.data import DataUnavailable
from tinyadv.data.fetch import ROUNDS, fetch

CONTENT = b"the pixels" * 1000
GOOD, WRONG = gzip.compress(CONTENT, mtime=0), gzip.compress(b"other pixels", mtime=0)
HASH = hashlib.sha256(CONTENT).hexdigest()
WRONG_HASH = hashlib.sha256(b"other pixels").hexdigest()
FILES = {"images": HASH}


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


FAILURES = {"missing": missing, "wrong": body(WRONG), "empty": body(b""), "page": body(b"<html>"),
            "dropped": body(GOOD, sent=len(GOOD) // 2), "stalled": stalled}


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
        fetch("tiny", FILES | {"labels": "0" * 64}, web.mirrors)
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
