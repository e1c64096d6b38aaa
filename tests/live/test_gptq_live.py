"""Packed layers against AutoGPTQ's own, bit by bit, on fresh random weights (seeds: live_support).

    pip install --no-deps auto-gptq==0.7.1      in an environment that has transformers

Only its files of plain PyTorch are used, each by itself: the package as a whole wants CUDA and an old transformers.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
if (_found := importlib.util.find_spec("auto_gptq")) is None or not _found.submodule_search_locations:
    pytest.skip("auto_gptq is not installed", allow_module_level=True)

from live_support import SEEDS, generator

from minipoet.quantization import GPTQLinear, QuantConfig, round_to_nearest
from minipoet.quantization.grid import fit

ROOT = Path(_found.submodule_search_locations[0])


def theirs(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(seed: int, n_out: int = 96, n_in: int = 128) -> torch.Tensor:
    return torch.randn(n_out, n_in, generator=generator(seed)) * 0.1 + 0.01


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_words_zeros_and_products_are_theirs(seed, bits, sym, order):
    group = [32, 64, 128][seed % 3]
    codes = round_to_nearest(weights(seed), QuantConfig(bits=bits, group_size=group, sym=sym))
    if order:
        codes.g_idx.copy_(codes.g_idx[torch.randperm(128, generator=generator(seed))])
    plain = nn.Linear(128, 96)
    plain.weight.data, plain.bias.data = codes.dense().contiguous(), torch.randn(96, generator=generator(seed))
    their = theirs("nn_modules/qlinear/qlinear_cuda.py").QuantLinear(bits, group, 128, 96, True)
    their.pack(plain, codes.scales.t().float(), codes.zeros.t().float(), codes.g_idx)
    ours = GPTQLinear.of(codes, plain.bias)
    for part in ("qweight", "qzeros", "g_idx"):
        assert torch.equal(getattr(ours, part), getattr(their, part)), part
    x = torch.randn(3, 128, generator=generator(seed))
    expected = their(x)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
    read = GPTQLinear(bits, their.qweight, their.qzeros, their.scales.half(), their.g_idx, their.bias)
    torch.testing.assert_close(read(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mse", [False, True])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_grid_is_theirs_up_to_the_rounding_of_its_scale(seed, bits, sym, mse):
    rows = weights(seed)
    their = theirs("quantization/quantizer.py").Quantizer()
    their.configure(bits, perchannel=True, sym=sym, mse=mse)
    their.find_params(rows, weight=True)
    scale, zero = fit(rows, bits, sym, mse)
    same = (scale - their.scale[:, 0]).abs() <= 1e-3 * scale
    assert same.float().mean() > (0.8 if mse else 0.99)  # a search may end on the other of two ranges as good
    assert (zero - their.zero[:, 0]).abs()[same].max() <= 1
