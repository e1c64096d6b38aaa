"""Recurrent layers through time: minipoet's loops in Python beside torch.nn's RNN, GRU and LSTM.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_recurrent.py
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_recurrent.py --cells LSTM --rounds 15

layers      forward and backward of a stack, as both sides have it: 2 layers of 256, 32 texts of 128 places.
model       a whole step of training a language model over 150 letters: embedding, layers, head, loss, backward. Theirs
            is nn.Embedding, the same layers, nn.Linear, cross_entropy.
writing     reading one token with the state of the one before, new tokens a second, of one text and of eight; theirs
            calls the same modules.

Both sides have the same weights; outputs and losses are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
import torch.nn.functional as F
from bench_support import Row, alternate, count, parser, report, start, told
from torch import Tensor, nn

from minipoet.models.rnn import GRU, LSTM, RNN, RecurrentModel, RNNConfig
from minipoet.training.loss import cross_entropy

MODELS: dict[str, type[RecurrentModel]] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}
AIMS = {("LSTM", "layers"): "0.67"}  # at most 1.5 times as long


def arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=9)
    add = options.add_argument
    add("--cells", nargs="+", default=list(MODELS), choices=list(MODELS))
    add("--width", type=count, default=256, help="of embedding and state (default: %(default)s)")
    add("--layers", type=count, default=2, help="(default: %(default)s)")
    add("--length", type=count, default=128, help="places of a text (default: %(default)s)")
    add("--rows", type=count, default=32, help="texts of a batch (default: %(default)s)")
    add("--vocabulary", type=count, default=150, help="letters (default: %(default)s)")
    add("--tokens", type=count, default=500, help="to write (default: %(default)s)")
    args = options.parse_args()
    if args.quick:
        args.width, args.length, args.rows, args.tokens, args.rounds = 32, 16, 8, 20, min(args.rounds, 2)
    return args


class Theirs(nn.Module):
    """The same language model of torch.nn's parts, with the same weights."""

    def __init__(self, name: str, ours: RecurrentModel):
        super().__init__()
        C = ours.config.n_hidden
        self.embed = nn.Embedding.from_pretrained(ours.embed.weight.detach().clone(), freeze=False)
        self.layers = getattr(nn, name)(ours.config.n_embd, C, ours.config.n_layer)
        self.head = nn.Linear(C, ours.config.vocab_size)
        self.head.load_state_dict(ours.head.state_dict())
        for layer, block in enumerate(ours.blocks):
            weights = (block.input.weight, block.recurrent_weight, block.input.bias, block.recurrent_bias)
            for kind, weight in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights, strict=True):
                getattr(self.layers, f"{kind}_l{layer}").data.copy_(weight.data)


class Pair:
    """One cell, both sides."""

    def __init__(self, name: str, args: argparse.Namespace):
        torch.manual_seed(0)
        sizes = (args.vocabulary, args.width, args.width, args.layers)
        self.name, self.args = name, args
        self.ours = MODELS[name](RNNConfig(*sizes))
        self.theirs = Theirs(name, self.ours)
        self.ids = torch.randint(args.vocabulary, (args.rows, args.length + 1))
        self.x = torch.randn(args.length, args.rows, args.width)  # time first, as both have it inside
        with torch.no_grad():
            torch.testing.assert_close(self.our_layers(self.x), self.theirs.layers(self.x)[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(self.our_loss(), self.their_loss(), rtol=1e-4, atol=1e-4)

    def our_layers(self, x: Tensor) -> Tensor:
        for block in self.ours.blocks:
            zeros = tuple(x.new_zeros(x.shape[1], self.args.width) for _ in range(block.cell.states))
            x, _ = block(x, zeros, None, None)
        return x

    def our_loss(self) -> Tensor:
        states = self.ours.states(self.ids[:, :-1])
        return cross_entropy(self.ours.head, states, self.ids[:, 1:]) / self.ids[:, 1:].numel()

    def their_loss(self) -> Tensor:
        states, _ = self.theirs.layers(self.theirs.embed(self.ids[:, :-1].t()))
        return F.cross_entropy(self.theirs.head(states).flatten(0, 1), self.ids[:, 1:].t().flatten())

    def layers(self, side: str) -> float:
        """Seconds of the stack, forward and backward, to the weights and to what came in."""
        x = self.x.clone().requires_grad_()
        started = time.perf_counter()
        y = self.our_layers(x) if side == "ours" else self.theirs.layers(x)[0]
        y.backward(y.detach())
        return time.perf_counter() - started

    def model(self, side: str) -> float:
        """Seconds of a training step but for the optimiser's."""
        started = time.perf_counter()
        for parameter in getattr(self, side).parameters():
            parameter.grad = None
        (self.our_loss() if side == "ours" else self.their_loss()).backward()
        return time.perf_counter() - started

    @torch.inference_mode()
    def writing(self, side: str, texts: int) -> float:
        """New tokens a second, the likeliest each time."""
        ids, state, cache = self.ids[:texts, :1], None, self.ours.new_cache(texts)
        started = time.perf_counter()
        for _ in range(self.args.tokens):
            if side == "ours":
                logits = self.ours(ids, cache)[:, -1]
            else:
                hidden, state = self.theirs.layers(self.theirs.embed(ids.t()), state)
                logits = self.theirs.head(hidden)[-1]
            ids = logits.argmax(-1, keepdim=True)
        return texts * self.args.tokens / (time.perf_counter() - started)


def main() -> None:
    args = arguments()
    rows = []
    for name in args.cells:
        pair = Pair(name, args)
        kinds = [("layers", pair.layers, "s"), ("model", pair.model, "s")]
        kinds += [(f"writing, {n} at a time", partial(pair.writing, texts=n), "tokens/s") for n in (1, 8)]
        for kind, measure, unit in kinds:
            sides = (lambda _, m=measure: m("ours")), (lambda _, m=measure: m("theirs"))
            rows.append(told(Row(f"{name}, {kind}", unit, *alternate(*sides, args.rounds), AIMS.get((name, kind), ""))))
    sizes = f"{args.rows} texts of {args.length} places, {args.layers} layers of {args.width}, fp32"
    report("Recurrent layers", rows, "torch.nn", args, f"{sizes}; a vocabulary of {args.vocabulary} letters.")


if __name__ == "__main__":
    start(main)
