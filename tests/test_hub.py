"""Models from the hub: the real `huggingface_hub`, in processes of its own, asks a hub of ours (fake_hub.py)."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_hub import COMMIT, serving
from huggingface_hub.errors import LocalEntryNotFoundError
from reference_data import reference
from safetensors.torch import load_file

import minipoet
from minipoet import hub
from minipoet.hub import commit_of, is_hub_id
from minipoet.quantization import QuantConfig

CHILD = """
import json, sys, minipoet, torch
answers = {}
for name in sys.argv[1:]:
    try:
        model, tokenizer = minipoet.load(name)
        logit = float(model(torch.arange(8)[None])[0, -1, 7])
        answers[name] = [model.origin, model.revision, tokenizer.vocab_size, logit]
    except (ValueError, OSError) as error:
        answers[name] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""
NOBODY = "http://127.0.0.1:9"  # nobody answers there


class Stranger:
    """Unpickled by a trusting reader, it would say so."""

    def __reduce__(self):
        return print, ("code of a stranger ran",)


def folder(root: Path, name: str, without: tuple[str, ...] = (), bin: object = None, **files: str) -> Path:
    """A repository with the files of reference/gpt2/padded, but for `without`; its weights, or `bin`, as a .bin too."""
    repository = shutil.copytree(reference("gpt2/padded"), root / name, ignore=shutil.ignore_patterns(*without))
    if bin is not None:
        torch.save(bin, repository / "pytorch_model.bin")
    for file, text in files.items():
        (repository / file.replace("__", ".")).write_text(text)
    return repository


def few_bits(root: Path) -> Path:
    """The same model in four bits, as AutoGPTQ's first files were: only a file beside config.json says so."""
    repository = folder(root, "gptq")
    model, tokenizer = minipoet.load(repository)
    minipoet.quantize(model, method="rtn", config=QuantConfig(group_size=8))
    minipoet.save(model, tokenizer, repository)
    (repository / "model.safetensors").rename(repository / "gptq_model-4bit-8g.safetensors")
    config = json.loads((repository / "config.json").read_text())
    del config["quantization_config"]
    (repository / "config.json").write_text(json.dumps(config))
    return repository


def repositories(root: Path) -> dict[str, Path]:
    """owner/model -> the folder that the hub has for it."""
    weights = load_file(reference("gpt2/padded/model.safetensors"))
    old = ("model.safetensors", "tokenizer.json", "special_tokens_map.json", "tokenizer_config.json")
    shards = shutil.copytree(reference("gpt2/sharded"), root / "shards")
    (shards / "vocab.json").write_text(json.dumps({chr(97 + i): i for i in range(26)}))
    (shards / "merges.txt").write_text("#version: 0.2\n")
    return {
        "owner/both": folder(root, "both", bin=weights, flax_model__msgpack="x", tf_model__h5="x", README__md="x"),
        "owner/old": folder(root, "old", old, bin=weights),
        "owner/shards": shards,
        "owner/cut": folder(root, "cut"),
        "owner/evil": folder(root, "evil", old[:1], bin={"transformer.wte.weight": Stranger()}),
        "owner/gguf": folder(root, "gguf", old[:1], model__gguf="x"),
        "owner/adapter": folder(root, "adapter", ("config.json",), adapter_config__json="{}"),
        "owner/gptq": few_bits(root),
        "owner/marlin": folder(root, "marlin", quantize_config__json='{"bits": 4, "is_marlin_format": true}'),
        "owner/gated": folder(root, "gated"),
        "owner/refused": folder(root, "refused"),
    }


