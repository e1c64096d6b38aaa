"""What is in a folder, as a dictionary of plain values: `minipoet info` prints it.

No weight is read. Names, shapes and types stand in the headers of the files; and the loader itself puts the model on
the meta device, which has shapes and no memory: so all of its checks are made, and 6 GB take no longer than 6 MB.
Chapter: docs/command.md
"""

from __future__ import annotations

from collections import Counter
from math import sqrt
from pathlib import Path
from typing import Any

import torch

from minipoet.adapters import load_adapter
from minipoet.adapters.files import adapter_folders
from minipoet.adapters.peft import MLP, OLD_WEIGHTS, OWN_PREFIX, WEIGHTS, read_config
from minipoet.command import folders
from minipoet.command.units import dtype_word
from minipoet.models import CheckpointError, count_parameters, load_model
from minipoet.models.families import family, make_config
from minipoet.models.weights import read_file, weight_files
from minipoet.quantization import is_quantized, load_quantized
from minipoet.tokenization import load_tokenizer
from minipoet.training.folder import RunFiles
from minipoet.training.history import read_history
from minipoet.training.state import read_header

# What the config.json of one family or another calls it.
SIZES = {
    "layers": ("n_layer", "num_hidden_layers", "num_layers"),
    "decoder_layers": ("num_decoder_layers",),
    "width": ("n_hidden", "n_embd", "hidden_size", "d_model"),
    "heads": ("n_head", "num_attention_heads", "num_heads"),
    "key_value_heads": ("num_key_value_heads",),
    "vocabulary": ("vocab_size",),
    "context": ("n_positions", "max_position_embeddings"),
}
PREFIXES = ("PREFIX_TUNING", OWN_PREFIX)
Facts = dict[str, Any]


def describe(name: str) -> Facts:
    """All that can be said of the folder of that name; what is missing or does not fit stands under "problems".

    Raises ValueError or OSError for a folder of which nothing can be said.
    """
    with folders.opened(name) as folder:
        places = {folder, *adapter_folders(folder)}
        files = [path for place in places for path in place.iterdir() if path.is_file()]
        facts: Facts = {"name": name, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}
        problems: list[str] = []
        if folders.is_checkpoint(folder):
            facts["checkpoint"] = _checkpoint(folder, problems)
            facts["tokenizer"] = _tokenizer(folder, facts["checkpoint"].get("vocabulary"), problems)
        if folders.is_adapter(folder):
            facts["adapter"] = _adapter(folder, problems)
        if RunFiles.of(folder).history.exists():
            facts["run"] = _run(RunFiles.of(folder), problems)
        if not facts.keys() & {"checkpoint", "adapter", "run"}:
            raise ValueError(
                f"{folder} is neither a checkpoint ({folders.MODEL_CONFIG}), nor an adapter "
                f"({folders.ADAPTER_CONFIG}), nor a training run (history.jsonl): {folders.contents(folder)}."
            )
        return facts | {"problems": list(dict.fromkeys(problems))}


def _checkpoint(folder: Path, problems: list[str]) -> Facts:
    values = folders.read_object(folder / folders.MODEL_CONFIG)
    architectures = values.get("architectures")
    facts: Facts = {"family": values.get("model_type")}
    facts["architecture"] = architectures[0] if isinstance(architectures, list) and architectures else None
    try:
        cls = family(values)
        config = make_config(cls, values)
        values = vars(config) | values  # what the file leaves out is the family's default
        with torch.device("meta"):
            model = cls(config)
        facts["parameters"] = count_parameters(model).all
        if model.reads_source:  # it knows distances only, whatever number its config has
            values["n_positions"] = "unlimited"
        load = load_quantized if is_quantized(folder) else load_model
        facts["parameters"] = count_parameters(load(folder, device="meta")).all  # what is tied, the files tell
    except CheckpointError as error:
        problems.append(str(error))
    sizes = {size: values[key] for size, keys in SIZES.items() for key in keys if key in values}
    facts |= {size: value for size, value in sizes.items() if value is not None}
    try:
        facts["weights"] = _weights(weight_files(folder))
    except CheckpointError as error:
        problems.append(str(error))
    return facts


def _weights(files: list[Path]) -> Facts:
    """Bytes of each file, how many tensors there are, and how many numbers of each type."""
    numbers: Counter[str] = Counter()
    tensors = 0
    for path in files:
        for _, tensor in read_file(path):
            numbers[dtype_word(tensor.dtype)] += tensor.numel()
            tensors += 1
    return {"files": {path.name: path.stat().st_size for path in files}, "tensors": tensors, "numbers": dict(numbers)}


