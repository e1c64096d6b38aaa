"""Which class reads which `model_type` of a config.json. A new family is one line here and one file beside.

Chapter: docs/contributing.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

from minipoet.models.weights import CheckpointError

FAMILIES = {
    "gpt2": "minipoet.models.gpt2:GPT2",
    "qwen2": "minipoet.models.qwen2:Qwen2",
    "qwen3": "minipoet.models.qwen2:Qwen3",
    "t5": "minipoet.models.t5:T5",
    "mt5": "minipoet.models.t5:MT5",
    "minipoet-rnn": "minipoet.models.rnn:RNN",
    "minipoet-gru": "minipoet.models.rnn:GRU",
    "minipoet-lstm": "minipoet.models.rnn:LSTM",
    "minipoet-window": "minipoet.models.window:WindowMLP",
}


def family(values: Mapping[str, Any]) -> type:
    """The model class for a config.json. Raises CheckpointError for a family that the package does not have."""
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            f"config.json says model_type {model_type!r}, which minipoet does not know; it knows {', '.join(FAMILIES)}."
        )
    module, name = FAMILIES[model_type].split(":")
    return getattr(import_module(module), name).for_config(values)


def make_config(cls: type, values: dict[str, Any]) -> Any:
    """The family's config from a config.json. Fields that do not shape the model are left out.

    Raises CheckpointError for values of a wrong type, and for settings that would change the result but are not
    supported (the class names them in `unsupported`).
    """
    config_class = cls.config_class  # type: ignore[attr-defined]
    values = cls.published_config(values)  # type: ignore[attr-defined]
    problems = [
        f"{key} = {values[key]!r} is not supported"
        for key, harmless in getattr(cls, "unsupported", {}).items()
        if values.get(key, harmless) != harmless
    ]
    chosen = {}
    for field in fields(config_class):
        if field.name not in values:
            continue
        value, example = values[field.name], field.default
        expected = (
            (int, type(None)) if example is None else (float, int) if isinstance(example, float) else (type(example),)
        )
        if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
            problems.append(f"{field.name} should be {expected[0].__name__}, is {value!r}")
        chosen[field.name] = value
    if problems:
        raise CheckpointError(f"config.json of a {values.get('model_type')} model: {'; '.join(problems)}.")
    try:
        return config_class(**chosen)
    except ValueError as error:
        raise CheckpointError(f"config.json: {error}") from error