class Visit:
    """What a process answered for each name, what it told beside, and what it asked the hub for."""

    def __init__(self, names: list[str], root: Path, asked: list[str], **environment: str) -> None:
        cleared = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        places = {"HF_HOME": str(root / "hf"), "MINIPOET_CACHE": str(root / "cache"), "NO_PROXY": "127.0.0.1"}
        before, paths = len(asked), os.pathsep.join([str(Path(hub.__file__).parent.parent), *sys.path])
        child = subprocess.run(
            [sys.executable, "-c", CHILD, *names], capture_output=True, text=True, encoding="utf-8", check=True,
            env={**cleared, **places, "PYTHONPATH": paths, "HF_HUB_DISABLE_XET": "1", **environment},
        )  # fmt: skip
        self.out, self.told = child.stdout, child.stderr
        self.answers = json.loads(child.stdout.splitlines()[-1])
        self.asked = asked[before:]

    def files(self, name: str) -> set[str]:
        """What of a repository came over the line."""
        return {line.split("/")[-1] for line in self.asked if line.startswith(f"GET /{name}/resolve/")}


@pytest.fixture(scope="module")
def visits(tmp_path_factory) -> tuple[Visit, Visit, Path]:
    """A first visit to the hub, and a second when nobody answers there."""
    root = tmp_path_factory.mktemp("hub")
    begun = root / "hf" / "hub" / "models--owner--cut"  # a download that was cut short, before the weights
    shutil.copytree(reference("gpt2/padded"), begun / "snapshots" / COMMIT)
    (begun / "snapshots" / COMMIT / "model.safetensors").unlink()
    (begun / "refs").mkdir()
    (begun / "refs" / "main").write_text(COMMIT)
    names = repositories(root / "repositories")
    with serving(names) as server:
        server.drop.add("pytorch_model.bin")
        server.gated.add("owner/gated")
        server.refused.add("owner/refused")
        asked = [*names, "owner/both", "owner/old@main", f"owner/old@{COMMIT}", "owner/both@v9", "owner/none"]
        first = Visit(asked, root, server.asked, HF_ENDPOINT=server.url)
        second = Visit(
            ["owner/both", "owner/old", "owner/cut", "owner/gptq", "owner/none"], root, server.asked, HF_ENDPOINT=NOBODY
        )
    return first, second, root


@pytest.mark.parametrize("name", ["both", "old", "shards", "cut"])
def test_a_model_is_fetched_at_one_commit_and_remembers_it(visits, name):
    answer = visits[0].answers[f"owner/{name}"]
    assert answer[:2] == [f"owner/{name}", COMMIT]


@pytest.mark.parametrize("name", ["old", "cut"])
def test_weights_of_every_form_give_the_same_logits(visits, name):
    assert visits[0].answers[f"owner/{name}"][2:] == visits[0].answers["owner/both"][2:]