def _tokenizer(folder: Path, rows: Any, problems: list[str]) -> Facts | None:
    """rows: how many embeddings the model has."""
    try:
        tokenizer = load_tokenizer(folder)
    except (ValueError, OSError) as error:
        problems.append(str(error))
        return None
    facts: Facts = {"kind": type(tokenizer).__name__, "vocabulary": tokenizer.vocab_size}
    facts |= {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    facts["special"] = tokenizer.special_ids
    if isinstance(rows, int):
        facts["spare_rows"] = rows - tokenizer.vocab_size
        if facts["spare_rows"] < 0:
            problems.append(
                f"The tokenizer knows {tokenizer.vocab_size} ids, but the model has only {rows} embeddings."
            )
    return facts


def _adapter(folder: Path, problems: list[str]) -> Facts:
    """A LoRA or a prefix; of one that is both, the facts of each stand under "lora" and "prefix"."""
    wrong: list[str] = []
    parts = {place: _part(place, wrong) for place in adapter_folders(folder)}
    facts: Facts = {"kind": " and ".join(str(part["kind"] or "?") for part in parts.values())}
    facts |= parts[folder] if folder in parts else {place.name: part for place, part in parts.items()}
    facts |= {"base": None, "fits_base": None}
    try:
        facts["base"] = folders.adapter_base(folder) or None
        if folders.is_here(facts["base"]) and not wrong:
            facts["fits_base"] = False
            with folders.opened(facts["base"]) as base:
                load_adapter(load_model(base, device="meta"), folder)
            facts["fits_base"] = True
    except (ValueError, OSError) as error:
        wrong.append(str(error))
    problems += wrong
    return facts


def _part(folder: Path, problems: list[str]) -> Facts:
    """One of PEFT's folders."""
    facts: Facts = {"kind": None}
    try:
        if not (folder / folders.ADAPTER_CONFIG).exists():
            read_config(folder)  # tells what is there instead
        values = folders.read_object(folder / folders.ADAPTER_CONFIG)
        facts = {"kind": values.get("peft_type")}
        facts |= _prefix(folder, values) if facts["kind"] in PREFIXES else _lora(values)
        path = next((folder / name for name in (WEIGHTS, OLD_WEIGHTS) if (folder / name).exists()), None)
        if path is None:
            problems.append(f"{folder} has no {WEIGHTS}: saving it was cut short.")
            return facts
        shapes = {name: tensor.shape for name, tensor in read_file(path)}
        modules = [name.partition(".lora_A")[0] for name in shapes if ".lora_A" in name]
        if facts["kind"] not in PREFIXES:
            targets = sorted({".".join(name.split(".")[-2:]) for name in modules})
            facts |= {"layers": len(modules), "targets": targets}
        facts |= {"parameters": sum(shape.numel() for shape in shapes.values()), "weights": _weights([path])}
        read_config(folder)
    except (ValueError, OSError) as error:
        problems.append(str(error))
    return facts


def _lora(values: Facts) -> Facts:
    rank, alpha = values.get("r"), values.get("lora_alpha", 8)  # PEFT's value where the key is missing
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)):
        return {}
    facts = {"rank": rank, "alpha": alpha, "scale": alpha / (sqrt(rank) if values.get("use_rslora") else rank)}
    patterns = {key: values[key] for key in ("rank_pattern", "alpha_pattern") if values.get(key)}
    return facts | {"dropout": values.get("lora_dropout", 0.0)} | patterns


def _prefix(folder: Path, values: Facts) -> Facts:
    """Its tokens, and how wide inside is the MLP that it can be learnt on with, if that lies there."""
    facts: Facts = {"virtual_tokens": values.get("num_virtual_tokens"), "mlp": None}
    if (folder / MLP).exists():
        shapes = {name: tensor.shape for name, tensor in read_file(folder / MLP)}
        hidden, parameters = shapes.get("up.bias", torch.Size([0])).numel(), sum(s.numel() for s in shapes.values())
        facts["mlp"] = {"hidden": hidden, "parameters": parameters}
    return facts


def _run(files: RunFiles, problems: list[str]) -> Facts:
    facts: Facts = {}
    try:
        history = read_history(files.history)
        facts["step"] = max((event["step"] for event in history.events), default=0)
        steps, values = history.curve("validation")
        if values:
            facts["best"], facts["best_step"] = min(zip(values, steps, strict=True))
        if files.last.exists():
            progress, settings = read_header(files.last)
            facts |= {"steps": settings.get("steps"), "tokens": progress.tokens, "finished": progress.finished}
    except ValueError as error:
        problems.append(str(error))
    return facts
