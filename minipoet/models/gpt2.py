"""GPT-2: a stack of blocks, each of which lets a token look back (attention) and then think for itself (MLP).

    ids -> embed + positions -> n × Block -> norm -> head -> logits

`GPT2Config`, `Attention`, `MLP`, `Block`, `GPT2`, and `NAMES`, which turns the published names into ours and back; the
way through the blocks is that of every decoder (decoder.py).
It loads GPT-2, ruGPT3 small/medium/large and ruGPT-3.5, and `poet-tiny`, which comes with the package.

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"
Chapter: docs/gpt2.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from minipoet.checks import expect, is_number, is_whole, shown
from minipoet.models.attention import attend
from minipoet.models.cache import LayerPast
from minipoet.models.decoder import Decoder
from minipoet.models.layers import Embedding, activation
from minipoet.models.linear import Linear
from minipoet.models.names import Row


@dataclass(frozen=True)
class GPT2Config:
    """The fields of a published config.json that shape the model, under their published names."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # None: 4 · n_embd
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self):
        value = vars(self)
        wrong = [
            f"{name} = {shown(value[name])} must be a whole number of at least 1"
            for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
            if not is_whole(value[name], 1)
        ]
        if self.n_inner is not None and not is_whole(self.n_inner):
            wrong.append(f"n_inner = {shown(self.n_inner)} must be None or a whole number")
        wrong += [
            f"{name} = {shown(value[name])} must be a number, 0 or more"
            for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "layer_norm_epsilon", "initializer_range")
            if not is_number(value[name]) or value[name] < 0
        ]
        if wrong:
            raise ValueError(f"GPT-2 config: {'; '.join(wrong)}.")
        if self.n_embd % self.n_head:
            raise ValueError(f"GPT-2 config: n_embd {self.n_embd} cannot be divided into {self.n_head} heads (n_head).")
        activation(self.activation_function)


class Attention(nn.Module):
    """Causal self-attention, (B, T, C) -> (B, T, C). q, k and v come from one matrix, as in the published weights."""

    def __init__(self, config: GPT2Config, layer: int):
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.qkv = Linear(C, 3 * C)
        self.out = Linear(C, C)
        self.dropout = config.attn_pdrop
        self.scale = 1.0
        if config.scale_attn_weights:
            self.scale /= math.sqrt(C // config.n_head)
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1

    def forward(self, x: Tensor, past: LayerPast, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Also returns the keys and values, old and new, 2 × (B, H, S, D), for the cache."""
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        k, v = past.extend(k, v)
        y = attend(q, k, v, mask, self.scale, self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).reshape(B, T, C)), (k, v)


class MLP(nn.Module):
    """Two layers with a bend between them, applied to each token alone: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        inner = config.n_inner or 4 * config.n_embd
        self.up = Linear(config.n_embd, inner)
        self.down = Linear(inner, config.n_embd)
        self.activation = activation(config.activation_function)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)): the norms stand before, so the sum itself is never squeezed."""

    def __init__(self, config: GPT2Config, layer: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, past: LayerPast, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, kv = self.attn(self.norm1(x), past, mask)
        x = x + self.dropout(y)
        return x + self.dropout(self.mlp(self.norm2(x))), kv


# (published, ours, transform). Conv1D of the published files keeps its matrix as (in, out): y = x W + b.
NAMES: tuple[Row, ...] = (
    ("transformer.wte.weight", "embed.weight", None),
    ("transformer.wpe.weight", "positions.weight", None),
    ("transformer.h.{i}.ln_1.weight", "blocks.{i}.norm1.weight", None),
    ("transformer.h.{i}.ln_1.bias", "blocks.{i}.norm1.bias", None),
    ("transformer.h.{i}.attn.c_attn.weight", "blocks.{i}.attn.qkv.weight", "transpose"),
    ("transformer.h.{i}.attn.c_attn.bias", "blocks.{i}.attn.qkv.bias", None),
    ("transformer.h.{i}.attn.c_proj.weight", "blocks.{i}.attn.out.weight", "transpose"),
    ("transformer.h.{i}.attn.c_proj.bias", "blocks.{i}.attn.out.bias", None),
    ("transformer.h.{i}.ln_2.weight", "blocks.{i}.norm2.weight", None),
    ("transformer.h.{i}.ln_2.bias", "blocks.{i}.norm2.bias", None),
    ("transformer.h.{i}.mlp.c_fc.weight", "blocks.{i}.mlp.up.weight", "transpose"),
    ("transformer.h.{i}.mlp.c_fc.bias", "blocks.{i}.mlp.up.bias", None),
    ("transformer.h.{i}.mlp.c_proj.weight", "blocks.{i}.mlp.down.weight", "transpose"),
    ("transformer.h.{i}.mlp.c_proj.bias", "blocks.{i}.mlp.down.bias", None),
    ("transformer.ln_f.weight", "norm.weight", None),
    ("transformer.ln_f.bias", "norm.bias", None),
    ("lm_head.weight", "head.weight", None),
)


class GPT2(Decoder):
    """`logits = model(ids, cache, segments)`, (B, T) -> (B, T, V): see `models.base.LanguageModel` for the contract."""

    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    config_class = GPT2Config
    prefix = "transformer."  # old files leave it out
    ignored = (r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",)  # buffers of the causal mask in old files
    unsupported: ClassVar = {"add_cross_attention": False}
    names = NAMES

    config: GPT2Config

    def __init__(self, config: GPT2Config):
        expect(config, GPT2Config, "config", "a GPT2Config(...)")
        super().__init__()
        self.config = config
        self.embed = Embedding(config.vocab_size, config.n_embd)
        self.positions = Embedding(config.n_positions, config.n_embd)
        self.dropout = nn.Dropout(config.embd_pdrop)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.tie()
        self.reset()

    @property
    def places(self) -> int:
        """How many positions there are, a prefix's included."""
        return self.config.n_positions

    @property
    def cache_sizes(self) -> tuple[int, int, int]:
        """(n_layer, H, D)."""
        c = self.config
        return c.n_layer, c.n_head, c.n_embd // c.n_head

    def start_deviation(self, name: str) -> float:
        """As in the paper: less for what is added to the sum of n_layer blocks."""
        added = name.endswith((".attn.out.weight", ".mlp.down.weight"))
        return self.config.initializer_range / (math.sqrt(2 * self.config.n_layer) if added else 1.0)

    def enter(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, tuple[()]]:
        """A vector for the token, and one for its place: (B, T) -> (B, T, C)."""
        return self.dropout(self.embed(ids) + self.positions(positions)), ()
