"""Our Adafactor against that of transformers, on random tensors and gradients of all sizes (seeds: live_support)."""

import random

import pytest
import torch

pytest.importorskip("transformers")

from live_support import SEEDS
from transformers.optimization import Adafactor

from minipoet.training import TrainSettings
from minipoet.training.optimizers import make_optimizers


class Tensors(torch.nn.Module):
    """Tensors of random shapes and sizes."""

    def __init__(self, seed: int):
        super().__init__()
        draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        shapes = [(draw.randint(2, 40), draw.randint(1, 40)) for _ in range(4)] + [(draw.randint(2, 40),)]
        sizes = (0.0, 1e-4, 0.05, 1.0, 30.0)
        self.all = torch.nn.ParameterList(
            torch.randn(shape, generator=generator) * size for shape, size in zip(shapes, sizes, strict=True)
        )


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])  # of the gradients
@pytest.mark.parametrize("seed", SEEDS)
def test_steps_are_those_of_transformers_with_scaled_parameters(seed: int, size: float) -> None:
    ours, theirs, generator = Tensors(seed), Tensors(seed), torch.Generator().manual_seed(seed + 1)
    (optimizer,) = make_optimizers(ours, TrainSettings(steps=1, lr=1e-3, optimizer="adafactor"))
    other = Adafactor(theirs.parameters(), lr=1e-3, scale_parameter=True, relative_step=False)
    for step in range(12):
        before = [p.detach().clone() for p in ours.parameters()]
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator) * size * 0.7**step  # smaller ones are not clipped
            p.grad[0] = 0.0  # a token that was not read
            q.grad, q.data = p.grad.clone(), p.detach().clone()
        optimizer.step()
        other.step()
        for p, q, start in zip(ours.parameters(), theirs.parameters(), before, strict=True):
            moved = (q.detach() - start).norm()
            assert moved > 0
            assert (p.detach() - q.detach()).norm() < 1e-3 * moved + 1e-6 * start.norm()
