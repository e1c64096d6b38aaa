"""What all models that read a source and write about it have in common: the way through both stacks, and the cache.

    cache = model.new_cache(source_ids, source_segments)     the encoder reads the source, once
    logits = model(ids, cache, segments)                     (B, T) -> (B, T, V): what is written, on from the cache

What is written begins with `start_id`. Rows may hold several texts, told apart by segments (packing): then a token sees
the earlier tokens of its own text and all of the source of the same number. A learnt prefix stands before what is
written and, if it has such parts, before the source as the decoder sees it ("cross") or as it sees itself ("encoder").

Chapter: docs/t5.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minipoet.checks import expect
from minipoet.models.attention import PREFIX, additive, scores_type, visibility
from minipoet.models.base import UNLIMITED, LanguageModel
from minipoet.models.cache import pasts
from minipoet.models.layers import Embedding, check_ids
from minipoet.models.linear import Linear
from minipoet.models.source_cache import SourceCache

KeysValues = tuple[Tensor, Tensor]
CROSS, ENCODER = "cross", "encoder"  # where a prefix can stand besides the decoder's own attention


class EncoderDecoder(LanguageModel):
    """`logits = model(ids, cache, segments)`, (B, T) -> (B, T, V), over a cache that has read a source."""

    task_type = "SEQ_2_SEQ_LM"
    reads_source = True
    prefix_parts = (CROSS, ENCODER)

    encoder: Any  # a stack: blocks, distances, norm
    decoder: Any

    def __init__(self, config: Any):
        expect(config, self.config_class, "config", f"a {self.config_class.__name__}(...)")
        super().__init__()
        self.config = config
        self.embed = Embedding(config.vocab_size, self.width)
        self.encoder, self.decoder = self.make_stacks()
        self.dropout = nn.Dropout(self.dropout_rate)
        self.head = Linear(self.width, config.vocab_size, bias=False)
        self.tie()
        self.reset()

    @classmethod
    def settled(cls, config: Any, tensors: Mapping[str, Tensor]) -> Any:
        """The head is the embedding if the file has no other: newer files' configs say "tied" whatever they hold."""
        head, embed = tensors.get("lm_head.weight"), tensors.get("shared.weight")
        tied = head is None or (embed is not None and not head.is_meta and torch.equal(head, embed))
        return replace(config, tie_word_embeddings=tied)

    def make_stacks(self) -> tuple[nn.Module, nn.Module]:
        """The encoder's and the decoder's."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """C."""
        raise NotImplementedError

    @property
    def heads(self) -> tuple[int, int]:
        """(H, D)."""
        raise NotImplementedError

    @property
    def dropout_rate(self) -> float:
        """Of what goes into a stack and comes out of it."""
        raise NotImplementedError

    @property
    def output_scale(self) -> float:
        """What the decoder's output is multiplied by before the head."""
        return 1.0

    @property
    def context(self) -> int:
        """The longest text, in tokens: distances have no end."""
        return UNLIMITED

    @property
    def start_id(self) -> int:
        """The id that everything that is written begins with."""
        return self.config.decoder_start_token_id

    def beginning_shape(self, num_virtual_tokens: int, parts: tuple[str, ...] = ()) -> tuple[int, int, int, int]:
        """(P, rows, H, D): keys and values for each layer of the decoder; then, as parts say, of its cross attention,
        and of the encoder: rows = 2·L + 2·L (cross) + 2·L of the encoder."""
        own = 2 * len(self.decoder.blocks)
        rows = own + own * (CROSS in parts) + 2 * len(self.encoder.blocks) * (ENCODER in parts)
        return num_virtual_tokens, rows, *self.heads

    def _beginnings(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The prefix in use, (P, 2·L, H, D) each: of the decoder, of its cross attention, of the encoder."""
        numbers = self.beginning()
        if numbers is None:
            return None, None, None
        own, parts = 2 * len(self.decoder.blocks), tuple(self.prefixes.in_use.parts)  # type: ignore[union-attr,arg-type]
        cross = numbers[:, own : 2 * own] if CROSS in parts else None
        encoder = numbers[:, -2 * len(self.encoder.blocks) :] if ENCODER in parts else None
        return numbers[:, :own], cross, encoder

    def new_cache(  # type: ignore[override]
        self, source_ids: Tensor, source_segments: Tensor | None = None
    ) -> SourceCache:
        """Read the sources, (B, S) ids, of texts that are to be written, and begin those, with the prefix in use.

        source_segments (B, S): 0 is padding, k the source of a row's k-th text; None: one source a row, no padding.
        """
        if not isinstance(source_ids, Tensor):
            raise ValueError(
                f"A {type(self).__name__} writes about a source: new_cache(source_ids), (B, S) ids, got {source_ids!r}."
            )
        check_ids(source_ids)
        _check_segments(source_segments, source_ids, "source_segments")
        own, cross, encoder = self._beginnings()
        encoded = self.encode(source_ids, source_segments, encoder)
        segments = torch.ones_like(source_ids) if source_segments is None else source_segments
        prefixes = pasts(len(self.decoder.blocks), len(source_ids), cross)
        pairs = []
        for block, past in zip(self.decoder.blocks, prefixes, strict=True):
            keys, values = past.extend(*block.cross.keys_values(encoded))
            pairs.append((keys.contiguous(), values.contiguous()))  # read again for each token that is written
        return SourceCache(pairs, _behind_prefix(segments, 0 if cross is None else len(cross)), own)

    def encode(self, ids: Tensor, segments: Tensor | None = None, prefix: Tensor | None = None) -> Tensor:
        """What the encoder makes of (B, S) ids: (B, S, C)."""
        S, P = ids.shape[1], 0 if prefix is None else len(prefix)
        every = None if segments is None else _behind_prefix(segments, P)
        places, sees = _seen(every, P + S, 0, ids.device)
        sees = (sees | sees.mT)[:, :, P:]  # what stands behind is seen too; a prefix only is
        x = self.dropout(self.embed(ids))
        scores = _added(sees, self.encoder.distances(places[:, P:], places), x)
        for block, past in zip(self.encoder.blocks, pasts(len(self.encoder.blocks), len(ids), prefix), strict=True):
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, past, scores, use_reentrant=False)
            else:
                x = block(x, past, scores)
        return self.dropout(self.encoder.norm(x))

    def states(self, ids: Tensor, cache: SourceCache | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, C): what `head` turns into logits. The cache is read on from, and brought up to date.

        Raises ValueError without a cache: there would be no source.
        """
        check_ids(ids)
        if cache is None:
            raise ValueError(
                f"A {type(self).__name__} writes about a source: let it read that first, "
                "cache = model.new_cache(source_ids), and give the cache."
            )
        B, T = ids.shape
        if cache.batch_size != B:
            raise ValueError(f"The cache has read the sources of {cache.batch_size} texts, and here are {B}.")
        _check_segments(segments, ids, "segments")
        every, before = None, cache.segments(segments is not None, ids.device)
        if before is not None:
            every = torch.cat([before, torch.ones_like(ids) if segments is None else segments.long()], dim=1)
        places, sees = _seen(every, cache.length + T, cache.length, ids.device)
        x = self.dropout(self.embed(ids))
        scores = _added(sees, self.decoder.distances(places[:, -T:], places), x)
        source_scores = _added(cache.source_visible(segments), None, x)
        for block, layer, source in zip(self.decoder.blocks, cache.layers, cache.cross, strict=True):
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x, kv = checkpoint(block, x, layer.frozen(), scores, source, source_scores, use_reentrant=False)
            else:
                x, kv = block(x, layer, scores, source, source_scores)
            layer.store(*kv)
        cache.advance(T, segments, ids.device)
        return self.dropout(self.decoder.norm(x)) * self.output_scale


def _check_segments(segments: Tensor | None, ids: Tensor, name: str) -> None:
    if segments is not None and segments.shape != ids.shape:
        came = f"{tuple(segments.shape)} beside {tuple(ids.shape)} ids"
        raise ValueError(f"{name} must say of each id which text it is of, got {came}.")


def _seen(every: Tensor | None, S: int, first: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of S tokens, of these segments (B, S), None: one text: their places, (B or 1, S), and what those from `first` on
    see of them all when each sees only what stands before it: (B or 1, 1, S − first, S) bool."""
    if every is None:
        places = torch.arange(S, device=device)[None]
        return places, torch.ones(1, 1, S - first, S, dtype=torch.bool, device=device).tril(first)
    places, sees = visibility(every, None, (len(every), S), 0, device)
    assert sees is not None
    return places, sees[:, :, first:]


def _behind_prefix(segments: Tensor, P: int) -> Tensor:
    return torch.cat([segments.new_full((len(segments), P), PREFIX), segments], dim=1).long()


def _added(sees: Tensor, distances: Tensor | None, x: Tensor) -> Tensor:
    """What is added to the scores, (B, H or 1, T, S), in the type in which they will be computed."""
    mask = additive(sees, scores_type(x))
    assert mask is not None
    return mask if distances is None else mask + distances.to(mask.dtype)
