"""Supervised fine-tuning against TRL: fresh random models, texts and settings (seeds: live_support)."""

import random
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")
pytest.importorskip("datasets")
pytest.importorskip("peft")

from live_support import SEEDS, TOKENIZER
from peft import PeftModel
from safetensors.torch import load_file
from test_qwen_live import loud
from transformers import Qwen2Config, Qwen2ForCausalLM

import minipoet
from minipoet.models import load_model, save_model
from minipoet.training import TrainSettings, train
from minipoet.training.metrics import completion_metrics, logged

sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))
from record_sft import Trainer, examples
from test_metrics import Recorded, assert_same_way

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def model_of(seed: int, folder: Path) -> Path:
    """A folder with a random Qwen2."""
    rng = random.Random(seed)
    groups, size = rng.choice([1, 2]), rng.choice([4, 8])
    config = Qwen2Config(
        vocab_size=rng.choice([47, 64]), hidden_size=4 * size, intermediate_size=rng.choice([20, 40]),
        num_hidden_layers=rng.choice([1, 2]), num_attention_heads=4, num_key_value_heads=4 // groups,
        max_position_embeddings=64, tie_word_embeddings=rng.random() < 0.5, rope_theta=rng.choice([50.0, 1e4]),
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    loud(Qwen2ForCausalLM(config), seed).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("seed", SEEDS)
def test_logs_weights_and_evaluations_are_those_of_trl(seed: int, adapted: bool, tmp_path: Path) -> None:
    rng = random.Random(seed + 1000 * adapted)
    rows, every, clip, packed = rng.choice([2, 3]), rng.choice([1, 2]), rng.choice([0.3, 50.0]), rng.random() < 0.5
    schedule, rate, steps, accumulation = rng.choice(["constant", "linear"]), 0.01, 4, rng.choice([1, 2, 4])
    theirs, folder = Qwen2ForCausalLM.from_pretrained(model_of(seed, tmp_path / "base")), tmp_path / "base"
    ours = load_model(folder)
    if adapted:
        ours = minipoet.add_lora(ours, rank=rng.choice([1, 3]), alpha=5, targets=SEVEN, seed=seed)
        minipoet.save_adapter(ours, tmp_path / "start")
        theirs = PeftModel.from_pretrained(theirs, tmp_path / "start", is_trainable=True)
    options = {"packing": True, "eval_packing": False, "max_length": 24} if packed else {}
    trainer = Trainer(
        theirs, str(tmp_path / "run"), examples(rows * 24, seed), examples(7, seed + 50), TOKENIZER / "tokenizer.json",
        logging_steps=every, max_steps=steps, per_device_train_batch_size=1 if packed else rows, learning_rate=rate,
        max_grad_norm=clip, adam_beta2=0.95, lr_scheduler_type=schedule, gradient_accumulation_steps=accumulation,
        per_device_eval_batch_size=7, seed=seed, **options,
    )  # fmt: skip
    trainer.train()
    assert len(trainer.texts) == steps * accumulation
    settings = TrainSettings(
        steps, lr=rate, warmup=0, schedule=schedule, decay=1.0, betas=(0.9, 0.95), clip=clip, accumulation=accumulation,
        precision="fp32", metrics=True,
    )  # fmt: skip
    history = train(ours, Recorded(trainer.texts), settings, tmp_path / "ours", quiet=True)
    wanted = trainer.logs()
    steps_per_epoch = wanted[0]["step"] / wanted[0]["epoch"]
    assert logged(history, every, steps_per_epoch) == [pytest.approx(row, rel=1e-4) for row in wanted]
    assert_same_weights(ours, theirs, adapted, tmp_path)
    texts = [[row["input_ids"], row["labels"].count(-100)] for row in trainer.eval_dataset]
    found, expected = completion_metrics(ours, Recorded.of(texts)), trainer.evaluate()
    for name, value in (("loss", found.loss), ("entropy", found.entropy), ("mean_token_accuracy", found.accuracy)):
        assert value == pytest.approx(expected[f"eval_{name}"], rel=1e-4)


def assert_same_weights(ours: torch.nn.Module, theirs: torch.nn.Module, adapted: bool, folder: Path) -> None:
    """What both of them saved, by its names."""
    if adapted:
        minipoet.save_adapter(ours, folder / "one")
    else:
        save_model(ours, folder / "one")
    theirs.save_pretrained(folder / "other")
    name = "adapter_model.safetensors" if adapted else "model.safetensors"
    begun = folder / ("start" if adapted else "base")
    assert_same_way(*(load_file(side / name) for side in (folder / "one", folder / "other", begun)))
