"""`minipoet convert`: an old `pytorch_model.bin` becomes safetensors, which hold no code and are mapped, not read.

Each file goes through PyTorch's safe unpickler (`models.weights.read_bin`), and a shard stays a shard, so that no more
than one is in memory. All is written into a hidden folder in the target, read back, and only then moved to its place:
whatever goes wrong before leaves the target as it was.
Chapter: docs/command.md
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from minipoet.command import folders, show, tell
from minipoet.command.units import DTYPES, count_word, dtype_word, size_word
from minipoet.files import write_json_atomic, write_tensors_atomic
from minipoet.models import CheckpointError
from minipoet.models.families import family, make_config
from minipoet.models.weights import read_bin, read_file, unshared, weight_files

OLD = ("pytorch_model.bin", "adapter_model.bin")
BESIDE = (".json", ".txt", ".model", ".jinja", ".md")  # what a model's folder has besides weights

NOTES = """
examples:
  minipoet convert old_model               beside the .bin, which stays
  minipoet convert old_model new_model     a new folder, with config and tokenizer
  minipoet convert old_model new_model --dtype bf16

Code that may be in a .bin is never run: a file with anything but tensors in it
is refused.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """The options of the command."""
    parser = commands.add_parser(
        "convert",
        help="an old .bin as safetensors",
        description="Write the weights of pytorch_model.bin (whole or in shards)\nor adapter_model.bin as safetensors.",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(main=convert, interrupted="nothing was changed")
    parser.add_argument("source", metavar="SOURCE", help="the folder with the .bin")
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the folder to write to (default: SOURCE)")
    parser.add_argument("--dtype", choices=DTYPES, help="round the numbers to this type; needs a TARGET")
    parser.add_argument("--force", action="store_true", help="replace what TARGET has already")


def convert(args: argparse.Namespace) -> None:
    """Run the command."""
    source = folders.existing(args.source)
    target = source if args.target is None else Path(args.target)
    if target.exists():
        folders.existing(target)  # not a file
    in_place = target.exists() and target.samefile(source)
    if in_place and args.dtype:
        raise ValueError("--dtype would make the new weights differ from the .bin beside them: give a TARGET folder.")
    dtype = DTYPES.get(args.dtype)
    old = [name for name in OLD if (source / name).exists() or (source / f"{name}.index.json").exists()]
    if not old:
        raise ValueError(f"{source} has no {' or '.join(OLD)} to convert: {folders.contents(source)}.")
    beside = [] if in_place else _beside(source)
    former = [target / path.name for path in beside if (target / path.name).exists()]
    for name in old:  # all that would be read before or beside the new files
        former += target.glob(_new_name(name).replace(".", "*.", 1) + "*")
    if former and not args.force:
        names = ", ".join(sorted(path.name for path in former))
        raise ValueError(f"{target} has {names} already: choose another TARGET, or replace all of it with --force.")
    with _staged(target) as stage:
        for name in old:
            _write(source, name, stage, dtype)
        for path in beside:
            shutil.copyfile(path, stage / path.name)
        if dtype is not None and (stage / folders.MODEL_CONFIG).exists():
            _say_dtype(stage / folders.MODEL_CONFIG, dtype)
        new = sorted(stage.iterdir(), key=lambda path: path.name == folders.MODEL_CONFIG)
        for path in former:
            if path.name not in {file.name for file in new}:
                path.unlink()
        for path in new:  # the config last: a folder without one is an unfinished one
            path.replace(target / path.name)
    show(f"{target}: done, and read back; minipoet info {target} tells what it holds")


def _beside(source: Path) -> list[Path]:
    """The config, the tokenizer, and what else belongs to a model but is no weights."""
    files = [path for path in source.iterdir() if path.is_file() and path.suffix in BESIDE]
    return [path for path in files if not path.name.endswith(".index.json")]


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A hidden folder in the target, gone when the block ends. If it fails, a target that was made for it goes too."""
    made, stage = not target.exists(), target
    try:
        target.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".converting-", dir=target))
        yield stage
        made = False
    except OSError as error:
        reason = str(error).replace(str(stage), str(target)) if error.errno is None else None
        reason = reason or f"Could not write to {target}: {error.strerror}. Nothing there was changed."
        raise OSError(reason) from error
    finally:
        if stage != target:
            shutil.rmtree(stage, ignore_errors=True)
        if made:
            with suppress(OSError):  # not made, or not empty
                target.rmdir()


def _write(source: Path, name: str, stage: Path, dtype: torch.dtype | None) -> None:
    """One .bin, or all of its shards and their index. Raises ValueError if the index disagrees with the shards."""
    where: dict[str, str] = {}
    total, tied = 0, _tied(source)
    for path in weight_files(source, [name]):
        file = stage / _new_name(path.name)
        tensors = _tensors(path, dtype, tied)
        shapes = {key: (tensor.dtype, tensor.shape) for key, tensor in tensors.items()}
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        write_tensors_atomic(file, tensors, {"format": "pt"})
        del tensors
        if {key: (tensor.dtype, tensor.shape) for key, tensor in read_file(file)} != shapes:
            raise OSError(f"{file} does not read back as it was written: the disk may be failing. It was removed.")
        tell(f"{path.name} -> {file.name}: {count_word(len(shapes), 'tensor')}, {size_word(size)}")
        where |= dict.fromkeys(shapes, file.name)
        total += size
    if (source / name).exists():
        return
    old_index = source / f"{name}.index.json"
    if missing := sorted(folders.read_object(old_index)["weight_map"].keys() - where.keys() - tied):
        raise ValueError(f"{old_index} names {', '.join(missing[:8])}, which no shard has: fetch the folder again.")
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_json_atomic(stage / f"{_new_name(name)}.index.json", index)


def _new_name(name: str) -> str:
    """pytorch_model-00001-of-00002.bin -> model-00001-of-00002.safetensors"""
    return name.removeprefix("pytorch_").removesuffix(".bin") + ".safetensors"


def _tied(source: Path) -> set[str]:
    """Published names of what the family ties to another tensor; none for a family that the package does not know."""
    config = source / folders.MODEL_CONFIG
    values = folders.read_object(config) if config.exists() else {}
    try:
        cls = family(values)
        with torch.device("meta"):
            model = cls(make_config(cls, values))
    except CheckpointError:
        return set()
    once, every = dict(model.named_parameters()), dict(model.named_parameters(remove_duplicate=False))
    return {model.name_table().published(name)[0] for name in every.keys() - once.keys()}


def _tensors(path: Path, dtype: torch.dtype | None, tied: set[str]) -> dict[str, Tensor]:
    """What safetensors will hold of one .bin. In there two names may share one piece of memory, in safetensors not.

    The name that the model ties is left out, as `minipoet.save` does; any other gets a copy of its own.
    Raises ValueError for a tensor that has no plain form, and for numbers that the type cannot hold.
    """
    content = dict(sorted(read_bin(path).items(), key=lambda item: item[0] in tied))
    try:
        tensors, same = unshared(content)
    except ValueError as error:
        raise ValueError(f"{path} cannot be converted: {error}") from error
    tensors |= {name: tensors[kept].clone() for name, kept in same.items() if name not in tied}
    wrong = []
    for name, tensor in tensors.items():
        if dtype is None or not tensor.is_floating_point():
            continue
        tensors[name] = tensor.to(dtype)
        if torch.isfinite(tensor).all() and not torch.isfinite(tensors[name]).all():
            wrong.append(f"{name} holds {float(tensor.abs().max()):g}, too large for {dtype_word(dtype)}")
    if wrong:
        raise ValueError(f"{path} cannot be converted: {'; '.join(wrong[:8])}.")
    return tensors


def _say_dtype(config: Path, dtype: torch.dtype) -> None:
    """Let the config name the type that the weights have now, under the key that it uses."""
    values = folders.read_object(config)
    key = "torch_dtype" if "torch_dtype" in values else "dtype"
    write_json_atomic(config, values | {key: str(dtype).removeprefix("torch.")})
