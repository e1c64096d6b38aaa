"""Greedy continuations of transformers, and what its logits processors do to rows with ties."""

from pathlib import Path

import torch
from record_common import random_ids, write_json, write_tensors
from record_gpt2 import plain_model
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

LENGTHS = (3, 8, 1, 5)
NEW_TOKENS = 15
CLASSES = {  # in the order in which transformers applies them
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
}
CASES = [
    {"temperature": 0.7},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 100},
    {"top_p": 0.05},
    {"top_p": 0.5},
    {"top_p": 0.9},
    {"min_p": 0.02},
    {"min_p": 0.3},
    {"min_p": 1.0},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"temperature": 0.6, "top_k": 9, "top_p": 0.8},
    {"repetition_penalty": 1.3, "temperature": 0.8, "top_k": 12, "top_p": 0.95, "min_p": 0.05},
    {"repetition_penalty": 1.1, "temperature": 1.7, "top_p": 0.7, "min_p": 0.1},
]


def left_padded(rows: list[list[int]], pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids -> ids (B, T) and attention mask (B, T)."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def greedy(model: torch.nn.Module, prompts: list[list[int]], eos: int | None, penalty: float) -> tuple[list, float]:
    """The new ids of every prompt, and the smallest gap between the best and the second-best score met on the way."""
    ids, mask = left_padded(prompts)
    model.generation_config.eos_token_id = eos
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        repetition_penalty=penalty,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    top2 = torch.stack(out.scores).topk(2, dim=-1).values
    return out.sequences[:, ids.shape[1] :].tolist(), (top2[..., 0] - top2[..., 1]).min().item()


def late_token(rows: list[list[int]]) -> int:
    """A token that two rows or more reach, as late as can be: as the end of text it ends rows at different steps."""
    shared = {token for row in rows for token in row if sum(token in other for other in rows) > 1}
    return max(sorted(shared), key=lambda token: min(row.index(token) for row in rows if token in row))


def record_greedy(path: Path) -> None:
    model = plain_model()
    prompts = [random_ids(97, 1, length, seed=20 + length)[0].tolist() for length in LENGTHS]
    free, _ = greedy(model, prompts, None, 1.0)
    eos = late_token(free)
    cases = []
    for end, penalty in ((None, 1.0), (None, 1.3), (eos, 1.0), (eos, 1.3)):
        new, gap = greedy(model, prompts, end, penalty)
        assert gap > 1e-4, f"two tokens are too close to call: {gap}"
        case = {"eos_token_id": end, "repetition_penalty": penalty, "new_ids": new}
        cases.append(case | {"smallest_gap": round(gap, 5)})
    settings = {"pad_token_id": 0, "max_new_tokens": NEW_TOKENS, "model": "gpt2/plain", "prompts": prompts}
    write_json(path, settings | {"cases": cases})


def processors(case: dict[str, float]) -> LogitsProcessorList:
    return LogitsProcessorList([CLASSES[name](case[name]) for name in CLASSES if name in case])


def cuts_through_a_tie(scores: torch.Tensor, result: torch.Tensor, case: dict[str, float]) -> bool:
    """Is a removed score equal to a kept one of its row? Then which of the two stays is no more than sorting order."""
    before = LogitsProcessorList(p for p in processors(case) if not hasattr(p, "filter_value"))(HISTORY, scores.clone())
    removed = result.isinf()
    return any(set(before[i][removed[i]].tolist()) & set(before[i][~removed[i]].tolist()) for i in range(len(before)))


HISTORY = torch.tensor([[3, 3, 7, 11], [0, 1, 2, 15], [9, 10, 4, 4], [5, 6, 5, 6]])


def record_processors(out: Path) -> None:
    """(4, 16) rows rounded to quarters (ties), one row of equal scores in pairs, and one very peaked row."""
    generator = torch.Generator().manual_seed(31)
    scores = (torch.randn(4, 16, generator=generator) * 12).round() / 4
    scores[2] = torch.arange(16).div(2, rounding_mode="floor").flip(0) * 0.5 - 2
    scores[3, 5] = 25.0
    tensors, cases = {"scores": scores, "history": HISTORY}, []
    for i, case in enumerate(CASES):
        result = processors(case)(HISTORY, scores.clone())
        tensors[f"case{i}"] = result
        tie = cuts_through_a_tie(scores, result, case)
        cases.append({"settings": case, "tensor": f"case{i}", "cuts_through_a_tie": tie})
    write_tensors(out / "processors.safetensors", tensors)
    write_json(out / "processors.json", {"order": list(CLASSES), "cases": cases})


def record(root: Path) -> None:
    record_greedy(root / "decoding" / "greedy.json")
    record_processors(root / "decoding")
