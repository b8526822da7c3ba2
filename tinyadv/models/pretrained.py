"""torchvision's weights: downloaded once, verified, kept in the user's cache, and read without running anything."""

from __future__ import annotations

import io
from typing import TypeVar

from tinyadv.data.fetch import fetch
from tinyadv.nn import Module, StateError
from tinyadv.nn.pytorch import read_weights

URL = "https://download.pytorch.org/models/"
FILES = {  # network, torchvision's name of the weights: the file's name, with the start of its SHA-256, and its MiB
    ("resnet18", "IMAGENET1K_V1"): ("resnet18-f37072fd.pth", 44.7),
    ("resnet50", "IMAGENET1K_V1"): ("resnet50-0676ba61.pth", 97.8),
    ("resnet50", "IMAGENET1K_V2"): ("resnet50-11ad3fa6.pth", 97.8),
    ("densenet121", "IMAGENET1K_V1"): ("densenet121-a639ec97.pth", 30.8),
    ("vgg16", "IMAGENET1K_V1"): ("vgg16-397923af.pth", 527.8),
    ("vgg16_bn", "IMAGENET1K_V1"): ("vgg16_bn-6c64b313.pth", 527.9),
}
Network = TypeVar("Network", bound=Module)


def loaded(model: Network, network: str, weights: str | None) -> Network:
    """The model with torchvision's weights of that name, in evaluation mode; as it is if the name is None.

    The file is looked for in $TINYADV_DATA/torchvision and in the user's cache, and is then downloaded.
    Raises ValueError for an unknown name or a damaged file, DataUnavailable if no source has it.
    """
    if weights is None:
        return model
    known = [name for each, name in FILES if each == network]
    if weights not in known:
        raise ValueError(f"weights must be None or one of {', '.join(known)}; got {weights!r}")
    file, size = FILES[network, weights]
    start_of_sha256 = file.removesuffix(".pth").rpartition("-")[2]
    content = fetch("torchvision", {file: (start_of_sha256, round((size + 0.1) * 2**20))}, [URL], suffix="")[file]
    try:
        model.load_state_dict(read_weights(io.BytesIO(content)))
    except ValueError as error:
        raise StateError(f"{file}: {error}: torchvision's weights are of 1000 classes, 224x224 images and the full "
                         "width") from error
    model.eval()
    return model
