"""Qwen2, Qwen2.5 and the dense Qwen3: GPT-2's blocks with what was learnt since.

    ids -> embed -> n × Block -> norm -> head -> logits

Positions are turned into queries and keys (rotary.py) instead of added to the embedding; the norm takes no mean away
(RMSNorm); several query heads share a key/value head (grouped-query attention), which makes the cache smaller; and the
MLP has a gate, down(silu(gate(x)) · up(x)) (SwiGLU). Qwen3 has heads of a size of their own, no biases, and a norm for
each head's query and key. `Qwen2Config`, `Attention`, `MLP`, `Block`, `NAMES`, `Qwen2`; then what is other in `Qwen3`.

Reports: Qwen Team 2024, https://arxiv.org/abs/2412.15115; 2025, https://arxiv.org/abs/2505.09388
Chapter: docs/qwen2.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from minipoet.checks import expect, is_number, is_whole, shown
from minipoet.models.attention import attend
from minipoet.models.cache import LayerPast
from minipoet.models.decoder import Decoder
from minipoet.models.layers import Embedding, RMSNorm, activation
from minipoet.models.linear import Linear
from minipoet.models.names import Row
from minipoet.models.rotary import rotary, rotate

Rotation = tuple[Tensor, Tensor]  # cos, sin


@dataclass(frozen=True)
class Qwen2Config:
    """The fields of a published config.json that shape the model, under their published names."""

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 11008
    num_hidden_layers: int = 36
    num_attention_heads: int = 16
    num_key_value_heads: int = 2
    max_position_embeddings: int = 32768
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self):
        values = [(field.name, getattr(self, field.name), type(field.default)) for field in fields(self)]
        wrong = [
            f"{name} = {shown(value)} must be a whole number of at least 1"
            for name, value, kind in values
            if kind is int and not is_whole(value, 1)
        ]
        wrong += [
            f"{name} = {shown(value)} must be a number, 0 or more"
            for name, value, kind in values
            if kind is float and not (is_number(value) and value >= 0)
        ]
        if not wrong and not self.rope_theta:
            wrong.append("rope_theta = 0 must be more than 0")
        if not wrong and self.num_attention_heads % self.num_key_value_heads:
            wrong.append(
                f"{self.num_attention_heads} query heads (num_attention_heads) cannot be shared out among "
                f"{self.num_key_value_heads} key heads (num_key_value_heads)"
            )
        if not wrong and self.head_size * self.num_attention_heads != self.width_of_heads:
            heads = self.num_attention_heads
            wrong.append(f"hidden_size {self.hidden_size} cannot be divided into {heads} heads (num_attention_heads)")
        if wrong:
            raise ValueError(f"{type(self).__name__}: {'; '.join(wrong)}.")
        if self.head_size % 2:
            raise ValueError(f"{type(self).__name__}: heads of {self.head_size} numbers cannot be turned in pairs.")
        activation(self.hidden_act)

    @property
    def head_size(self) -> int:
        """D."""
        return self.hidden_size // self.num_attention_heads

    @property
    def width_of_heads(self) -> int:
        """H·D, as wide as the model."""
        return self.hidden_size

    @property
    def qkv_bias(self) -> bool:
        """Have q, k and v a bias?"""
        return True


class Attention(nn.Module):
    """Causal self-attention, (B, T, C) -> (B, T, C); H query heads over G key/value heads of D numbers."""

    def __init__(self, config: Qwen2Config):
        super().__init__()
        C, D = config.hidden_size, config.head_size
        H, G = config.num_attention_heads, config.num_key_value_heads
        self.head_size, self.scale, self.dropout = D, 1 / math.sqrt(D), config.attention_dropout
        self.q = Linear(C, H * D, bias=config.qkv_bias)
        self.k = Linear(C, G * D, bias=config.qkv_bias)
        self.v = Linear(C, G * D, bias=config.qkv_bias)
        self.out = Linear(H * D, C, bias=False)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, C) -> queries (B, H, T, D), keys and values (B, G, T, D), not turned yet."""
        B, T, _ = x.shape
        q, k, v = (layer(x).view(B, T, -1, self.head_size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return q, k, v

    def forward(
        self, x: Tensor, past: LayerPast, mask: Tensor | None, rotation: Rotation
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Also returns the keys and values, old and new, 2 × (B, G, S, D), for the cache: keys are kept turned."""
        B, T, _ = x.shape
        q, k, v = self.heads(x)
        k, v = past.extend(rotate(k, *rotation), v)
        dropout = self.dropout if self.training else 0.0
        y = attend(rotate(q, *rotation), k, v, mask, self.scale, dropout, large_scores=True)
        return self.out(y.transpose(1, 2).reshape(B, T, -1)), (k, v)


class MLP(nn.Module):
    """One half says what, the other how much of it: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: Qwen2Config):
        super().__init__()
        C, inner = config.hidden_size, config.intermediate_size
        self.gate = Linear(C, inner, bias=False)
        self.up = Linear(C, inner, bias=False)
        self.down = Linear(inner, C, bias=False)
        self.activation = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x))."""

    attention: ClassVar[type[Attention]] = Attention

    def __init__(self, config: Qwen2Config):
        super().__init__()
        self.norm1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn = self.attention(config)
        self.norm2 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, past: LayerPast, mask: Tensor | None, rotation: Rotation
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, kv = self.attn(self.norm1(x), past, mask, rotation)
        x = x + y
        return x + self.mlp(self.norm2(x)), kv


# (published, ours, transform)
NAMES: tuple[Row, ...] = (
    ("model.embed_tokens.weight", "embed.weight", None),
    ("model.layers.{i}.input_layernorm.weight", "blocks.{i}.norm1.weight", None),
    ("model.layers.{i}.self_attn.q_proj.weight", "blocks.{i}.attn.q.weight", None),
    ("model.layers.{i}.self_attn.q_proj.bias", "blocks.{i}.attn.q.bias", None),
    ("model.layers.{i}.self_attn.k_proj.weight", "blocks.{i}.attn.k.weight", None),
    ("model.layers.{i}.self_attn.k_proj.bias", "blocks.{i}.attn.k.bias", None),
    ("model.layers.{i}.self_attn.v_proj.weight", "blocks.{i}.attn.v.weight", None),
    ("model.layers.{i}.self_attn.v_proj.bias", "blocks.{i}.attn.v.bias", None),
    ("model.layers.{i}.self_attn.o_proj.weight", "blocks.{i}.attn.out.weight", None),
    ("model.layers.{i}.post_attention_layernorm.weight", "blocks.{i}.norm2.weight", None),
    ("model.layers.{i}.mlp.gate_proj.weight", "blocks.{i}.mlp.gate.weight", None),
    ("model.layers.{i}.mlp.up_proj.weight", "blocks.{i}.mlp.up.weight", None),
    ("model.layers.{i}.mlp.down_proj.weight", "blocks.{i}.mlp.down.weight", None),
    ("model.norm.weight", "norm.weight", None),
    ("lm_head.weight", "head.weight", None),
)


class Qwen2(Decoder):
    """`logits = model(ids, cache, segments)`, (B, T) -> (B, T, V): see `models.base.LanguageModel` for the contract."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"
    config_class = Qwen2Config
    block_class: ClassVar[type[Block]] = Block
    prefix = "model."
    ignored = (r".*rotary_emb\.inv_freq",)  # computed, not learnt; old files hold it
    unsupported: ClassVar = {"use_sliding_window": False, "rope_scaling": None}
    names = NAMES

    config: Qwen2Config

    @classmethod
    def published_config(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Newer files have rope_theta inside of rope_parameters; only the "default" kind of rotation is supported."""
        values = {"rope_theta": 10_000.0, **values}  # that of transformers, where a file has none
        for key in ("rope_scaling", "rope_parameters"):
            rope = values.pop(key, None)
            if isinstance(rope, Mapping):
                values["rope_theta"] = rope.get("rope_theta", values["rope_theta"])
                rope = None if rope.get("rope_type", rope.get("type", "default")) == "default" else dict(rope)
            if rope is not None:
                values["rope_scaling"] = rope
        return values

    def __init__(self, config: Qwen2Config):
        expect(config, self.config_class, "config", f"a {self.config_class.__name__}(...)")
        super().__init__()
        self.config = config
        self.embed = Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(self.block_class(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()
        self.reset()

    @property
    def places(self) -> int:
        """How many positions there are, a prefix's included."""
        return self.config.max_position_embeddings

    @property
    def cache_sizes(self) -> tuple[int, int, int]:
        """(layers, G, D)."""
        c = self.config
        return c.num_hidden_layers, c.num_key_value_heads, c.head_size

    def enter(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Rotation]]:
        """A vector for the token, (B, T) -> (B, T, C), and for all blocks the rotation of its place."""
        x = self.embed(ids)
        return x, (rotary(positions, self.config.head_size, self.config.rope_theta, x.dtype),)


