"""Text to ids and back: our own letters, words and byte-level BPE, and the tokenizers of published models."""

from minipoet.tokenization.base import StreamDecoder, Tokenizer, encode_texts
from minipoet.tokenization.bpe import BPETokenizer
from minipoet.tokenization.bpe_train import train_bpe
from minipoet.tokenization.chars import CharTokenizer
from minipoet.tokenization.load import load_tokenizer
from minipoet.tokenization.published import PublishedTokenizer
from minipoet.tokenization.store import TokenStore, tokenized
from minipoet.tokenization.words import WordTokenizer, split_tokens

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "PublishedTokenizer",
    "StreamDecoder",
    "TokenStore",
    "Tokenizer",
    "WordTokenizer",
    "encode_texts",
    "load_tokenizer",
    "split_tokens",
    "tokenized",
    "train_bpe",
]
