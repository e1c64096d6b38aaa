"""Shared by the tests of quantisation: folders as AutoGPTQ writes them, packed by NumPy's own bits, and their twins."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from minipoet.models import LanguageModel, save_model
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.qwen2 import Qwen2, Qwen2Config
from minipoet.quantization import Codes, GPTQLinear, QuantConfig, round_to_nearest

IDS = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(0))


def tiny(family: str = "gpt2", seed: int = 0) -> LanguageModel:
    """A random model whose matrices fill whole words, with weights large enough to show a difference."""
    if family == "gpt2":
        still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        model: LanguageModel = GPT2(GPT2Config(vocab_size=80, n_positions=32, n_embd=64, n_layer=2, n_head=4, **still))
    else:
        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
        model = Qwen2(Qwen2Config(vocab_size=80, num_hidden_layers=2, **sizes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.15
            parameter.copy_((noise + (parameter == 1)).half())  # as a published file holds them
    return model.eval()


def quantised(model: LanguageModel, config: QuantConfig) -> LanguageModel:
    """The model with its blocks' layers rounded to nearest, frozen."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear) and name.startswith("blocks."):
            model.set_submodule(name, GPTQLinear.of(round_to_nearest(layer.weight, config), layer.bias))
    return model.requires_grad_(False)


def random_codes(bits: int, n_in: int = 64, n_out: int = 96, group: int = 32, order: bool = False) -> Codes:
    """Codes, scales and zeros at random, all values of each among them; order: groups in no order, as act-order has."""
    generator = torch.Generator().manual_seed(bits + n_in)
    groups = -(-n_in // group)
    g_idx = torch.arange(n_in, dtype=torch.int32) // group
    if order:
        g_idx = g_idx[torch.randperm(n_in, generator=generator)]
    return Codes(
        torch.randint(0, 2**bits, (n_out, n_in), generator=generator).to(torch.uint8),
        (torch.rand(groups, n_out, generator=generator) / 10 + 0.01).half(),
        torch.randint(0, 2**bits, (groups, n_out), generator=generator).to(torch.uint8),
        g_idx,
        bits,
    )


def numpy_words(values: np.ndarray, bits: int) -> np.ndarray:
    """(n, m) -> (n · bits / 32, m): each column as one row of bits, the lowest first, cut into words."""
    row_of_bits = (values.T[:, :, None].astype(np.uint8) >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(row_of_bits.reshape(len(values.T), -1), axis=1, bitorder="little").view("<i4").T


def published_tensors(stem: str, codes: Codes, version: int = 1) -> dict[str, torch.Tensor]:
    """The four tensors of a layer as a file has them; version 1 keeps each zero less one."""
    zeros = (codes.zeros.numpy().astype(int) - (version == 1)) % 2**codes.bits
    words = {"qweight": numpy_words(codes.q.numpy().T, codes.bits), "qzeros": numpy_words(zeros.T, codes.bits).T}
    tensors = {f"{stem}.{part}": torch.from_numpy(np.ascontiguousarray(value)) for part, value in words.items()}
    return tensors | {f"{stem}.scales": codes.scales.half(), f"{stem}.g_idx": codes.g_idx}


def write_folder(
    folder: Path,
    model: LanguageModel,
    config: QuantConfig,
    version: int = 1,
    order: bool = False,
    g_idx: bool = True,
    settings: dict | None = None,
    file: str = "model.safetensors",
) -> tuple[Path, Path]:
    """(a folder with packed weights, its twin with the same weights written out in fp32), both of published names."""
    packed, twin = folder / "packed", folder / "twin"
    save_model(model, twin)
    plain = load_file(twin / "model.safetensors")
    tensors = {name: tensor.half() for name, tensor in plain.items()}
    for name in [name for name in plain if plain[name].ndim == 2 and (".h." in name or ".layers." in name)]:
        transposed = model.model_type == "gpt2"  # Conv1D is (in, out)
        weight = plain[name].T if transposed else plain[name]
        codes = round_to_nearest(weight, config)
        if order:
            shuffled = codes.g_idx[torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(len(name)))]
            codes = Codes(codes.q, codes.scales, codes.zeros, shuffled, codes.bits)
        del tensors[name]
        tensors |= published_tensors(name.removesuffix(".weight"), codes, version)
        if not g_idx:
            del tensors[name.removesuffix("weight") + "g_idx"]
        plain[name] = (codes.dense().T if transposed else codes.dense()).contiguous()
    save_file(plain, twin / "model.safetensors", {"format": "pt"})
    packed.mkdir()
    values = {"bits": config.bits, "group_size": config.group_size, "sym": config.sym, "desc_act": order}
    values |= {"checkpoint_format": "gptq_v2"} if version == 2 else {}
    (packed / "config.json").write_bytes((twin / "config.json").read_bytes())
    (packed / "quantize_config.json").write_text(json.dumps(values | (settings or {})))
    if file.endswith(".bin"):
        torch.save(tensors, packed / file)
    else:
        save_file(tensors, packed / file, {"format": "pt"})
    return packed, twin
