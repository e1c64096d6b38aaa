"""GPTQ: a matrix is rounded one input at a time, and the inputs that are not rounded yet make good each error.

    H = 2/n · Σ x xᵀ          what the layer read in some text
    (H + λI)⁻¹ = Uᵀ U         U upper triangular
    for each input i:         q_i = the point of the grid next to w_i,  e = (w_i − q_i) / U_ii
                              w_j ← w_j − e · U_ij for all j > i

Made small is not what is wrong in the matrix but what is heard of it, Σ ‖(W − Ŵ) x‖².

    Hessian    H of one layer's inputs, and its U
    gptq       weight, Hessian, settings -> Rounded: the codes, and what is left of the error

Papers: Frantar et al. 2022, https://arxiv.org/abs/2210.17323; Hassibi & Stork 1992, "Optimal Brain Surgeon"
Chapter: docs/gptq.md
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from minipoet.checks import expect
from minipoet.models.linear import linear
from minipoet.quantization.grid import Codes, QuantConfig, fit, from_codes, to_codes

BLOCK = 128  # inputs after which the rest of the matrix is told of the errors, all at once: the paper's number


@dataclass(frozen=True)
class Rounded:
    """loss: the mean over tokens of ‖(W − Ŵ) x‖², damping included; damp: λ as a share of the mean of H's diagonal."""

    codes: Codes
    loss: float
    damp: float


