"""The public names: load by name, folder or id, save, and what they say when they cannot."""

import shutil

import pytest
import torch
from reference_data import reference
from test_gpt2 import tiny

import minipoet

IDS = torch.arange(16).view(2, 8)


@pytest.fixture(scope="module")
def poet():
    return minipoet.load("poet-tiny")


def test_the_embedded_model_and_its_tokenizer_belong_together(poet):
    model, tokenizer = poet
    assert model.origin == "poet-tiny"
    assert tokenizer.vocab_size == model.config.vocab_size
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    assert None not in (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)


def test_the_embedded_model_has_learnt_russian_verse(poet):
    model, tokenizer = poet

    def loss(text):
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text)]])
        with torch.no_grad():
            logits = model(ids)[0, :-1]
        return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")) / len(text)

    verse = "Ночной туман над тихою рекою,\nИ месяц светит бледный сквозь туман"
    words = verse.split()
    assert loss(verse) < 0.75 * loss(" ".join(sorted(words, key=lambda word: word[::-1])))
    assert loss(verse) < 2.0  # nats a letter; a fair choice among 33 letters is 3.5


def test_a_poem_begins_with_its_prompt_and_comes_again_with_its_seed(poet):
    one, same, other = (minipoet.generate(*poet, "Над рекою", max_new_tokens=24, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert one.startswith("Над рекою")


def test_a_saved_model_loads_with_the_same_logits_and_tokens(poet, tmp_path):
    model, tokenizer = poet
    minipoet.save(model, tokenizer, tmp_path)
    again, other = minipoet.load(tmp_path)
    assert torch.equal(again(IDS), model(IDS))
    assert other.encode("Привет, мир") == tokenizer.encode("Привет, мир")
    assert (other.bos_id, other.eos_id, other.pad_id) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)


def test_a_merged_adapter_is_saved_in_the_weights_and_an_open_one_is_refused(tmp_path):
    tokenizer = minipoet.load_tokenizer(reference("gpt2/padded"))
    model = minipoet.add_lora(tiny(vocab_size=tokenizer.vocab_size), targets="all-linear")
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            parameter.data.normal_(0, 0.1)
    with pytest.raises(ValueError, match="save_adapter.*merge_lora"):
        minipoet.save(model, tokenizer, tmp_path)
    assert not list(tmp_path.iterdir())
    logits = minipoet.merge_lora(model)(IDS)
    minipoet.save(model, tokenizer, tmp_path)
    assert torch.equal(minipoet.load(tmp_path)[0](IDS), logits)


def test_adapters_remember_their_base(poet, tmp_path):
    model, _ = minipoet.load("poet-tiny")
    minipoet.save_adapter(minipoet.add_lora(model, rank=1), tmp_path)
    assert '"base_model_name_or_path": "poet-tiny"' in (tmp_path / "adapter_config.json").read_text()
    with pytest.raises(ValueError, match="holds an adapter, not a model"):
        minipoet.load(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(poet, tmp_path):
    shutil.copytree(reference("gpt2/plain"), tmp_path / "m")
    poet[1].save(tmp_path / "m")
    with pytest.raises(ValueError, match="4096 ids, but the model has embeddings for 97"):
        minipoet.load(tmp_path / "m")


@pytest.mark.parametrize("name", ["poet-tny", "./nowhere", "/no/such/folder", "a/b/c", ""])
def test_a_name_that_is_nothing_is_told(name):
    with pytest.raises(ValueError, match="no folder"):
        minipoet.load(name)
