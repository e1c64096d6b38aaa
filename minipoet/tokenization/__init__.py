"""Text to ids and back: our own byte-level BPE, and the tokenizers of published models."""

from minipoet.tokenization.base import StreamDecoder, Tokenizer, encode_texts
from minipoet.tokenization.bpe import BPETokenizer
from minipoet.tokenization.bpe_train import train_bpe
from minipoet.tokenization.load import load_tokenizer
from minipoet.tokenization.published import PublishedTokenizer

__all__ = [
    "BPETokenizer",
    "PublishedTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "encode_texts",
    "load_tokenizer",
    "train_bpe",
]
