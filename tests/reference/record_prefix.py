"""Prefixes written by PEFT on gpt2/plain: logits, gradients and a greedy continuation with them, and the counts."""

import json
from pathlib import Path

import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from record_adapters import IDS, LEFT, left_logits
from record_common import fresh_folder, write_json, write_tensors
from record_counts import SHAPES, meta_model
from record_gpt2 import LENGTH, logits_of, plain_model
from safetensors.torch import load_file

FULL = torch.ones_like(LEFT)
OLD_KEYS = """base_model_name_or_path encoder_hidden_size inference_mode num_attention_heads num_layers
    num_transformer_submodules num_virtual_tokens peft_type prefix_projection task_type token_dim"""
PREFIXES = {  # the zero prefix stays as PEFT starts it
    "plain": dict(num_virtual_tokens=5),
    "projection": dict(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=12),
    "zero": dict(num_virtual_tokens=4, init_weights="zero"),
}
MLP = {  # PEFT's name: that of prefix_mlp.safetensors
    "embedding.weight": "tokens",
    "transform.0.weight": "up.weight",
    "transform.0.bias": "up.bias",
    "transform.2.weight": "down.weight",
    "transform.2.bias": "down.bias",
}
NEW = 8  # greedy tokens; 5 + 12 + 8 places of 32


def prefixed(settings: dict, seed: int) -> PeftModel:
    """gpt2/plain, with a prefix of loud random numbers unless it starts at zero."""
    base = plain_model()
    base.name_or_path = base.config._name_or_path = "gpt2/plain"
    torch.manual_seed(seed)
    model = get_peft_model(base, PrefixTuningConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.prompt_encoder.parameters() if "init_weights" not in settings else ():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def save_prefix(model: PeftModel, folder: Path) -> None:
    model.save_pretrained(fresh_folder(folder))
    (folder / "README.md").unlink(missing_ok=True)  # a model card of 5 KB that says nothing


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    """The mean cross-entropy of the next tokens, and its gradient by each parameter of the prefix."""
    model.zero_grad()
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    named = dict(model.prompt_encoder["default"].named_parameters())
    names = MLP if len(named) > 1 else {"embedding.weight": "numbers"}
    return {"loss": loss} | {f"grad.{names[name]}": parameter.grad for name, parameter in named.items()}


def record_one(settings: dict, seed: int, out: Path, name: str) -> dict[str, int]:
    """The prefix's folder and what the model says with it; returns PEFT's own counts while it is learnt."""
    model = prefixed(settings, seed)
    save_prefix(model, out / name)
    trainable, total = model.get_nb_trainable_parameters()
    logits = {"full": logits_of(model, IDS, FULL), "left": left_logits(model)}
    with torch.no_grad():  # without positions, as in training: they are counted from behind the prefix
        assert torch.equal(model(IDS).logits, logits["full"])
    again = PeftModel.from_pretrained(plain_model(), out / name).eval()
    torch.testing.assert_close(left_logits(again), logits["left"], atol=1e-5, rtol=1e-5)  # an MLP rounds by the batch
    assert (logits["left"] - left_logits(plain_model())).abs().max() > 0.1, "the prefix does nothing"
    tensors = {"ids": IDS, "left.mask": LEFT} | {f"{case}.logits": value for case, value in logits.items()}
    tensors |= gradients(model)
    options = dict(do_sample=False, max_new_tokens=NEW, eos_token_id=None)
    tensors["left.greedy"] = model.generate(input_ids=IDS, attention_mask=LEFT, **options)[:, LENGTH:]
    if "prefix_projection" in settings:
        mlp = model.prompt_encoder["default"].state_dict()
        tensors |= {f"mlp.{ours}": mlp[theirs] for theirs, ours in MLP.items()}
    write_tensors(out / f"{name}.outputs.safetensors", tensors)
    return {"trainable": trainable, "all": total}


def record_old_bin(out: Path) -> None:
    """The prefix `plain` as PEFT wrote it before safetensors: adapter_model.bin, and a config of fewer keys."""
    folder = fresh_folder(out / "plain_old_bin")
    torch.save(load_file(out / "plain" / "adapter_model.safetensors"), folder / "adapter_model.bin")
    config = json.loads((out / "plain" / "adapter_config.json").read_text(encoding="utf-8"))
    write_json(folder / "adapter_config.json", {key: config[key] for key in OLD_KEYS.split()})
    one, two = (PeftModel.from_pretrained(plain_model(), out / name).eval() for name in ("plain", "plain_old_bin"))
    assert torch.equal(left_logits(one), left_logits(two))


def record_counts(out: Path) -> None:
    """15 virtual tokens on the public shapes of ruGPT3, plain and by an MLP of 512, on meta tensors."""
    table = {}
    for name, shape in SHAPES.items():
        table[name] = {"config": shape}
        for kind, settings in (("plain", {}), ("projection", dict(prefix_projection=True, encoder_hidden_size=512))):
            config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=15, **settings)
            with torch.device("meta"):
                model = get_peft_model(meta_model(shape), config)
            table[name][kind] = dict(zip(("trainable", "all"), model.get_nb_trainable_parameters(), strict=True))
    write_json(out / "counts_full_size.json", table)


def record(root: Path) -> None:
    out = root / "prefix"
    counts = {name: record_one(kw, seed, out, name) for seed, (name, kw) in enumerate(PREFIXES.items(), start=60)}
    write_json(out / "counts.json", counts)
    record_old_bin(out)
    record_counts(out)
