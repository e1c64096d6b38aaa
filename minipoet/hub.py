"""A model's files from the Hugging Face hub: fetched once, whole, at one commit, and found again without a network.

    folder = fetch_from_hub("ai-forever/rugpt3medium_based_on_gpt2")

`huggingface_hub` does the work: its cache, its progress bars, connections taken up again where they broke. Here is
said which files a model needs (weights last, so that a folder with weights is a whole one; a .bin only where there are
no safetensors), and in a sentence what a user can do when one does not come.

Chapter: docs/checkpoints.md
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minipoet.models import CheckpointError
from minipoet.models.weights import WHOLE, as_safetensors, shard_names, weight_files
from minipoet.quantization import is_quantized, quantization_of

TOKENIZERS = ("tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model")
SMALL = (
    *("config.json", "generation_config.json", "adapter_config.json", "quantize_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", *TOKENIZERS),
    *("chat_template.jinja", "chat_template.json"),
)


def is_hub_id(name: str) -> bool:
    """Whether a name can be a model's on the hub: owner/model, or owner/model@revision."""
    owner, _, model = name.partition("@")[0].partition("/")
    return bool(owner and model) and "/" not in model and not name.startswith((".", "~")) and not name.endswith("@")


def fetch_from_hub(name: str) -> Path:
    """The local folder of a model on the hub; fetched, with progress, unless it is in the cache already.

    name: owner/model, which is what the cache has, or else the newest; or owner/model@revision (a branch, tag, commit).
    What has its weights as .bin only gets its copy as safetensors. Raises OSError, with what to do, for what cannot be
    fetched, and ValueError for what cannot be used.
    """
    model, _, revision = name.partition("@")
    folder = cached(model, revision or None) or _download(model, revision or None)
    for path in weight_files(folder, _names(folder)) if (folder / "config.json").exists() else ():
        if path.suffix == ".bin":
            as_safetensors(path)
    return folder


def cached(model: str, revision: str | None = None) -> Path | None:
    """The folder of the library's cache that holds the model whole, or None. No network is touched."""
    import huggingface_hub

    with _explained(model, revision):
        config = huggingface_hub.try_to_load_from_cache(model, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    names = _names(folder)
    try:
        weight_files(folder, names)
    except CheckpointError:  # a download that was cut short
        return None
    return folder if any((folder / file).exists() for file in TOKENIZERS) else None


def commit_of(folder: Path) -> str:
    """The commit that a folder of the cache holds; "" for another folder."""
    return folder.name if folder.parent.name == "snapshots" else ""


def _download(model: str, revision: str | None) -> Path:
    """All that is needed, at one commit; the weights last."""
    import huggingface_hub

    with _explained(model, revision):
        folder = Path(huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=[*SMALL]))
    commit = folder.name
    if not (folder / "config.json").exists():
        return folder  # no model: whoever loads it says so, or that it is an adapter
    names = _names(folder)
    files = [file for name in names for file in (name, f"{name}.index.json")]  # the first that is there
    file = next((file for file in files if _has(model, file, commit)), None)
    if file is None:
        raise CheckpointError(
            f"The repository {model!r} has none of {', '.join(names)}, nor shards of them: its weights are of a form "
            f"that minipoet does not read."
        )
    if file.endswith(".index.json"):
        shards = shard_names(folder / file)
        with _explained(model, revision):
            huggingface_hub.snapshot_download(model, revision=commit, allow_patterns=shards)
    return folder


def _names(folder: Path) -> tuple[str, ...]:
    """What the weights of a folder may be called. Raises CheckpointError for weights quantised in a way not read."""
    return quantization_of(folder).files if is_quantized(folder) else WHOLE


def _has(model: str, file: str, commit: str) -> bool:
    """Fetch a file, if the repository has it."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _explained(model, commit):
        try:
            huggingface_hub.hf_hub_download(model, file, revision=commit)
            return True
        except LocalEntryNotFoundError:  # no network; it is an EntryNotFoundError too
            raise
        except EntryNotFoundError:
            return False


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """What the library raises, in a sentence of ours. Inside are only its calls; it has errors of many classes."""
    try:
        yield
    except Exception as error:
        from huggingface_hub.errors import HFValidationError

        if isinstance(error, HFValidationError):
            raise ValueError(f"{name!r} cannot be the id of a model on the hub: {_first_line(error)}") from error
        raise OSError(_explanation(error, name, revision)) from error


def _explanation(error: Exception, name: str, revision: str | None) -> str:
    from huggingface_hub import constants, errors

    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(cause, errors.GatedRepoError):
        return (
            f"{name!r} is gated: accept its terms at {constants.ENDPOINT}/{name}, log in (`hf auth login`, or a token "
            f"in HF_TOKEN), and load it again."
        )
    if isinstance(cause, errors.RepositoryNotFoundError):
        return (
            f"The hub has no {name!r}, or it is private: check the name, letter by letter; for a private model log in "
            f"(`hf auth login`, or a token in HF_TOKEN)."
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return f"{name!r} has no revision {revision!r} on the hub: give a branch, a tag, or a whole commit."
    if status in (401, 403):
        return (
            f"The hub refuses {name!r} ({status}): log in with a token that may read it (`hf auth login`, or HF_TOKEN)."
        )
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
        return (
            f"Could not keep {name!r} in {constants.HF_HUB_CACHE} ({cause.strerror}): free some space, or name "
            f"another folder in HF_HOME. What came whole is kept."
        )
    if constants.HF_HUB_OFFLINE:
        why, first = "HF_HUB_OFFLINE forbids to fetch it", "Unset that once"
    else:
        why = f"it could not be fetched from the hub ({type(cause).__name__}: {_first_line(cause)})"
        first = "Check the network and try again (what came whole is kept), or name a mirror in HF_ENDPOINT"
    return (
        f"{name!r} is not whole in the cache, {constants.HF_HUB_CACHE}, and {why}. {first}, or do "
        f"`hf download {name} --local-dir FOLDER` on another machine and give the folder's path."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no word why"])[0].rstrip(".")
