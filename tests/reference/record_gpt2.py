"""GPT-2 checkpoints written by transformers in the forms that publishers ship, and the logits that belong to them."""

import json
import shutil
from pathlib import Path

import torch
from record_common import fresh_folder, padding_masks, position_ids, random_ids, randomise, write_json, write_tensors
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

SPECIALS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
PLAIN = dict(vocab_size=97, n_positions=32, n_embd=32, n_layer=2, n_head=4) | SPECIALS
SMALL = PLAIN | dict(n_embd=24, n_head=3)  # other shapes for the options, and less to store
OPTIONS = {
    "options": dict(
        n_layer=3, n_inner=80, scale_attn_by_inverse_layer_idx=True, activation_function="gelu", layer_norm_epsilon=1e-3
    ),
    "unscaled_relu": dict(scale_attn_weights=False, activation_function="relu", n_head=2),
    "untied": dict(tie_word_embeddings=False),
}
CHUNKS = (5, 1, 6)  # how the 12 tokens are read through a cache
LENGTH = sum(CHUNKS)
GRADIENTS = ("transformer.h.0.attn.c_attn.weight", "transformer.wte.weight")


def plain_model() -> GPT2LMHeadModel:
    """The seed is one whose greedy text does not fall at once into repeating one token."""
    return randomise(GPT2LMHeadModel(GPT2Config(**PLAIN)), seed=20)


@torch.no_grad()
def logits_of(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return model(ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False).logits


@torch.no_grad()
def cached_logits_of(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, T, V), read in CHUNKS through transformers' own cache."""
    positions, past, start, pieces = position_ids(mask), None, 0, []
    for size in CHUNKS:
        end = start + size
        out = model(
            ids[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=positions[:, start:end],
            past_key_values=past,
            use_cache=True,
        )
        pieces.append(out.logits)
        past, start = out.past_key_values, end
    return torch.cat(pieces, dim=1)


def outputs(model: torch.nn.Module, seed: int = 2) -> dict[str, torch.Tensor]:
    """ids, three masks and their logits; logits at padding are set to 0, they mean nothing."""
    ids = random_ids(model.config.vocab_size, 2, LENGTH, seed)
    tensors = {"ids": ids}
    for name, mask in padding_masks(2, LENGTH).items():
        tensors[f"{name}.mask"] = mask
        tensors[f"{name}.logits"] = logits_of(model, ids, mask) * mask.unsqueeze(-1)
    left = tensors["left.mask"]
    tensors["left.cached_logits"] = cached_logits_of(model, ids, left) * left.unsqueeze(-1)
    assert tensors["full.logits"].std(dim=-1).mean() > 0.5, "the logits are near-constant"
    return tensors


def gradients(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean cross-entropy of the next tokens, two gradients and the L2 norm of all of them."""
    model.zero_grad()
    loss = model(ids, labels=ids).loss
    loss.backward()
    named = dict(model.named_parameters())
    norm = torch.stack([parameter.grad.norm() for parameter in named.values()]).norm()
    return {"loss": loss, "grad_norm": norm} | {f"grad.{name}": named[name].grad for name in GRADIENTS}


def save_and_check(model: torch.nn.Module, folder: Path, **options: object) -> None:
    """Write the folder with the library, read it back, and see that the logits stayed."""
    model.save_pretrained(fresh_folder(folder), **options)
    check_loads(model, folder)


def check_loads(model: torch.nn.Module, folder: Path) -> None:
    ids, mask = random_ids(model.config.vocab_size, 2, LENGTH, 2), torch.ones(2, LENGTH, dtype=torch.long)
    for attention in ("eager", "sdpa"):
        again = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=model.dtype).eval()
        torch.testing.assert_close(logits_of(again, ids, mask), logits_of(model, ids, mask), atol=1e-5, rtol=1e-5)


def save_old_bin(model: GPT2LMHeadModel, folder: Path) -> None:
    """As published in 2019-2020: no "transformer." prefix, causal-mask buffers inside, the pickle format before zip."""
    state = {name.removeprefix("transformer."): tensor for name, tensor in model.transformer.state_dict().items()}
    size = model.config.n_positions
    for i in range(model.config.n_layer):
        state[f"h.{i}.attn.bias"] = torch.tril(torch.ones(size, size, dtype=torch.uint8)).view(1, 1, size, size)
        state[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(state, fresh_folder(folder) / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    old = dict(PLAIN, n_ctx=size, architectures=["GPT2LMHeadModel"], model_type="gpt2", activation_function="gelu_new")
    old |= dict(attn_pdrop=0.1, embd_pdrop=0.1, resid_pdrop=0.1, layer_norm_epsilon=1e-05, initializer_range=0.02)
    write_json(folder / "config.json", old)
    check_loads(model, folder)


def record_halves(model: GPT2LMHeadModel, out: Path) -> None:
    """Stored in 16 bits; the logits are those of the stored weights computed in fp32."""
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        plain_model().to(dtype).save_pretrained(fresh_folder(out / name))
        again = AutoModelForCausalLM.from_pretrained(out / name, dtype=torch.float32).eval()
        write_tensors(out / f"{name}.outputs.safetensors", outputs(again))


def record_padded(out: Path, tokenizer: Path) -> None:
    """More embedding rows than the tokenizer has ids; the spare rows are loud, so that an unmasked one is chosen."""
    known = len(json.loads((tokenizer / "vocab.json").read_text(encoding="utf-8")))
    rows = known + 7
    model = randomise(GPT2LMHeadModel(GPT2Config(**(PLAIN | dict(vocab_size=rows, n_embd=16, n_head=2)))), seed=9)
    with torch.no_grad():
        model.transformer.wte.weight[known:] *= 4
    save_and_check(model, out / "padded")
    for path in tokenizer.iterdir():
        shutil.copyfile(path, out / "padded" / path.name)
    ids, mask = random_ids(known, 2, LENGTH, 2), torch.ones(2, LENGTH, dtype=torch.long)
    options = dict(do_sample=False, max_new_tokens=15, eos_token_id=None)
    free = model.generate(ids, attention_mask=mask, **options)
    masked = model.generate(ids, attention_mask=mask, suppress_tokens=list(range(known, rows)), **options)
    assert (free >= known).any() and not (masked >= known).any()
    tensors = {"ids": ids, "full.logits": logits_of(model, ids, mask)}
    tensors |= {"greedy": free, "greedy_without_spare_rows": masked}
    write_tensors(out / "padded.outputs.safetensors", tensors)
    write_json(out / "padded.json", {"tokenizer_size": known, "embedding_rows": rows})


def record(root: Path) -> None:
    out = root / "gpt2"
    model = plain_model()
    save_and_check(model, out / "plain")
    save_and_check(model, out / "sharded", max_shard_size="50KB")
    save_old_bin(model, out / "old_bin")
    tensors = outputs(model)
    write_tensors(out / "plain.outputs.safetensors", tensors)
    write_tensors(out / "plain.gradients.safetensors", {"ids": tensors["ids"]} | gradients(model, tensors["ids"]))
    for seed, (name, settings) in enumerate(OPTIONS.items(), start=3):
        other = randomise(GPT2LMHeadModel(GPT2Config(**(SMALL | settings))), seed=seed)
        save_and_check(other, out / name)
        write_tensors(out / f"{name}.outputs.safetensors", outputs(other))
    record_halves(model, out)
    record_padded(out, root / "tokenizer")
