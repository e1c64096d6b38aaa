"""What the live comparisons share: fresh random models of transformers, folders of them, and how to compare.

Every test gets its seed as a parameter, so that a failure names it; LIVE_SEED=<that seed> runs it again as the first,
LIVE_RUNS=<n> runs longer series.
"""

import os
import random
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

TOKENIZER = Path(__file__).resolve().parent.parent / "reference" / "tokenizer"
TOKENIZER_SIZE = 421
FIRST = int(os.environ.get("LIVE_SEED", random.SystemRandom().randrange(10**6)))
SEEDS = [FIRST + i for i in range(int(os.environ.get("LIVE_RUNS", "6")))]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_settings(seed: int) -> dict[str, object]:
    """The fields of a random GPT-2 config, every option that the package knows among them."""
    rng = random.Random(seed)
    n_head = rng.choice([1, 2, 3, 4])
    return {
        "vocab_size": TOKENIZER_SIZE + rng.choice([0, 0, 3, 11]),
        "n_positions": rng.choice([40, 64]),
        "n_head": n_head,
        "n_embd": n_head * rng.choice([4, 5, 8, 16]),
        "n_layer": rng.choice([1, 2, 3]),
        "n_inner": rng.choice([None, None, 7, 64, 80]),
        "activation_function": rng.choice(["gelu_new", "gelu_new", "gelu", "relu", "silu", "gelu_pytorch_tanh"]),
        "layer_norm_epsilon": rng.choice([1e-5, 1e-5, 1e-3, 1e-6]),
        "scale_attn_weights": rng.random() < 0.75,
        "scale_attn_by_inverse_layer_idx": rng.random() < 0.3,
        "tie_word_embeddings": rng.random() < 0.6,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


@torch.no_grad()
def randomise(model: nn.Module, seed: int, only: str = "", std: float = 0.2) -> nn.Module:
    """New random values for the parameters whose names hold `only`; those that are 1 (norms) stay near 1."""
    source = generator(seed)
    for name, parameter in model.named_parameters():
        if only in name:
            is_norm = parameter.ndim == 1 and not name.endswith("bias")
            noise = std * torch.randn(parameter.shape, generator=source)
            parameter.copy_(noise + 1 if is_norm else noise)
    return model.eval()


def theirs(seed: int) -> nn.Module:
    """A random GPT-2 of transformers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return randomise(GPT2LMHeadModel(GPT2Config(**random_settings(seed))), seed)


def save_theirs(model: nn.Module, folder: Path, **options: object) -> Path:
    """model.save_pretrained with a tokenizer beside it."""
    model.save_pretrained(folder, **options)
    for path in TOKENIZER.iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder


def random_ids(seed: int, batch_size: int = 3, length: int = 14) -> Tensor:
    """(B, T), ids of the tokenizer without the special ones."""
    return torch.randint(5, TOKENIZER_SIZE, (batch_size, length), generator=generator(seed))


def padding_mask(kind: str, seed: int, batch_size: int = 3, length: int = 14) -> Tensor:
    """(B, T): 1 real, 0 padding, at most length − 1 of it at the "left" or "right" of each row, or "none"."""
    amounts = torch.randint(0, length, (batch_size, 1), generator=generator(seed)) if kind != "none" else 0
    places = torch.arange(length).expand(batch_size, length)
    return ((places >= amounts) if kind == "left" else (places < length - amounts)).long()


@torch.no_grad()
def their_logits(model: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, T) -> (B, T, V), with positions that skip the padding, as generate() has them."""
    mask = torch.ones_like(ids) if mask is None else mask
    positions = (mask.cumsum(-1) - 1).clamp(min=0) * mask
    return model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits.float()


@torch.no_grad()
def our_logits(model: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    return model.eval()(ids, segments=mask).float()


def assert_same(ours: Tensor, theirs: Tensor, mask: Tensor | None = None, tolerance: float = 1e-5) -> None:
    """Equal to tolerance · max(1, max |theirs|), at real positions."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    if mask is not None:
        ours, theirs = ours[mask.bool()], theirs[mask.bool()]
    assert theirs.std() > 0.1, "the reference is near-constant and shows nothing"
    gap, limit = (ours - theirs).abs().max().item(), tolerance * max(1.0, theirs.abs().max().item())
    assert gap <= limit, f"they differ by {gap:.3g}, allowed is {limit:.3g}"
