"""What a folder is: a checkpoint (config.json), an adapter (adapter_config.json), a training run (history.jsonl).

Chapter: docs/command.md
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from minipoet.adapters.files import adapter_folders
from minipoet.adapters.peft import CONFIG as ADAPTER_CONFIG
from minipoet.api import EMBEDDED
from minipoet.files import read_json

MODEL_CONFIG = "config.json"


@contextmanager
def opened(name: str) -> Iterator[Path]:
    """The folder of that path, or of a model that comes with the package.

    Raises ValueError, with what to do, for a name that is neither, and for a file.
    """
    if name in EMBEDDED:
        with resources.as_file(resources.files("minipoet.assets") / EMBEDDED[name]) as folder:
            yield folder
    else:
        yield existing(name, f", nor a model of that name in the package, which has {', '.join(EMBEDDED)}")


def existing(name: str | Path, besides: str = "") -> Path:
    """The folder of that path. Raises ValueError, with what to do, if there is none."""
    folder = Path(name)
    if str(name) and folder.is_dir():
        return folder
    if str(name) and folder.exists():
        raise ValueError(f"{folder} is a file: give the folder that it lies in, {folder.parent}.")
    raise ValueError(f"There is no folder {str(name)!r}{besides}.")


def is_here(name: str | None) -> bool:
    """Is it a model of the package, or a folder?"""
    return name in EMBEDDED or bool(name and Path(name).is_dir())


def is_checkpoint(folder: Path) -> bool:
    """Has it a model's config?"""
    return (folder / MODEL_CONFIG).exists()


def is_adapter(folder: Path) -> bool:
    """Has it an adapter's config, or those of a LoRA and a prefix in lora/ and prefix/?"""
    return any((place / ADAPTER_CONFIG).exists() for place in adapter_folders(folder))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a config. Raises ValueError that names the file if it is something else."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} should hold a JSON object, but holds a {type(values).__name__}.")
    return values


def adapter_base(name: str | Path) -> str:
    """The model that an adapter was made for, as its config names it; "" if it does not.

    Raises ValueError for a folder without an adapter.
    """
    if str(name) in EMBEDDED:
        raise ValueError(f"{name} is a model, not an adapter: give it as --base.")
    folder = existing(name)
    if not is_adapter(folder):
        if is_checkpoint(folder):
            raise ValueError(f"{folder} holds a model, not an adapter: give it as --base.")
        raise ValueError(f"{folder} is not an adapter's folder: no {ADAPTER_CONFIG} in it ({contents(folder)}).")
    configs = [path for place in adapter_folders(folder) if (path := place / ADAPTER_CONFIG).exists()]
    named = (read_object(path).get("base_model_name_or_path") for path in configs)
    return next((str(name) for name in named if name), "")


def contents(folder: Path) -> str:
    """What is in a folder, in a few words, for an error."""
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"found {', '.join(names[:8])}{more}" if names else "it is empty"
