"""What all the recording scripts share: writing files, random weights that make logits far from constant, batches."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path)


def fresh_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def randomise(model: torch.nn.Module, seed: int, std: float = 0.25) -> torch.nn.Module:
    """Random weights, biases and layer norms: the library's own start (std 0.02, zero biases) hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm_weight = ".ln_" in name and name.endswith("weight")
            parameter.copy_(1 + 0.3 * noise if is_norm_weight else std * noise)
    return model.eval()


def random_ids(vocab_size: int, batch_size: int, length: int, seed: int) -> torch.Tensor:
    """(B, T), no id 0: that one is the padding."""
    return torch.randint(1, vocab_size, (batch_size, length), generator=torch.Generator().manual_seed(seed))


def position_ids(mask: torch.Tensor) -> torch.Tensor:
    """(B, T) -> (B, T): what generate() feeds; padding gets position 0."""
    return (mask.cumsum(-1) - 1).clamp(min=0) * mask


def padding_masks(batch_size: int, length: int, amount: int = 4) -> dict[str, torch.Tensor]:
    """Three masks (B, T): no padding, and padding at the left or the right of every row but the first."""
    full, left, right = (torch.ones(batch_size, length, dtype=torch.long) for _ in range(3))
    left[1:, :amount] = 0
    right[1:, -amount:] = 0
    return {"full": full, "left": left, "right": right}
