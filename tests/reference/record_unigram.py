"""What sentencepiece answers: two small models, trained on the package's own prose and verse, and their cuts."""

import contextlib
import io
import random
import tempfile
from pathlib import Path

import sentencepiece
from record_common import HERE, fresh_folder, write_json

ASSETS = HERE.parent.parent / "minipoet" / "assets"
T5_IDS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
RULES = "2026\t2E 2E 2E\nA0\t20\n9\t20\n200B\t\nFB01\t66 69\n2116\t4E 6F\n435 308\t451\n41\t61\n"
MODELS = {
    "plain": {"normalization_rule_name": "identity", "vocab_size": 500},
    "options": {
        "byte_fallback": True,
        "user_defined_symbols": ["<sep>", "км/ч", "ого"],
        "control_symbols": ["[MASK]"],
        "unk_piece": "[UNK]",
        "vocab_size": 800,
    },
}
TEXTS = [
    "",
    "  ",
    "а",
    " Старый  маяк над бухтой ",
    "Снег, снег… и — тишина!",
    "ёлка-палка, ещё-ещё",
    "маяк\u00a0светит\u200b всю\tночь\u3000до утра",
    "ﬁнал № 7 из 1234567890",
    "е\u0308лка и\u0306 а\u0301 e\u0301",
    "🌲🌲 лес 👨‍👩‍👧 дом",
    "Hello, World! AAA",
    "смотритель" * 12,
    "▁а▁ б▁",
    "<unk> </s> <pad> [MASK] [UNK]",
    "привет<sep>мир <sep> 60км/ч",
    "дорого много ничего огород огого строгого",
    "שלום мир नमस्ते",
    "строка\nдругая\r\n\nтретья",
]


def random_texts(seed: int, number: int) -> list[str]:
    rng = random.Random(seed)
    letters = [chr(c) for c in [*range(0x20, 0x3C), *range(0x3D, 0x7F), *range(0x410, 0x450)]]
    awkward = [*" \t\u00a0—ё🦉", "  ", "снег", "ночью", "ого"]
    return ["".join(rng.choices(letters + awkward * 4, k=rng.randint(1, 30))) for _ in range(number)]


def record(root: Path) -> None:
    folder = fresh_folder(root / "unigram")
    texts = TEXTS + random_texts(0, 150)
    files = sorted(ASSETS.glob("*_manner.txt"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line[:1] not in "#*"]
    for name, options in MODELS.items():
        written = io.BytesIO()
        with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):  # the path is kept in the model
            Path("rules.tsv").write_text(RULES, encoding="utf-8")
            table = {} if "normalization_rule_name" in options else {"normalization_rule_tsv": "rules.tsv"}
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), model_writer=written, num_threads=1, minloglevel=2,
                model_type="unigram", **T5_IDS, **table, **options,
            )  # fmt: skip
        (folder / f"{name}.model").write_bytes(written.getvalue())
        model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
        size = model.get_piece_size()
        ids = [model.encode(text) for text in texts]
        write_json(
            folder / f"{name}.json",
            {
                "texts": texts,
                "ids": [" ".join(map(str, row)) for row in ids],
                "decoded": [model.decode(row) for row in ids],
                "pieces": " ".join(model.id_to_piece(id) for id in range(size)),
                "scores": " ".join(f"{model.get_score(id):.9g}" for id in range(size)),
            },
        )
