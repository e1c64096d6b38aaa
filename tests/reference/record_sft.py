"""Supervised fine-tuning by TRL: what its trainer logs of a few steps and of an evaluation, and the weights after them.

A tiny Qwen2 (and PEFT's adapter on it, `qwen/` has both) learns invented completions of invented prompts, given as
ids. The batches are noted as the trainer got them: for each the texts, and how many of their tokens are prompt.
"""

import random
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict
from record_common import HERE, fresh_folder, write_json, write_tensors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

STEPS, ACCUMULATION, ROWS, ROOM = 5, 2, 2, 24
SETTINGS = {"learning_rate": 0.02, "max_grad_norm": 0.5, "adam_beta2": 0.99}  # all steps are clipped
CASES = {"padded": False, "packed": True}
COLUMNS = ("step", "epoch", "loss", "grad_norm", "learning_rate", "entropy", "num_tokens", "mean_token_accuracy")


def examples(count: int, seed: int) -> Dataset:
    """Prompts of 2 to 5 ids, and completions of 1 to 9, few different ones, the last of which is 2."""
    source = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt = [source.randrange(3, 47) for _ in range(source.randint(2, 5))]
        answer = [*(source.randrange(3, 7) for _ in range(source.randint(0, 8))), 2]
        rows.append({"input_ids": prompt + answer, "completion_mask": [0] * len(prompt) + [1] * len(answer)})
    return Dataset.from_list(rows)


def texts_of(batch: dict[str, torch.Tensor]) -> list[list[Any]]:
    """[ids, tokens of the prompt] of each text in a batch of TRL's collator, padded or padding-free."""
    if "attention_mask" in batch:
        spans = [(row, 0, int(mask.sum())) for row, mask in enumerate(batch["attention_mask"])]
    else:
        starts = [*(batch["position_ids"][0] == 0).nonzero()[:, 0].tolist(), batch["position_ids"].shape[1]]
        spans = [(0, start, end) for start, end in pairwise(starts)]
    texts = []
    for row, start, end in spans:
        labels = batch["labels"][row, start:end]
        prompt = int((labels != -100).nonzero()[0])
        assert (labels[prompt:] == batch["input_ids"][row, start + prompt : end]).all()
        texts.append([batch["input_ids"][row, start:end].tolist(), prompt])
    return texts


class Trainer(SFTTrainer):
    """Notes the batches that it trains on."""

    def __init__(
        self, model: torch.nn.Module, folder: str, data: Dataset, tests: Dataset, tokenizer: Path, **options: Any
    ):
        settings = SFTConfig(
            folder, completion_only_loss=True, gradient_checkpointing=False, use_cpu=True, bf16=False, report_to="none",
            save_strategy="no", disable_tqdm=True, **options,
        )  # fmt: skip
        words = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), pad_token="<pad>", eos_token="</s>")
        self.texts: list[list[list[Any]]] = []
        super().__init__(model, settings, train_dataset=data, eval_dataset=tests, processing_class=words)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *arguments: Any) -> torch.Tensor:
        self.texts.append(texts_of(inputs))
        return super().training_step(model, inputs, *arguments)

    def logs(self) -> list[dict[str, float]]:
        """What it logged of its steps."""
        return [{name: row[name] for name in COLUMNS} for row in self.state.log_history if "grad_norm" in row]


def base(root: Path, adapter: bool) -> torch.nn.Module:
    """The tiny model, all of it to be trained; or frozen, with the recorded adapter to be trained."""
    model = AutoModelForCausalLM.from_pretrained(root / "qwen/qwen2", attn_implementation="eager")
    if adapter:
        model = PeftModel.from_pretrained(model, root / "qwen/qwen2_lora", is_trainable=True)
    return model


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What was trained, by the published names; the tied head is not there twice."""
    if isinstance(model, PeftModel):
        return get_peft_model_state_dict(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}


def train(root: Path, case: str, every: int, **options: Any) -> tuple[Trainer, torch.nn.Module]:
    model = base(root, adapter=CASES[case])
    if CASES[case]:
        options |= {"packing": True, "eval_packing": False, "max_length": ROOM, "per_device_train_batch_size": 1}
    plan = {"max_steps": STEPS, "gradient_accumulation_steps": ACCUMULATION, "lr_scheduler_type": "constant"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model, folder, examples(16, seed=1), examples(6, seed=2), root / "tokenizer/tokenizer.json",
            **{"logging_steps": every, "per_device_train_batch_size": ROWS} | plan | SETTINGS | options,
        )  # fmt: skip
        trainer.train()
    return trainer, model


def record_case(root: Path, case: str) -> dict[str, Any]:
    """What is logged at each step, and at every second one in a run of its own, and of evaluations after them."""
    values: dict[str, Any] = {"logs": {}, "eval": {}}
    for every in (1, 2):
        trainer, model = train(root, case, every)
        values["logs"][str(every)] = trainer.logs()
        assert values.setdefault("batches", trainer.texts) == trainer.texts
    assert len(trainer.texts) == STEPS * ACCUMULATION
    assert min(row["grad_norm"] for row in values["logs"]["1"]) > SETTINGS["max_grad_norm"], "a step is not clipped"
    for rows in (1, 6):
        trainer.args.per_device_eval_batch_size = rows
        found = trainer.evaluate()
        values["eval"][str(rows)] = {name: found[f"eval_{name}"] for name in ("loss", "entropy", "mean_token_accuracy")}
    values["eval"]["texts"] = [[row["input_ids"], row["labels"].count(-100)] for row in trainer.eval_dataset]
    write_tensors(root / f"sft/{case}.safetensors", weights(model))
    return values


def record(root: Path) -> None:
    fresh_folder(root / "sft")
    settings = SETTINGS | {"steps": STEPS, "accumulation": ACCUMULATION}
    write_json(root / "sft/runs.json", {case: record_case(root, case) for case in CASES} | {"settings": settings})


if __name__ == "__main__":
    torch.set_num_threads(1)
    record(HERE)
