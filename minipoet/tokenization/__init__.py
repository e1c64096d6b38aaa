"""Text to ids and back: our own letters, words and byte-level BPE, published tokenizers, and conversations."""

from minipoet.tokenization.base import StreamDecoder, Tokenizer, encode_texts, start_id
from minipoet.tokenization.bpe import BPETokenizer
from minipoet.tokenization.bpe_train import train_bpe
from minipoet.tokenization.chars import CharTokenizer
from minipoet.tokenization.chat import PLAIN, QWEN2, QWEN2_5, QWEN3, ChatTemplate, Message, chat_template
from minipoet.tokenization.load import load_tokenizer
from minipoet.tokenization.published import PublishedTokenizer
from minipoet.tokenization.store import TokenStore, tokenized
from minipoet.tokenization.unigram_train import train_unigram
from minipoet.tokenization.words import WordTokenizer, split_tokens

__all__ = [
    "PLAIN",
    "QWEN2",
    "QWEN2_5",
    "QWEN3",
    "BPETokenizer",
    "CharTokenizer",
    "ChatTemplate",
    "Message",
    "PublishedTokenizer",
    "StreamDecoder",
    "TokenStore",
    "Tokenizer",
    "WordTokenizer",
    "chat_template",
    "encode_texts",
    "load_tokenizer",
    "split_tokens",
    "start_id",
    "tokenized",
    "train_bpe",
    "train_unigram",
]
