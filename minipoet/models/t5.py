"""T5, T5 v1.1 and mT5: an encoder that reads a source, and a decoder that writes about it.

    source -> embed -> n × EncoderBlock -> norm -> keys and values for each layer of the decoder
    ids    -> embed -> n × DecoderBlock (looks at itself, then at the source) -> norm -> head -> logits

No layer has a bias, scores are not scaled, and positions come in by distances only (distances.py). Three kinds are
published: v1.0 has a plain MLP with ReLU, and a head that is the embedding; v1.1 and mT5 have a gated MLP and a head of
their own. `T5Config`; `Attention`, `MLP`, `GatedMLP`, the blocks; names; `T5`, `GatedT5`, `MT5`.

Papers: Raffel et al. 2020, https://arxiv.org/abs/1910.10683; Xue et al. 2021 (mT5), https://arxiv.org/abs/2010.11934
Chapter: docs/t5.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from minipoet.checks import is_number, is_whole, shown
from minipoet.models.attention import attend
from minipoet.models.cache import LayerPast
from minipoet.models.distances import Distances
from minipoet.models.encoder_decoder import EncoderDecoder, KeysValues
from minipoet.models.layers import RMSNorm, activation
from minipoet.models.linear import Linear
from minipoet.models.names import Row

GATED = "gated-"


@dataclass(frozen=True)
class T5Config:
    """The fields of a published config.json that shape the model, under their published names."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64  # D; heads · d_kv may be another width than d_model
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None  # None: as many as num_layers
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"  # or "gated-gelu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool = True  # by 1/√d_model, before a head that is the embedding
    decoder_start_token_id: int = 0

    def __post_init__(self):
        value = dict(self.__dict__)
        value["num_decoder_layers"] = self.decoder_layers
        whole = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
        wrong = [
            f"{name} = {shown(value[name])} must be a whole number of at least 1"
            for name in whole
            if not is_whole(value[name], 1)
        ]
        number, most = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if not is_whole(number, 4) or number % 4:
            wrong.append(f"relative_attention_num_buckets = {shown(number)} must be a multiple of 4")
        elif not is_whole(most, number // 2 + 1):
            least = number // 2 + 1
            wrong.append(f"relative_attention_max_distance = {shown(most)} must be a whole number of at least {least}")
        wrong += [
            f"{name} = {shown(value[name])} must be a number, 0 or more"
            for name in ("dropout_rate", "layer_norm_epsilon", "initializer_factor")
            if not is_number(value[name]) or value[name] < 0
        ]
        if not wrong and not is_whole(self.decoder_start_token_id, 0, self.vocab_size):
            came = shown(self.decoder_start_token_id)
            wrong.append(f"decoder_start_token_id = {came} must be an id, 0 to {self.vocab_size - 1}")
        if wrong:
            raise ValueError(f"T5 config: {'; '.join(wrong)}.")
        activation(self.activation)

    @property
    def decoder_layers(self) -> int:
        """Blocks of the decoder."""
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers

    @property
    def gated(self) -> bool:
        """Has the MLP a gate?"""
        return str(self.feed_forward_proj).startswith(GATED)

    @property
    def activation(self) -> str:
        """The activation's name. What publishers call "gated-gelu" is GELU's approximation by tanh."""
        name = str(self.feed_forward_proj).removeprefix(GATED)
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else name


class Attention(nn.Module):
    """H heads of D numbers: what T tokens, (B, T, C), take from S others -> (B, T, C)."""

    def __init__(self, config: T5Config):
        super().__init__()
        C, inner = config.d_model, config.num_heads * config.d_kv
        self.head_size, self.dropout = config.d_kv, config.dropout_rate
        self.q = Linear(C, inner, bias=False)
        self.k = Linear(C, inner, bias=False)
        self.v = Linear(C, inner, bias=False)
        self.out = Linear(inner, C, bias=False)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, H·D) -> (B, H, T, D)."""
        B, T, _ = x.shape
        return x.view(B, T, -1, self.head_size).transpose(1, 2)

    def keys_values(self, x: Tensor) -> KeysValues:
        """What (B, S, C) offer to be looked at: 2 × (B, H, S, D)."""
        return self.heads(self.k(x)), self.heads(self.v(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, scores: Tensor) -> Tensor:
        """scores, (B, H, T, S): what is added to q·k, which is not scaled: the start values make up for it."""
        B, T, _ = x.shape
        dropout = self.dropout if self.training else 0.0
        y = attend(self.heads(self.q(x)), keys, values, scores, 1.0, dropout)
        return self.out(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """Of v1.0: down(relu(up(x))), (B, T, C) -> (B, T, C)."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.up = Linear(config.d_model, config.d_ff, bias=False)
        self.down = Linear(config.d_ff, config.d_model, bias=False)
        self.activation = activation(config.activation)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.up(x))))


