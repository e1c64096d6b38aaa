"""Which special token begins a text, which ends it, which fills up a row, as far as a model's folder says so.

    well_known_roles    by the strings that are in use
    named_specials      the special tokens that the files of a folder name, and their roles
    more_ends           what ends a text besides the eos

Every publisher names its specials as it likes and files contradict one another (several ruGPT-3 configs give GPT-2's
id 50256, an ordinary token there). So nothing here is an id of our own, a name counts only if the vocabulary has it,
and an id only if it belongs to a special token. What no file settles falls to the first well-known string.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from minipoet.files import read_json

ROLES = ("bos", "eos", "pad")
WELL_KNOWN = {
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "[CLS]", "<|endoftext|>"),
    "eos": ("</s>", "<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<eos>", "[SEP]"),
    "pad": ("<pad>", "<|pad|>", "[PAD]", "<|endoftext|>"),
}
MORE_EOS = "minipoet_more_eos"  # in our tokenizer_config.json: the strings that end a text besides the eos
OTHER_SPECIALS = ("<unk>", "<mask>", "<|im_start|>", "<|im_end|>", "[UNK]", "[MASK]")


def well_known_roles(specials: Collection[str]) -> dict[str, str | None]:
    """Role -> the special string that usually plays it, or None: `{"bos": "<s>", "eos": "</s>", "pad": None}`."""
    return {role: next((name for name in WELL_KNOWN[role] if name in specials), None) for role in ROLES}


def well_known_specials(vocab: Collection[str]) -> list[str]:
    """The well-known special strings that a vocabulary has."""
    names = dict.fromkeys([*(name for role in ROLES for name in WELL_KNOWN[role]), *OTHER_SPECIALS])
    return [name for name in names if name in vocab]


def read_optional(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object from a folder, empty if there is no such file. Raises ValueError if it is something else."""
    path = folder / name
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} should hold a JSON object and holds a {type(value).__name__}; fetch it again.")
    return value


def token_text(value: Any) -> str | None:
    """A token as config files give it: a string, or an object with its `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def added_tokens(folder: Path) -> dict[str, tuple[int, bool]]:
    """Token -> (id, is it special) from added_tokens.json and tokenizer_config.json's added_tokens_decoder."""
    tokens = {}
    for name, id in read_optional(folder, "added_tokens.json").items():
        if isinstance(id, int):
            tokens[name] = (id, name[:1] + name[-1:] in ("<>", "[]"))
    decoder = read_optional(folder, "tokenizer_config.json").get("added_tokens_decoder")
    for id, entry in (decoder if isinstance(decoder, dict) else {}).items():
        text = token_text(entry)
        if text is not None and str(id).isdecimal():
            tokens[text] = (int(id), bool(entry.get("special", False)) if isinstance(entry, dict) else True)
    return tokens


def named_specials(folder: Path) -> tuple[list[str], dict[str, str | None]]:
    """The special strings that tokenizer_config.json and special_tokens_map.json name, and those with a role.

    A role that is null in a file is None here (Qwen2 has no bos); a role that no file mentions is missing.
    """
    names: dict[str, None] = {}
    roles: dict[str, str | None] = {}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        for key, value in read_optional(folder, file).items():
            role = key.removesuffix("_token")
            if role != key and (name := token_text(value)) is not None:
                names[name] = None
                if role in ROLES:
                    roles[role] = roles.get(role) or name
            elif role in ROLES and value is None:
                roles.setdefault(role, None)
            elif key in ("additional_special_tokens", "extra_special_tokens") and isinstance(value, list):
                names.update((name, None) for entry in value if (name := token_text(entry)) is not None)
    return list(names), roles


def settle_roles(
    folder: Path, named: Mapping[str, str | None], ids: Mapping[str, int], specials: Collection[str]
) -> dict[str, str | None]:
    """Role -> special string: as named, else by the ids of generation_config.json and config.json, else well-known."""
    by_id = {ids[name]: name for name in [*specials, *well_known_specials(ids)]}
    roles = well_known_roles(ids)
    for file in ("config.json", "generation_config.json"):  # the later one overrides
        config = read_optional(folder, file)
        for role in ROLES:
            ids_of_role = config.get(f"{role}_token_id")
            for id in reversed(ids_of_role if isinstance(ids_of_role, list) else [ids_of_role]):  # the first counts
                if isinstance(id, int) and id in by_id:
                    roles[role] = by_id[id]
    return roles | {role: name for role, name in named.items() if name is None or name in ids}


def more_ends(folder: Path, eos: str | None, ids: Mapping[str, int], specials: Collection[str]) -> list[str]:
    """The special strings that end a text besides the eos: as our own key names them, or a published list of ids."""
    own = read_optional(folder, "tokenizer_config.json").get(MORE_EOS)
    if isinstance(own, list):
        named = own
    else:
        lists = [read_optional(folder, file).get("eos_token_id") for file in ("generation_config.json", "config.json")]
        listed = next((value for value in lists if isinstance(value, list)), [])
        named = [name for id in listed for name in specials if ids[name] == id]
    return [name for name in dict.fromkeys(map(str, named)) if name in specials and name != eos]


def end_ids(roles: Mapping[str, str | None], more: Collection[str], ids: Mapping[str, int]) -> list[int]:
    """The ids that end a text, that of the eos first."""
    return [ids[name] for name in dict.fromkeys([roles.get("eos"), *more]) if name is not None]
