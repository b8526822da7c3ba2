"""Files that PyTorch writes, read here, and the other way round."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyadv import models, nn

pytestmark = pytest.mark.parity

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool]
formats = pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 3}],
                                  ids=["zip", "legacy", "protocol 3"])


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        assert (ours[name].dtype, ours[name].shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(ours[name], expected)


@formats
def test_tensors_of_every_dtype_and_of_many_strides(tmp_path, options):
    torch.manual_seed(0)
    whole = torch.randn(6, 5, 4)
    state = {f"{dtype}": (torch.randn(2, 3) * 9).to(dtype) for dtype in DTYPES} | {
        "number": torch.tensor(7), "empty": torch.empty(0, 3), "whole": whole, "again": whole,
        "part": whole[1:5:2, 2:, ::3], "permuted": whole.permute(1, 2, 0)[:, 1], "transposed": whole[0].T,
        "parameter": torch.nn.Parameter(whole[0]), "flipped": whole.flip(0), "one": whole[2:3, 1:2, 0]}
    torch.save(state, tmp_path / "file.pth", **options)
    same(nn.load_pytorch(tmp_path / "file.pth"), state)


@formats
@pytest.mark.parametrize("wrapped", [
    lambda state: state, lambda state: {"state_dict": state, "epoch": 3, "best": 0.5, "name": "a", "nothing": None},
    lambda state: {"net": state, "acc": 91.5}, lambda state: {"model": state, "optimizer": {"state": {0: {
        "step": torch.tensor(1.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}},
    lambda state: OrderedDict((f"module.{name}", tensor) for name, tensor in state.items()),
    lambda state: {"n_averaged": torch.tensor(3)} | {f"module.{name}": tensor for name, tensor in state.items()},
])
def test_a_network_is_found_in_what_it_is_wrapped_in(tmp_path, options, wrapped):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 3, bias=False))
    torch.save(wrapped(network.state_dict()), tmp_path / "file.pth", **options)
    same(nn.load_pytorch(tmp_path / "file.pth"), network.state_dict())


@formats
@pytest.mark.parametrize("value", [
    torch.nn.Linear(2, 3), [torch.ones(2)], torch.ones(2), {"a": torch.ones(2), "b": 1}, {"a": np.float64(1)}, {},
    {"a": torch.ones(1).expand(5)}, {"a": torch.ones(2).to_sparse()}, {"a": torch.ones(2, dtype=torch.complex64)},
], ids=lambda value: str(type(value)))
def test_what_is_no_table_of_tensors_is_refused(tmp_path, options, value):
    torch.save(value, tmp_path / "file.pth", **options)
    with pytest.raises(nn.StateError, match=r"file\.pth: not a readable checkpoint, in \.pth or \.safetensors: "):
        nn.load_pytorch(tmp_path / "file.pth")


@formats
def test_logits_are_the_same_after_the_journey(tmp_path, options):
    model = models.resnet18(10, small_images=True, width=4, seed=1).eval()
    torch.save({name: torch.from_numpy(array) for name, array in model.state_dict().items()}, tmp_path / "file.pth",
               **options)
    other = models.resnet18(10, small_images=True, width=4, seed=2).eval()
    other.load_state_dict(nn.load_pytorch(tmp_path / "file.pth"))
    images = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    np.testing.assert_array_equal(other(images).data, model(images).data)


def test_the_package_safetensors_reads_what_is_written_here_and_writes_what_is_read(tmp_path):
    torch.manual_seed(0)
    state = {f"{dtype}": (torch.randn(2, 3) * 9).to(dtype) for dtype in DTYPES} | {
        "number": torch.tensor(7), "empty": torch.empty(0, 3), "ä.weight": torch.randn(3, 4, 5)}
    save_file(state, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    ours = nn.load_pytorch(tmp_path / "theirs.safetensors")
    same({name: ours[name] for name in state}, state)
    nn.save_safetensors(ours, tmp_path / "ours.safetensors")
    same(ours, {name: load_file(tmp_path / "ours.safetensors")[name] for name in ours})


@formats
def test_a_view_with_the_sign_changed_is_refused(tmp_path, options):
    torch.save({"w": torch.tensor([1 + 2j, 3 + 4j]).conj().imag}, tmp_path / "file.pth", **options)
    with pytest.raises(nn.StateError, match="marks beside its numbers"):
        nn.load_pytorch(tmp_path / "file.pth")
