"""What a fresh process of bench_qwen.py does on either side, "ours" or "theirs", and the memory that it takes.

load    a model and its first logits
write   new tokens, greedy
step    steps of LoRA
peak    the memory of a block of code at the most
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PROMPT = 32  # ids
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LR = 1e-3


def versions() -> str:
    """What the reference side runs on; "" where it is not installed."""
    try:
        import peft
        import torch
        import transformers
    except ImportError:
        return ""

    return f"transformers {transformers.__version__}, peft {peft.__version__}, torch {torch.__version__}"


def status(field: str) -> int:
    """Bytes, of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(f"{field}:"))


@contextmanager
def peak() -> Iterator[dict[str, float]]:
    """MB that this process had more than before at the most, {"resident": …, "own": …}; looked at every 10 ms."""
    before = {"resident": status("VmRSS"), "own": status("RssAnon")}
    most, done = dict(before), threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            most["own"] = max(most["own"], status("RssAnon"))
            most["resident"] = max(most["resident"], status("VmRSS"))

    thread, found = threading.Thread(target=look), {}
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        found |= {what: (most[what] - before[what]) / 1e6 for what in most}


def load_ours(folder: str) -> Any:
    from minipoet.models import load_model

    return load_model(folder)


def load_theirs(folder: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def load(side: str, folder: str, clock: str) -> dict[str, float]:
    """Seconds to the model and to its first logits, and the memory of both."""
    import torch

    now = getattr(time, clock)

    import_side(side)
    with peak() as memory, torch.inference_mode():
        started = now()
        model = load_ours(folder) if side == "ours" else load_theirs(folder)
        loaded = now() - started
        logits = model(torch.arange(8)[None])
        assert torch.isfinite(logits if side == "ours" else logits.logits).all()
        answered = now() - started
    return {"model": loaded, "logits": answered} | memory


def import_side(side: str) -> None:
    """All that is imported anyway, so that it is not measured."""
    if side == "ours":
        import minipoet  # noqa: F401
    else:
        import peft  # noqa: F401
        from transformers import Qwen2ForCausalLM  # noqa: F401


def write(side: str, folder: str, clock: str, batches: list[int], tokens: int, packed: bool = False) -> dict[str, Any]:
    """New tokens a second by the number of poems, and the ids that came."""
    import torch

    now = getattr(time, clock)

    import_side(side)
    with peak() as memory:
        model = load_ours(folder) if side == "ours" else load_theirs(folder)
        if packed:
            from minipoet.models import pack_weights

            pack_weights(model)
        found: dict[str, Any] = {}
        for batch in batches:
            prompts = torch.randint(150_000, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))
            go_on = our_ids if side == "ours" else their_ids
            go_on(model, prompts, 2)
            started = now()
            ids = go_on(model, prompts, tokens)
            assert all(len(row) == tokens for row in ids)
            found[str(batch)] = {"rate": batch * tokens / (now() - started), "ids": ids}
    return found | memory


def our_ids(model: Any, prompts: Any, tokens: int) -> list[list[int]]:
    from minipoet.generation import SamplingSettings, generate_ids

    settings = SamplingSettings(max_new_tokens=tokens, temperature=0)
    return [list(poem.ids) for poem in generate_ids(model, prompts.tolist(), settings)]


def their_ids(model: Any, prompts: Any, tokens: int) -> list[list[int]]:
    import torch

    model.generation_config.eos_token_id = None
    mask = torch.ones_like(prompts)
    new = model.generate(prompts, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return new[:, prompts.shape[1] :].tolist()


def step(side: str, folder: str, clock: str, rows: int, length: int, steps: int) -> dict[str, Any]:
    """The seconds and the loss of each step, parameters that train and all, and the memory of model and steps."""
    import torch

    now = getattr(time, clock)

    import_side(side)
    ids = torch.randint(150_000, (steps, rows, length), generator=torch.Generator().manual_seed(length))
    with peak() as memory:
        model = load_ours(folder) if side == "ours" else load_theirs(folder)
        torch.manual_seed(0)
        model, loss_of = our_lora(model) if side == "ours" else their_lora(model)
        model.train()
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, LR, weight_decay=0.0)
        seconds, losses = [], []
        for batch in ids:
            started = now()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            seconds.append(now() - started)
    parameters = [sum(p.numel() for p in trainable), sum(p.numel() for p in model.parameters())]
    return {"seconds": seconds, "losses": losses, "parameters": parameters} | memory


def our_lora(model: Any) -> tuple[Any, Callable]:
    import torch

    import minipoet
    from minipoet.training import Batch, batch_loss
    from minipoet.training.batch import IGNORED

    minipoet.add_lora(model, rank=8, targets="all-linear")
    model.gradient_checkpointing = True

    def loss_of(model: Any, ids: Any) -> Any:
        targets = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)], dim=1)
        return batch_loss(model, Batch(ids, torch.ones_like(ids), targets)) / (targets != IGNORED).sum()

    return model, loss_of


def their_lora(model: Any) -> tuple[Any, Callable]:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=list(LINEAR), task_type="CAUSAL_LM"))
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model, lambda model, ids: model(input_ids=ids, labels=ids, use_cache=False).loss
