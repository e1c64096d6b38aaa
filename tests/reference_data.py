"""Where the recorded outputs of the reference libraries lie (tests/reference/README.md says what each one is)."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).resolve().parent / "reference"


def reference(name: str) -> Path:
    """The path of a recorded file or folder: reference("gpt2/plain")."""
    path = FOLDER / name
    assert path.exists(), f"{path} is not there: record it with tests/reference/record.py"
    return path


def load_tensors(name: str) -> dict[str, Tensor]:
    """The tensors of <name>.safetensors: load_tensors("gpt2/plain.outputs")["full.logits"]."""
    return load_file(reference(f"{name}.safetensors"))


def load_json(name: str) -> Any:
    """The value in <name>.json: load_json("decoding/greedy")["prompts"]."""
    return json.loads(reference(f"{name}.json").read_text(encoding="utf-8"))
