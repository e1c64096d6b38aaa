"""The three recurrent cells, one step forward and one step back, written out.

A cell gets x = W_x·input + b_x of its place, which knows nothing of the past, and r = W_h·h + b_h, which knows nothing
of the present, and makes the next state of them. Coming back, it turns the gradient of the state after the step into
those of x, of r, and of the state before, as far as that does not go through r.

    Elman   h' = tanh(x + r)                                          Elman 1990
    GRU     h' = (1 − z)·n + z·h,  n = tanh(x_n + reset·r_n)          Cho et al. 2014, as in cuDNN and torch.nn
    LSTM    c' = f·c + i·g,  h' = o·tanh(c')                          Hochreiter & Schmidhuber 1997, Gers et al. 2000

The gates stand in one matrix in the order of torch.nn: reset, update, new; input, forget, cell, output.
`recurrence.py` takes the steps, forward through a text and back through it. Chapter: docs/cells.md
"""

from __future__ import annotations

import torch
from torch import Tensor

State = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM: (B, C) each


class Elman:
    """One layer of what was read and what was remembered, squeezed."""

    gates, states, kept = 1, 1, 1  # vectors of C numbers: in x and r; in the state; kept for the way back
    summed = True  # of x and r only the sum counts, so they have one gradient, and grad_r is grad_x

    @staticmethod
    def forward(x: Tensor, r: Tensor, state: State, new: State, kept: Tensor) -> None:
        """Fill the `new` state, C numbers a text in each part, and what `backward` needs in `kept`."""
        new[0].copy_(torch.add(x, r, out=kept).tanh_())

    @staticmethod
    def backward(grad: State, state: State, kept: Tensor, grad_x: Tensor, grad_r: Tensor) -> State:
        """Fill grad_x and grad_r; return the gradient of the state before, but for what goes through r."""
        torch.mul(grad[0], 1 - kept * kept, out=grad_x)
        return (torch.zeros_like(kept),)


class GRU:
    """The update gate z says how much stays as it was; the reset gate, how much of the past the new part sees."""

    gates, states, kept = 3, 1, 4
    summed = False  # the reset gate stands between

    @staticmethod
    def forward(x: Tensor, r: Tensor, state: State, new: State, kept: Tensor) -> None:
        """As for `Elman`; kept are reset, z, n, r_n."""
        (h,), C = state, state[0].shape[1]
        reset, z, n, r_n = kept.chunk(GRU.kept, 1)
        torch.add(x[:, : 2 * C], r[:, : 2 * C], out=kept[:, : 2 * C]).sigmoid_()
        r_n.copy_(r[:, 2 * C :])
        torch.addcmul(x[:, 2 * C :], reset, r_n, out=n).tanh_()
        torch.lerp(n, h, z, out=new[0])

    @staticmethod
    def backward(grad: State, state: State, kept: Tensor, grad_x: Tensor, grad_r: Tensor) -> State:
        """As for `Elman`."""
        (h,), (dh,), C = state, grad, state[0].shape[1]
        reset, z, n, r_n = kept.chunk(GRU.kept, 1)
        dn = dh * (1 - z) * (1 - n * n)  # of what stands inside the tanh
        grad_x[:, 2 * C :] = dn
        torch.mul(dn, reset, out=grad_r[:, 2 * C :])
        torch.mul(dn * r_n, reset * (1 - reset), out=grad_x[:, :C])
        torch.mul(dh * (h - n), z * (1 - z), out=grad_x[:, C : 2 * C])
        grad_r[:, : 2 * C] = grad_x[:, : 2 * C]
        return (dh * z,)


class LSTM:
    """A memory c that is only added to and forgotten from: through f ≈ 1 its gradient comes back undiminished."""

    gates, states, kept = 4, 2, 5
    summed = True

    @staticmethod
    def forward(x: Tensor, r: Tensor, state: State, new: State, kept: Tensor) -> None:
        """As for `Elman`; kept are i, f, g, o, tanh c'."""
        C = state[0].shape[1]
        i, f, g, o, tanh_c = kept.chunk(LSTM.kept, 1)
        torch.add(x, r, out=kept[:, : 4 * C])
        kept[:, : 2 * C].sigmoid_()
        g.tanh_()
        o.sigmoid_()
        torch.addcmul(f * state[1], i, g, out=new[1])
        torch.tanh(new[1], out=tanh_c)
        torch.mul(o, tanh_c, out=new[0])

    @staticmethod
    def backward(grad: State, state: State, kept: Tensor, grad_x: Tensor, grad_r: Tensor) -> State:
        """As for `Elman`."""
        (dh, dc), (_, c), C = grad, state, state[0].shape[1]
        i, f, g, o, tanh_c = kept.chunk(LSTM.kept, 1)
        dc = torch.addcmul(dc, dh * o, 1 - tanh_c * tanh_c)
        torch.mul(dc, g, out=grad_x[:, :C])
        torch.mul(dc, c, out=grad_x[:, C : 2 * C])
        torch.mul(dc * i, 1 - g * g, out=grad_x[:, 2 * C : 3 * C])
        torch.mul(dh, tanh_c, out=grad_x[:, 3 * C :])
        for first, gates in ((0, kept[:, : 2 * C]), (3 * C, o)):  # of what stands inside the sigmoids
            grad_x[:, first : first + gates.shape[1]] *= gates * (1 - gates)
        return (torch.zeros_like(dh), dc * f)


Cell = type[Elman] | type[GRU] | type[LSTM]