def test_only_what_is_needed_is_fetched_and_a_bin_only_where_there_is_nothing_better(visits):
    tokenizer = {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert visits[0].files("owner/both") == {"config.json", "generation_config.json", *tokenizer, "model.safetensors"}
    assert visits[0].files("owner/old") == {
        *("config.json", "generation_config.json", "vocab.json", "merges.txt", "pytorch_model.bin")
    }
    assert len(visits[0].files("owner/shards")) == 3 + 1 + 4  # shards, index, configs and vocabulary


def test_weights_come_last_so_that_a_folder_with_weights_is_whole(visits):
    got = [line for line in visits[0].asked if line.startswith("GET /owner/both/resolve/")]
    assert got[-1].endswith("model.safetensors")


def test_what_was_fetched_is_not_asked_for_again(visits):
    first, second, _ = visits
    assert sum(line.startswith("GET /api/models/owner/both/") for line in first.asked) == 3  # main, its files, and v9
    assert len(first.files("owner/both")) == sum(line.startswith("GET /owner/both/resolve/") for line in first.asked)
    assert second.asked == []


@pytest.mark.parametrize("name", ["both", "old", "cut"])
def test_a_fetched_model_loads_without_a_network(visits, name):
    assert visits[1].answers[f"owner/{name}"] == visits[0].answers[f"owner/{name}"]


def test_a_quantised_model_comes_under_the_names_of_its_form(visits):
    first, second, root = visits
    model, _ = minipoet.load(root / "repositories" / "gptq")
    assert first.answers["owner/gptq"][3] == float(model(torch.arange(8)[None])[0, -1, 7])
    assert first.files("owner/gptq") >= {"quantize_config.json", "gptq_model-4bit-8g.safetensors"}
    assert second.answers["owner/gptq"] == first.answers["owner/gptq"]


def test_a_layout_that_is_not_read_is_told_before_its_weights_are_fetched(visits):
    first, *_ = visits
    assert "checkpoint_format 'marlin'" in first.answers["owner/marlin"]
    assert "model.safetensors" not in first.files("owner/marlin")


def test_a_connection_that_breaks_is_taken_up_again(visits):
    assert sum("GET" in line and "pytorch_model.bin" in line for line in visits[0].asked if "/old/" in line) == 2


def test_a_bin_is_converted_once_and_says_so(visits):
    first, second, root = visits
    copies = list((root / "cache").rglob("*.*"))
    assert [copy.suffix for copy in copies] == [".safetensors"]
    assert first.told.count(f"writing pytorch_model.bin once as safetensors, to {copies[0]}") == 1
    assert "writing" not in second.told


def test_a_revision_is_fetched_by_its_name(visits):
    answers = visits[0].answers
    assert answers["owner/old@main"] == answers[f"owner/old@{COMMIT}"] == answers["owner/old"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("none", r"^OSError: The hub has no 'owner/none', or it is private: check the name"),
        ("gated", r"^OSError: 'owner/gated' is gated: accept its terms at http\S+/owner/gated, log in"),
        ("refused", r"^OSError: The hub refuses 'owner/refused' \(403\): log in"),
        ("both@v9", r"^OSError: 'owner/both' has no revision 'v9' on the hub"),
        ("gguf", r"^CheckpointError: The repository 'owner/gguf' has none of model\.safetensors, pytorch_model\.bin"),
        ("adapter", r"^CheckpointError: .* holds an adapter, not a model"),
        ("evil", r"^CheckpointError: \S+pytorch_model\.bin cannot be read .* holds code, which is never run"),
    ],
)
def test_what_cannot_be_had_is_told_in_a_sentence_of_its_own(visits, name, sentence):
    assert re.search(sentence, visits[0].answers[f"owner/{name}"])
    assert "\n" not in visits[0].answers[f"owner/{name}"]


def test_code_in_a_bin_is_not_run(visits):
    assert "stranger" not in visits[0].out + visits[0].told


def test_without_a_network_and_not_in_the_cache_the_ways_out_are_named(visits):
    answer, root = visits[1].answers["owner/none"], visits[2]
    assert answer.startswith(
        f"OSError: 'owner/none' is not whole in the cache, {root / 'hf' / 'hub'}, and it could not"
    )
    for way in ("Check the network", "HF_ENDPOINT", "`hf download owner/none --local-dir FOLDER`", "give the folder"):
        assert way in answer


def test_switched_off_network_is_told_as_that(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = LocalEntryNotFoundError("not there")
    assert "HF_HUB_OFFLINE forbids to fetch it. Unset that once" in hub._explanation(error, "owner/model", None)


def test_a_full_disk_is_told_as_that():
    told = hub._explanation(OSError(28, "No space left on device"), "owner/model", None)
    assert "No space left on device" in told and "HF_HOME" in told


def test_a_name_that_no_model_can_have_is_refused_before_anything_is_asked():
    with pytest.raises(ValueError, match="'owner/мodel' cannot be the id of a model"):
        hub.fetch_from_hub("owner/мodel")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("owner/model", True), ("owner/model@v1", True), ("owner/model@refs/pr/1", True), ("owner/model@", False),
     ("owner", False), ("a/b/c", False), ("./model", False), ("~/model", False), ("/model", False), ("owner/", False)],
)  # fmt: skip
def test_ids_are_told_from_paths(name, expected):
    assert is_hub_id(name) is expected


def test_only_a_folder_of_the_cache_has_a_commit(tmp_path):
    assert commit_of(tmp_path / "models--a--b" / "snapshots" / COMMIT) == COMMIT
    assert commit_of(tmp_path) == ""
