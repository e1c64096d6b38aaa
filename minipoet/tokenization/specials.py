"""Special tokens in a tokenizer.json: named, and hidden from texts.

    token_ids       token -> id, pieces and added tokens alike
    mark_specials   see to it that some tokens are listed as special
    hide_specials   the specification with every special token renamed, so that no text can spell it

Chapter: docs/tokenization.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minipoet.tokenization.bpe_files import added_entries, merge_pairs

# A noncharacter and a space: no word of a text has both, so a token that begins with them cannot be spelt.
HIDDEN = "\ufdd0 "


def token_ids(spec: Mapping[str, Any]) -> dict[str, int]:
    vocab = spec["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {piece: id for id, (piece, _) in enumerate(vocab)}
    return ids | {entry["content"]: entry["id"] for entry in spec.get("added_tokens") or []}


def mark_specials(spec: dict[str, Any], specials: Mapping[str, int]) -> None:
    """See to it that all of these tokens stand under `added_tokens` as special."""
    added = {entry["content"]: dict(entry) for entry in spec.get("added_tokens") or []}
    for entry in added_entries(specials):
        added.setdefault(entry["content"], entry)["special"] = True
    spec["added_tokens"] = sorted(added.values(), key=lambda entry: entry["id"])


def hide_specials(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification with every special token renamed, so that no text can spell it; nothing added, cut or filled.

    The library can be told not to look for specials in a text (`encode_special_tokens`), but a unigram model has
    `</s>` among its ordinary pieces, and BPE merges may happen to build it. Merges that do are left out.
    """
    spec = {**spec, "post_processor": None, "truncation": None, "padding": None}
    names = {entry["content"] for entry in spec.get("added_tokens") or [] if entry.get("special")}
    hidden = {name: HIDDEN + name for name in names}
    spec["added_tokens"] = [
        {
            **entry,
            "content": hidden.get(entry["content"], entry["content"]) if entry.get("special") else entry["content"],
        }
        for entry in spec.get("added_tokens") or []
    ]
    model = spec["model"] = dict(spec["model"])
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {hidden.get(token, token): id for token, id in vocab.items()}
    else:  # unigram: pairs of piece and score
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in vocab]
    if model.get("unk_token") in names:
        model["unk_token"] = hidden[model["unk_token"]]
    if model.get("merges"):
        pairs = merge_pairs(model["merges"])
        model["merges"] = [pair for pair in pairs if not names & {pair[0], pair[1], pair[0] + pair[1]}]
    return spec
