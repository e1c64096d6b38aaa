"""The optimiser and the learning rate: AdamW with decay groups, Adafactor, Muon for matrices, the older two; schedules.

Papers: AdamW https://arxiv.org/abs/1711.05101; Adafactor https://arxiv.org/abs/1804.04235;
Muon https://kellerjordan.github.io/posts/muon/
Chapter: docs/training.md
"""

from __future__ import annotations

import math

import torch
from torch import nn

from minipoet.training.settings import TrainSettings

# The paper's: at least 1e-30 for a squared gradient (PyTorch squares the first), 1e-3 for the size of a tensor.
# PyTorch's own first one, 1.2e-7, is far above the mean square of the gradients of a large model.
ADAFACTOR_EPS = (1e-15, 1e-3)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The factor on the learning rate at a step, counted from 0: linear warm-up, then the schedule, to `final_lr`."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = min(1.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    if settings.schedule == "constant":
        shape = 1.0
    elif settings.schedule == "cosine":
        shape = 0.5 * (1 + math.cos(math.pi * done))
    else:  # "linear": flat for the first part, then straight down
        shape = min(1.0, (1 - done) / settings.decay)
    return settings.final_lr + (1 - settings.final_lr) * shape


def make_optimizers(model: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """The optimisers for what is trainable in the model; every group remembers its `base_lr`.

    Decay pulls at matrices only: a bias or a norm's weight has a scale of its own. With `optimizer="muon"` the matrices
    of the blocks go to Muon, which makes each update orthogonal; embeddings, head and vectors stay with AdamW. The
    betas are AdamW's; the first is also the momentum of "sgd", the second how slowly "rmsprop" forgets.
    With "adafactor" the rate is relative to the size of each tensor: where one begins at 0, as LoRA's do, take AdamW.
    Raises ValueError if nothing trains, or if Muon would have nothing to do.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("Nothing to train: no parameter requires a gradient. Add an adapter, or unfreeze the model.")
    of_blocks = [(name, p) for name, p in trainable if p.ndim == 2 and "blocks" in name.split(".")]
    muon = of_blocks if settings.optimizer == "muon" else []
    if settings.optimizer == "muon" and not muon:
        raise ValueError("Muon is for the matrices of the blocks, and none of them trains here: use optimizer='adamw'.")
    ids = {id(p) for _, p in muon}
    rest = [p for _, p in trainable if id(p) not in ids]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[torch.optim.Optimizer] = []
    if groups and settings.optimizer == "sgd":
        optimizers.append(torch.optim.SGD(groups, lr=settings.lr, momentum=settings.betas[0]))
    elif groups and settings.optimizer == "rmsprop":
        optimizers.append(torch.optim.RMSprop(groups, lr=settings.lr, alpha=settings.betas[1]))
    elif groups and settings.optimizer == "adafactor":
        optimizers.append(torch.optim.Adafactor(groups, lr=settings.lr, eps=ADAFACTOR_EPS))
    elif groups:
        optimizers.append(torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=1e-8))
    if muon:
        optimizers.append(torch.optim.Muon(_muon_groups(model, muon, settings), lr=settings.muon_lr, momentum=0.95))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def _muon_groups(model: nn.Module, matrices: list[tuple[str, nn.Parameter]], settings: TrainSettings) -> list[dict]:
    """The matrices by the scale of their steps (`LanguageModel.step_scale`).

    A matrix that is another one times s, as T5's q is, goes the same way if its steps are s times as large, and its
    decay, of which the step takes its share, 1/s times.
    """
    scale = getattr(model, "step_scale", lambda name: 1.0)
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name, matrix in matrices:
        by_scale.setdefault(scale(name), []).append(matrix)
    rate, decay = settings.muon_lr, settings.weight_decay
    return [{"params": those, "lr": rate * s, "weight_decay": decay / s} for s, those in by_scale.items()]