class GatedMLP(MLP):
    """Of v1.1 and mT5: down(gelu(gate(x)) · up(x)). Shazeer 2020, https://arxiv.org/abs/2002.05202"""

    def __init__(self, config: T5Config):
        super().__init__(config)
        self.gate = Linear(config.d_model, config.d_ff, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.gate(x)) * self.up(x)))


class EncoderBlock(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)); each token sees all of its text."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.norm1 = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.norm2 = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.mlp = (GatedMLP if config.gated else MLP)(config)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, past: LayerPast, scores: Tensor) -> Tensor:
        """past holds a prefix, or nothing."""
        y = self.norm1(x)
        x = x + self.dropout(self.attn(y, *past.extend(*self.attn.keys_values(y)), scores))
        return x + self.dropout(self.mlp(self.norm2(x)))


class DecoderBlock(nn.Module):
    """x + attention(norm1(x)), then x + cross(norm2(x)), which looks at the source, then x + mlp(norm3(x))."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.norm1 = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.norm2 = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.cross = Attention(config)
        self.norm3 = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.mlp = (GatedMLP if config.gated else MLP)(config)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(
        self, x: Tensor, past: LayerPast, scores: Tensor, source: KeysValues, source_scores: Tensor
    ) -> tuple[Tensor, KeysValues]:
        """Also returns its own keys and values, old and new, 2 × (B, H, S, D), for the cache."""
        y = self.norm1(x)
        kv = past.extend(*self.attn.keys_values(y))
        x = x + self.dropout(self.attn(y, *kv, scores))
        x = x + self.dropout(self.cross(self.norm2(x), *source, source_scores))
        return x + self.dropout(self.mlp(self.norm3(x))), kv


class Stack(nn.Module):
    """The blocks of one side, what they learn of distances, and the norm at their end."""

    def __init__(self, config: T5Config, block: type[nn.Module], layers: int, both_ways: bool):
        super().__init__()
        number, most = config.relative_attention_num_buckets, config.relative_attention_max_distance
        self.distances = Distances(number, config.num_heads, most, both_ways)
        self.blocks = nn.ModuleList(block(config) for _ in range(layers))
        self.norm = RMSNorm(config.d_model, config.layer_norm_epsilon)


def _attention(published: str, ours: str) -> tuple[Row, ...]:
    letters = (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out"))
    return tuple((f"{published}.{theirs}.weight", f"{ours}.{letter}.weight", None) for theirs, letter in letters)


def _names(mlp: tuple[tuple[str, str], ...]) -> tuple[Row, ...]:
    """(published, ours, transform) of all tensors; mlp: the names of its matrices."""
    rows: list[Row] = [("shared.weight", "embed.weight", None), ("lm_head.weight", "head.weight", None)]
    for side, cross, last in (("encoder", False, 1), ("decoder", True, 2)):
        block, ours = f"{side}.block.{{i}}.layer", f"{side}.blocks.{{i}}"
        table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rows += [(table, f"{side}.distances.weight", None), *_attention(f"{block}.0.SelfAttention", f"{ours}.attn")]
        rows += _attention(f"{block}.1.EncDecAttention", f"{ours}.cross") if cross else ()
        rows += [(f"{block}.{n}.layer_norm.weight", f"{ours}.norm{n + 1}.weight", None) for n in range(last + 1)]
        rows += [(f"{block}.{last}.DenseReluDense.{p}.weight", f"{ours}.mlp.{o}.weight", None) for p, o in mlp]
        rows.append((f"{side}.final_layer_norm.weight", f"{side}.norm.weight", None))
    return tuple(rows)


class T5(EncoderDecoder):
    """v1.0: `logits = model(ids, cache)` with `cache = model.new_cache(source_ids)`: see `EncoderDecoder`."""

    model_type = "t5"
    architecture = "T5ForConditionalGeneration"
    config_class = T5Config
    names = _names((("wi", "up"), ("wo", "down")))
    ignored = (
        r"(en|de)coder\.embed_tokens\.weight",  # = shared.weight
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",  # of old files; never used
    )

    config: T5Config

    @classmethod
    def published_config(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Where a file does not say whether the output is scaled, it is if the head is the embedding (never in mT5)."""
        tied = values.get("tie_word_embeddings", True)
        scaled = values.get("scale_decoder_outputs", tied) and values.get("model_type") != "mt5"
        return {**values, "scale_decoder_outputs": scaled}

    @classmethod
    def for_config(cls, values: Mapping[str, Any]) -> type[EncoderDecoder]:
        """v1.0 and v1.1 have one model_type; their MLPs differ, and so do its matrices' names."""
        gated = str(values.get("feed_forward_proj", "")).startswith(GATED)
        return GatedT5 if gated and cls is T5 else cls

    def make_stacks(self) -> tuple[nn.Module, nn.Module]:
        """The encoder's and the decoder's."""
        config = self.config
        if config.gated != ("gate" in str(self.names)):
            raise ValueError(
                f"A {type(self).__name__} cannot have feed_forward_proj = {config.feed_forward_proj!r}: of v1.0, "
                "minipoet.models.t5.T5 has a plain MLP; GatedT5 (v1.1) and MT5 have a gated one."
            )
        encoder = Stack(config, EncoderBlock, config.num_layers, both_ways=True)
        return encoder, Stack(config, DecoderBlock, config.decoder_layers, both_ways=False)

    @property
    def width(self) -> int:
        """C."""
        return self.config.d_model

    @property
    def heads(self) -> tuple[int, int]:
        """(H, D)."""
        return self.config.num_heads, self.config.d_kv

    @property
    def dropout_rate(self) -> float:
        """Of what goes into a stack and comes out of it."""
        return self.config.dropout_rate

    @property
    def output_scale(self) -> float:
        """The head is the embedding, of length about √C a row: the decoder's output makes up for it."""
        return self.config.d_model**-0.5 if self.config.scale_decoder_outputs else 1.0

    def start_deviation(self, name: str) -> float:
        """As published: each matrix by the width that it reads, and q by the head's too, as scores are not scaled."""
        c = self.config
        layer = name.split(".")[-2]
        widths = {"embed": 1, "head": 1, "q": c.d_model * c.d_kv, "out": c.num_heads * c.d_kv, "down": c.d_ff}
        return c.initializer_factor * widths.get(layer, c.d_model) ** -0.5

    def step_scale(self, name: str) -> float:
        """q holds the 1/√D by which other families scale their scores: a step on it is as much smaller."""
        return self.config.d_kv**-0.5 if name.endswith(".q.weight") else 1.0


class GatedT5(T5):
    """v1.1: a gated MLP, and most often a head of its own. model_type "t5" too."""

    names = _names((("wi_0", "gate"), ("wi_1", "up"), ("wo", "down")))


class MT5(GatedT5):
    """mT5: v1.1 with a larger vocabulary; its output is never scaled."""

    model_type = "mt5"
    architecture = "MT5ForConditionalGeneration"
