"""A folder becomes a tokenizer. Which kind it holds is said by the key "minipoet" of its tokenizer_config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path

from minipoet.checks import as_path
from minipoet.tokenization.base import Tokenizer
from minipoet.tokenization.bpe_files import read_bpe
from minipoet.tokenization.chars import CharTokenizer
from minipoet.tokenization.published import PublishedTokenizer
from minipoet.tokenization.roles import read_optional
from minipoet.tokenization.words import WordTokenizer

# Our own kinds: the word that `save` writes under "minipoet", and who reads such a folder.
READERS: Mapping[str, Callable[[Path], Tokenizer]] = {
    "bpe": read_bpe,
    "chars": CharTokenizer.from_folder,
    "words": WordTokenizer.from_folder,
}


def load_tokenizer(folder: str | PathLike[str]) -> Tokenizer:
    """The tokenizer of a folder: one of our own if it was saved by this package, else a published one.

    Raises FileNotFoundError if the folder or a file is missing, ValueError that names a broken or unknown file.
    """
    folder = as_path(folder, "The folder of a tokenizer")
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"{folder} {what}: expected the folder of a model, with tokenizer.json, "
            f"spiece.model, or vocab.json and merges.txt in it "
            "(what has a name, minipoet.load gives with its model)."
        )
    kind = read_optional(folder, "tokenizer_config.json").get("minipoet")
    if kind is None:
        return PublishedTokenizer.from_folder(folder)
    if not isinstance(kind, str) or kind not in READERS:
        raise ValueError(
            f'{folder / "tokenizer_config.json"} says "minipoet": {kind!r}, and this version knows {sorted(READERS)}: '
            "a newer minipoet wrote it, or it was changed by hand."
        )
    return READERS[kind](folder)
