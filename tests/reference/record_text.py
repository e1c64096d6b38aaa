"""A byte-level BPE trained by the tokenizers library, and its ids for awkward strings."""

from pathlib import Path

from record_common import fresh_folder, write_json
from record_corpus import CORPUS, STRINGS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]  # the ids 0-4 of ruGPT3
VOCAB_SIZE = 421


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def encodings(tokenizer: Tokenizer) -> list[dict]:
    """ids: no special id ever comes out of text; ids_with_specials: the library's default, where it differs."""
    rows = []
    for text in STRINGS:
        tokenizer.encode_special_tokens = True
        row = {"text": text, "ids": tokenizer.encode(text).ids}
        assert tokenizer.decode(row["ids"], skip_special_tokens=False) == text
        tokenizer.encode_special_tokens = False
        if (ids := tokenizer.encode(text).ids) != row["ids"]:
            row["ids_with_specials"] = ids
        rows.append(row)
    return rows


def broken_decodings(tokenizer: Tokenizer) -> list[dict]:
    """Ids that end or begin inside a letter, or are no UTF-8 at all: what decode makes of them."""
    whole = tokenizer.encode("ж€🦉").ids
    byte = tokenizer.get_vocab()
    names = sorted(pre_tokenizers.ByteLevel.alphabet(), key=ord)
    lonely = [byte[names[i]] for i in (0, 100, 150, 187, 200, 255)]
    lists = [whole[:-1], whole[:-2], whole[1:], whole[3:-1], lonely, lonely[::-1], [*whole, *lonely, *whole]]
    lists += [[i] for i in lonely] + [[1, *whole, 2], []]
    return [{"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False)} for ids in lists]


def record_tokenizer(root: Path) -> None:
    tokenizer = train_tokenizer()
    folder = fresh_folder(root / "tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    named = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")
    settings = {"add_prefix_space": False, "model_max_length": 32, "tokenizer_class": "GPT2Tokenizer"}
    write_json(folder / "tokenizer_config.json", named | settings)
    write_json(folder / "special_tokens_map.json", named)
    table = {"encode": encodings(tokenizer), "decode": broken_decodings(tokenizer), "specials": SPECIALS}
    write_json(root / "tokenizer_ids.json", table)


def record(root: Path) -> None:
    record_tokenizer(root)
