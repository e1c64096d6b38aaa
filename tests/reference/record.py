"""Record the reference outputs in this folder: what transformers, PEFT, tokenizers and sacrebleu answer.

The package depends on none of them; its tests compare against these files. Run it in an environment of its own:
    python3 -m venv ref && ref/bin/pip install torch==2.13.0
    ref/bin/pip install transformers==5.23.0 peft==0.21.2 tokenizers==0.23.3 safetensors==0.8.0 sacrebleu==2.6.0 \
        trl==1.16.0 sentencepiece==0.2.3
    ref/bin/python tests/reference/record.py [OUT]
Without OUT the files beside this script are replaced. Every section draws from seeds of its own.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import record_adapters
import record_beams
import record_chat
import record_chrf
import record_counts
import record_decoding
import record_gpt2
import record_prefix
import record_qwen
import record_sft
import record_t5
import record_text
import record_unigram
import torch
from record_common import HERE, write_json

LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "sacrebleu", "trl", "sentencepiece")
# The tokenizer first: record_gpt2 copies its files.
SECTIONS = (
    record_text, record_chrf, record_gpt2, record_decoding, record_beams, record_adapters, record_counts, record_prefix,
    record_qwen, record_chat, record_sft, record_unigram, record_t5,
)  # fmt: skip


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    torch.set_num_threads(1)
    for section in SECTIONS:
        print(section.__name__)
        section.record(out)
    write_json(out / "versions.json", {name: version(name) for name in LIBRARIES})
    files = [path for path in out.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.2f} MB in {out}")


if __name__ == "__main__":
    main()
