"""torchvision's weights, from a server of our own: the real ones are too large for a test."""

import contextlib
import hashlib
import inspect
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from pytorch_files import legacy_file, zip_file

from tinyadv import models, nn
from tinyadv.data import DataUnavailable
from tinyadv.models import pretrained

NARROW = partial(models.densenet121, 10, small_images=True, growth=2)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """serve(content): publish it as the weights "TEST" of densenet121; returns the list of files asked for."""
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    monkeypatch.delenv("TINYADV_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    contents, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path in contents else 404)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(contents.get(self.path, b""))

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def publish(content, sha256=None):
            name = f"densenet121-{sha256 or hashlib.sha256(content).hexdigest()[:8]}.pth"
            contents[f"/models/{name}"] = content
            monkeypatch.setitem(pretrained.FILES, ("densenet121", "TEST"), (name, len(content) / 2**20))
            monkeypatch.setattr(pretrained, "URL", f"http://127.0.0.1:{server.server_port}/models/")
            return asked

        yield publish
        server.shutdown()
        thread.join()


def bits(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


@pytest.mark.parametrize("make", [zip_file, legacy_file])
def test_the_weights_are_downloaded_once_verified_and_set(serve, make):
    trained = NARROW(seed=5)
    asked = serve(make(trained.state_dict()))
    for _ in range(2):
        model = NARROW(weights="TEST")
        assert bits(model) == bits(trained) != bits(NARROW())
        assert not any(module.training for _, module in model.named_modules())
    assert len(asked) == 1


def test_a_file_of_another_digest_is_refused(serve):
    asked = serve(zip_file(NARROW(seed=5).state_dict()), sha256="01234567")
    with pytest.raises(DataUnavailable, match=r"its decompressed SHA-256 is .*, expected 01234567"):
        NARROW(weights="TEST")
    assert len(asked) == 3


def test_weights_that_do_not_fit_are_told(serve):
    serve(zip_file(NARROW(seed=5).state_dict()))
    with pytest.raises(nn.StateError, match=r"densenet121-\w{8}\.pth: the state does not fit (.|\n)*full width"):
        models.densenet121(7, small_images=True, growth=2, weights="TEST")


def test_a_local_folder_comes_first(serve, tmp_path, monkeypatch):
    content = zip_file(NARROW(seed=6).state_dict())
    asked = serve(content)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / pretrained.FILES["densenet121", "TEST"][0]).write_bytes(content)
    monkeypatch.setenv("TINYADV_DATA", str(tmp_path))
    assert bits(NARROW(weights="TEST")) == bits(NARROW(seed=6))
    assert not asked


@pytest.mark.parametrize("name", sorted({network for network, _ in pretrained.FILES}))
def test_the_docstring_names_the_file_its_size_and_the_weights(name):
    text = inspect.getdoc(getattr(models, name))
    for (network, weights), (file, size) in pretrained.FILES.items():
        if network == name:
            assert f'"{weights}"' in text
            assert f"{pretrained.URL}{file} ({size} MiB" in text
            assert all(part in text for part in ("SHA-256", "bilinear, antialiased", "224x224", "0.485, 0.456, 0.406"))
    with pytest.raises(ValueError, match=r"weights must be None or one of IMAGENET1K_V1.*; got 'V7'"):
        pretrained.loaded(nn.Sequential(), name, "V7")


def test_the_sizes_are_those_of_the_networks(monkeypatch):
    def undrawn(shape, rng):
        return np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)

    monkeypatch.setattr(nn.init, "INITIALIZERS", dict.fromkeys(nn.init.INITIALIZERS, undrawn))
    for (network, _), (_, size) in pretrained.FILES.items():
        numbers = sum(p.size for p in getattr(models, network)().parameters())
        assert 4 * numbers / 2**20 == pytest.approx(size, rel=0.02)  # and the running statistics, and the names