@dataclass(frozen=True)
class Qwen3Config(Qwen2Config):
    """Qwen2's fields, and head_dim; without biases."""

    head_dim: int = 128

    @property
    def head_size(self) -> int:
        """D."""
        return self.head_dim

    @property
    def width_of_heads(self) -> int:
        """H·D, of any width."""
        return self.head_dim * self.num_attention_heads

    @property
    def qkv_bias(self) -> bool:
        """Have q, k and v a bias?"""
        return False


class NormedAttention(Attention):
    """With a norm for each head's query and key, before rotation; one weight of D numbers for all heads."""

    def __init__(self, config: Qwen3Config):
        super().__init__(config)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, C) -> queries (B, H, T, D), keys and values (B, G, T, D), not turned yet."""
        q, k, v = super().heads(x)
        return self.q_norm(q), self.k_norm(k), v


class NormedBlock(Block):
    """With this attention."""

    attention = NormedAttention


class Qwen3(Qwen2):
    """`logits = model(ids, cache, segments)`, (B, T) -> (B, T, V): see `models.base.LanguageModel` for the contract."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    config_class = Qwen3Config
    block_class = NormedBlock
    unsupported: ClassVar = {**Qwen2.unsupported, "attention_bias": False}
    names = (
        *NAMES,
        ("model.layers.{i}.self_attn.q_norm.weight", "blocks.{i}.attn.q_norm.weight", None),
        ("model.layers.{i}.self_attn.k_norm.weight", "blocks.{i}.attn.k_norm.weight", None),
    )