class Hessian:
    """H = 2/n · Σ x xᵀ over the n tokens that a layer of `width` inputs has read: the second derivative of its error.

    Tokens are counted, not texts, so that a long text weighs as much as it was read. A factor of H changes no code,
    only the unit of the loss: here ½ tr(D H Dᵀ) is the mean over tokens of ‖D x‖².
    """

    def __init__(self, width: int, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32):
        self.matrix = torch.zeros(width, width, device=device, dtype=dtype)
        self.tokens = 0
        self._factor: tuple[tuple[float, bool], tuple[Tensor, Tensor, float]] | None = None

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Take in what the layer read, (..., in)."""
        rows = x.reshape(-1, len(self.matrix)).to(self.matrix.dtype)
        tokens = self.tokens + len(rows)
        columns = rows.t().contiguous()
        self.matrix.mul_(self.tokens / max(tokens, 1)).add_(linear(columns, columns), alpha=2 / max(tokens, 1))
        self.tokens, self._factor = tokens, None

    @property
    def dead(self) -> Tensor:
        """(in,) bool: inputs that were never anything but 0."""
        return self.matrix.diagonal() == 0

    def heard(self, matrix: Tensor) -> float:
        """The mean over tokens of ‖D x‖² for D = matrix, (out, in): how much of it the text makes heard."""
        D = matrix.detach().to(self.matrix.dtype)
        return 0.5 * float((linear(D, self.matrix) * D).sum())

    def factor(self, damp: float, act_order: bool = False) -> tuple[Tensor, Tensor, float]:
        """(order, U, damp): the inputs in the order of rounding, (in,); U in that order, (in, in); the damping it took.

        UᵀU = (H + λI)⁻¹ with λ = damp · mean of the diagonal. act_order: the loudest inputs first. If that is singular
        still, more damping is taken and a warning says so. Layers that share an input share its factor.
        Raises ValueError for an H that is not finite.
        """
        if self._factor is None or self._factor[0] != (damp, act_order):
            self._factor = (damp, act_order), self._make_factor(damp, act_order)
        return self._factor[1]

    def _make_factor(self, damp: float, act_order: bool) -> tuple[Tensor, Tensor, float]:
        if not bool(self.matrix.isfinite().all()):
            raise ValueError(
                "What the layer read is not finite (inf or nan), so it cannot be rounded by it: load the model in "
                "fp32, and see whether it writes sense."
            )
        n, diagonal = len(self.matrix), self.matrix.diagonal()
        alive = diagonal[~self.dead]
        size = float(alive.mean()) if len(alive) else 1.0
        order = torch.arange(n, device=diagonal.device)
        if act_order:
            order = diagonal.argsort(descending=True, stable=True)
        H = self.matrix[order][:, order]
        H.diagonal()[self.dead[order]] = size  # a dead input has nothing to do with others: any number makes H regular
        for more in (damp, *(tried for tried in (1e-4, 1e-3, 0.01, 0.1, 1.0) if tried > damp)):
            damped = H + more * size * torch.eye(n, device=H.device, dtype=H.dtype)
            U = _upper_factor_of_inverse(damped)
            if U is not None:
                break
        else:
            raise AssertionError("H is not a sum of squares")
        if more != damp:
            warnings.warn(
                f"The inputs of a layer are not independent ({self.tokens} tokens read, {n} inputs; H is singular): "
                f"it was damped by {more:g} of its mean instead of {damp:g}. More text for calibration would help.",
                stacklevel=4,
            )
        return order, U, more


def _upper_factor_of_inverse(H: Tensor) -> Tensor | None:
    """Upper triangular U with UᵀU = H⁻¹; None for an H that is singular, as far as can be told.

    H = M Mᵀ with M upper triangular is Cholesky's decomposition from the last row up: of H turned about. Then U = M⁻¹.
    (H⁻¹ itself, and a second decomposition, are not needed.)
    """
    turned, failed = torch.linalg.cholesky_ex(H.flip(0, 1))
    M = turned.flip(0, 1)
    least = len(H) * torch.finfo(H.dtype).eps * H.diagonal().max()  # below it a pivot is rounding noise
    if bool(failed) or bool((M.diagonal().square() <= least).any()):
        return None
    return torch.linalg.solve_triangular(M, torch.eye(len(H), device=H.device, dtype=H.dtype), upper=True)


@torch.no_grad()
def gptq(weight: Tensor, hessian: Hessian, config: QuantConfig, block: int = BLOCK) -> Rounded:
    """Round a matrix, (out, in), so that the text that the Hessian is of hears least of it.

    A group gets its scale when its first input's turn comes, from what the errors before have made of it; with
    config.static_groups before anything is rounded. config.desc_act: the loudest inputs first.
    block: the rest of the matrix is told of errors so many inputs at a time; it changes the time, not the result.
    Raises ValueError for a Hessian of another width.
    """
    expect(hessian, Hessian, "hessian", "a Hessian(width) that has read the inputs of the layer")
    n_in = weight.shape[1]
    if len(hessian.matrix) != n_in or not hessian.tokens:
        what = f"of {len(hessian.matrix)} inputs and {hessian.tokens} tokens"
        raise ValueError(
            f"A matrix of {n_in} inputs needs a Hessian of {n_in} inputs that has read text, got one {what}."
        )
    bits, size = config.bits, n_in if config.group_size == -1 else config.group_size
    order, U, damp = hessian.factor(config.damp_percent, config.desc_act)
    w = weight.detach().to(hessian.matrix.dtype).t().clone()  # (in, out): a row is what one input is multiplied by
    w[hessian.dead] = 0  # whatever it is multiplied by is not heard; 0 does not widen its group's grid
    grids = []  # (scale, zero) of each group
    if config.static_groups:
        grids = [_fit(w[first : first + size], config) for first in range(0, n_in, size)]
        group_of = order // size
    else:
        group_of = torch.arange(n_in, device=w.device) // size
    w, group, codes, loss = w[order], group_of.tolist(), torch.empty_like(w, dtype=torch.uint8), 0.0
    for start, end in _spans(n_in, size, block):
        errors = torch.empty_like(w[start:end])
        for i in range(start, end):
            if group[i] == len(grids):  # its first input, unless they are static
                grids.append(_fit(w[i : i + size], config))
            scale, zero = grids[group[i]]
            codes[i] = to_codes(w[i], scale, zero, config.bits)
            rounded = from_codes(codes[i], scale, zero)
            errors[i - start] = error = (w[i] - rounded) / U[i, i]
            w[i + 1 : end].addr_(U[i, i + 1 : end], error, alpha=-1)
        w[end:].addmm_(U[start:end, end:].t(), errors, alpha=-1)
        loss += 0.5 * float(errors.square().sum())
    back = order.argsort()  # where each input went
    scales, zeros = (torch.stack(part) for part in zip(*grids, strict=True))
    told = Codes(codes[back].t().contiguous(), scales, zeros.to(torch.uint8), group_of[back].int(), bits)
    return Rounded(told, loss, damp)


def _fit(rows: Tensor, config: QuantConfig) -> tuple[Tensor, Tensor]:
    """Scale and zero, (out,) each, of a group's rows, (inputs, out)."""
    return fit(rows.t(), config.bits, config.sym, config.mse)


def _spans(n_in: int, size: int, block: int) -> list[tuple[int, int]]:
    """(start, end) of the blocks. A group begins with a block or lies in one: it is up to date when it is fit."""
    width = block // size * size if size <= block else block
    starts = sorted({*range(0, n_in, width), *(range(0, n_in, size) if size > block else ())})
    return list(zip(starts, [*starts[1:], n_in], strict=True))
