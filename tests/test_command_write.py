"""`minipoet write`: only the poem on standard output, each again from its seed, and every mistake in one sentence."""

import io
import json
import re
import sys
import unicodedata

import pytest
import torch
from reference_data import reference
from test_command import minipoet_command
from test_gpt2 import tiny

import minipoet
from minipoet.command import write
from minipoet.command.write import read_prompt
from minipoet.generation import poem_seed, stream_chat
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.packed import is_packed, pack_weights
from minipoet.tokenization import PLAIN, train_bpe


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny untrained model with the recorded tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = minipoet.load_tokenizer(reference("tokenizer"))
    minipoet.save(tiny(vocab_size=tokenizer.vocab_size, n_positions=64), tokenizer, folder)
    return folder


def make_adapter(base, folder, origin=None):
    """A LoRA adapter that changes what the base says."""
    model, _ = minipoet.load(base)
    minipoet.add_lora(model, rank=2, targets="all-linear")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            parameter.data.normal_(0, 0.3, generator=generator)
    model.origin = str(base) if origin is None else origin
    minipoet.save_adapter(model, folder)
    return folder


def make_prefix(base, folder):
    model, _ = minipoet.load(base)
    minipoet.save_adapter(minipoet.add_prefix(model, 3), folder)
    return folder


@pytest.fixture
def typed(monkeypatch):
    """Let these bytes come from standard input; call as typed(b"...")."""

    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


def seeds(errors: str) -> list[int]:
    return [int(seed) for seed in re.findall(r"^seed (\d+)", errors, re.MULTILINE)]


def test_standard_output_is_the_poem_and_nothing_else(base, capsys):
    assert minipoet_command("write", "Мороз и", "--base", base, "--tokens", 9, "--seed", 5) == 0
    output, errors = capsys.readouterr()
    assert output.rstrip("\n") == minipoet.generate(*minipoet.load(base), "Мороз и", max_new_tokens=9, seed=5)
    assert errors == "seed 5\n"


def test_without_a_base_the_embedded_poet_writes(capsys):
    assert minipoet_command("write", "Мороз и", "--tokens", 6, "--seed", 5) == 0
    expected = minipoet.generate(*minipoet.load("poet-tiny"), "Мороз и", max_new_tokens=6, seed=5)
    assert capsys.readouterr().out.rstrip("\n") == expected


def test_seed_that_was_not_given_is_told_and_gives_the_poem_again(base, capsys):
    arguments = ("write", "Мороз", "--base", base, "--tokens", 12)
    minipoet_command(*arguments)
    poem, errors = capsys.readouterr()
    (seed,) = seeds(errors)
    minipoet_command(*arguments, "--seed", seed)
    assert capsys.readouterr().out == poem
    minipoet_command(*arguments)
    assert seeds(capsys.readouterr().err) != [seed]


def test_each_variant_comes_again_alone_from_the_seed_told_for_it(base, capsys):
    arguments = ("write", "Мороз", "--base", base, "--tokens", 12, "--temperature", 1.5)
    minipoet_command(*arguments, "--variants", 3, "--seed", 7)
    output, errors = capsys.readouterr()
    poems = output.split("\n* * *\n\n")
    assert len(set(poems)) == 3
    assert seeds(errors) == [poem_seed(7, sample=number) for number in range(3)]  # those of generate_many
    for seed, poem in zip(seeds(errors), poems, strict=True):
        minipoet_command(*arguments, "--seed", seed)
        assert capsys.readouterr().out == poem


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [("--temperature", "temperature", 3.0), ("--top-p", "top_p", 0.1), ("--top-k", "top_k", 1),
     ("--min-p", "min_p", 0.9), ("--repetition-penalty", "repetition_penalty", 9.0)],
)  # fmt: skip
def test_option_reaches_the_draw(base, capsys, option, name, value):
    minipoet_command("write", "Мороз", "--base", base, "--tokens", 20, "--seed", 3, option, value)
    model, tokenizer = minipoet.load(base)
    settings = {"max_new_tokens": 20, "seed": 3}
    plain = minipoet.generate(model, tokenizer, "Мороз", **settings)
    poem = minipoet.generate(model, tokenizer, "Мороз", **settings, **{name: value})
    assert capsys.readouterr().out.rstrip("\n") == poem.rstrip("\n") != plain.rstrip("\n")


def test_poem_ends_at_a_stop_text_in_which_n_is_a_line_break(monkeypatch, capsys):
    def stream(model, tokenizer, prompt, **settings):
        yield repr((prompt, settings["stop"]))

    monkeypatch.setattr(write, "stream", stream)
    minipoet_command("write", r"Мороз\nи", "--stop", r"\n\n", "--stop", "конец")
    assert capsys.readouterr().out == "('Мороз\\nи', ('\\n\\n', 'конец'))\n"


def test_pieces_are_shown_as_they_come(monkeypatch):
    def stream(*arguments, **settings):
        yield "Мо"
        assert sys.stdout.getvalue() == "Мо"
        yield "роз"
        assert sys.stdout.getvalue() == "Мороз"

    monkeypatch.setattr(write, "stream", stream)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert minipoet_command("write", "Мо") == 0
    assert sys.stdout.getvalue() == "Мороз\n"  # a prompt of the shell must not stick to it


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [(KeyboardInterrupt(), 130, "interrupted"), (ArithmeticError("not finite"), 2, "error: not finite")],
)
def test_what_was_written_stays_when_the_poem_breaks_off(monkeypatch, capsys, error, code, message):
    def stream(*arguments, **settings):
        yield "Мороз и"
        raise error

    monkeypatch.setattr(write, "stream", stream)
    assert minipoet_command("write", "Мороз", "--seed", 1, "--variants", 2) == code
    output, errors = capsys.readouterr()
    assert output == "Мороз и\n"
    assert errors.startswith(f"seed 1 (variant 1 of 2)\n{message}")


# The prompt


@pytest.mark.parametrize("words", [[], ["-"]])
def test_prompt_of_standard_input_is_taken_whole(typed, words):
    typed("Мороз и солнце;\nдень чудесный!\n".encode())
    assert read_prompt(words) == "Мороз и солнце;\nдень чудесный!\n"


def test_backslash_from_standard_input_stays(typed):
    typed(rb"C:\new")
    assert read_prompt([]) == r"C:\new"


def test_words_without_quotes_are_one_line():
    assert read_prompt(["Мороз", "и", "солнце"]) == "Мороз и солнце"


def test_text_from_elsewhere_becomes_what_models_learnt_from(typed):
    typed(b"\xef\xbb\xbf" + unicodedata.normalize("NFD", "Зимний\r\nдень\r\n").encode())
    assert read_prompt([]) == "Зимний\nдень\n"


def test_given_prompt_leaves_standard_input_alone(typed):
    typed(b"\xff")
    assert read_prompt(["Мороз"]) == "Мороз"


@pytest.mark.parametrize(
    ("content", "message"),
    [("Мороз".encode("cp1251"), "not UTF-8 .after 0 char"), (b"\xd0\x9c\xff", "after 1 char"), (b" \n", "is empty")],
)
def test_standard_input_that_is_no_text_is_told(typed, content, message):
    typed(content)
    with pytest.raises(ValueError, match=message):
        read_prompt([])


def test_argument_that_is_no_text_is_told():
    with pytest.raises(ValueError, match="not UTF-8"):
        read_prompt(["Мороз".encode("cp1251").decode("utf-8", "surrogateescape")])  # as Python hands it over


def test_terminal_without_a_prompt_is_told_and_not_waited_for(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(ValueError, match="There is no prompt"):
        read_prompt([])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="There is no prompt"):
        read_prompt(["-"])


# The base and the adapter


def test_merged_adapter_writes_what_the_open_one_would(base, tmp_path, capsys):
    adapter = make_adapter(base, tmp_path / "a")
    minipoet_command("write", "Мороз", "--adapter", adapter, "--tokens", 15, "--seed", 2)
    model, tokenizer = minipoet.load(base)
    plain = minipoet.generate(model, tokenizer, "Мороз", max_new_tokens=15, seed=2)
    minipoet.load_adapter(model, adapter)
    adapted = minipoet.generate(model, tokenizer, "Мороз", max_new_tokens=15, seed=2)
    assert capsys.readouterr().out.rstrip("\n") == adapted.rstrip("\n") != plain.rstrip("\n")


@pytest.mark.parametrize("kind", ["prefix", "projected", "both"])
@pytest.mark.parametrize("dtype", [[], ["--dtype", "bf16"]])
def test_prefix_writes_as_it_does_in_python(base, tmp_path, capsys, kind, dtype):
    adapter = make_adapter(base, tmp_path / "lora")
    model, tokenizer = minipoet.load(base)
    if kind == "both":
        minipoet.load_adapter(model, adapter)
    minipoet.add_prefix(model, 4, projection=kind == "projected")
    minipoet.save_adapter(model, tmp_path / "a")
    assert minipoet_command("write", "Мороз", "--adapter", tmp_path / "a", "--tokens", 15, "--seed", 2, *dtype) == 0
    output, errors = capsys.readouterr()
    assert errors == "seed 2\n"  # the base was found by its name
    if dtype:
        model = minipoet.load_adapter(minipoet.load(base, torch.bfloat16)[0], tmp_path / "a")
        model = minipoet.merge_lora(model) if kind == "both" else model
    poem = minipoet.generate(model, tokenizer, "Мороз", max_new_tokens=15, seed=2)
    plain = minipoet.generate(*minipoet.load(base), "Мороз", max_new_tokens=15, seed=2)
    assert output.rstrip("\n") == poem.rstrip("\n") != plain.rstrip("\n")


@pytest.mark.filterwarnings("ignore")  # of kernels that take no matrices so small
@pytest.mark.parametrize("dtype", [[], ["--dtype", "bf16"]])
def test_adapter_stays_beside_a_quantised_base(base, tmp_path, capsys, dtype):
    adapter = make_adapter(base, tmp_path / "a")
    model, tokenizer = minipoet.load(base)
    config = minipoet.quantization.QuantConfig(group_size=16)
    minipoet.save(minipoet.quantize(model, method="rtn", config=config), tokenizer, tmp_path / "few")
    arguments = ("--adapter", adapter, "--base", tmp_path / "few", "--tokens", 15, "--seed", 2, *dtype)
    assert minipoet_command("write", "Мороз", *arguments) == 0
    model, _ = minipoet.load(tmp_path / "few", torch.bfloat16 if dtype else None)
    poem = minipoet.generate(minipoet.load_adapter(model, adapter), tokenizer, "Мороз", max_new_tokens=15, seed=2)
    assert capsys.readouterr().out.rstrip("\n") == poem.rstrip("\n")


def test_base_that_is_asked_for_goes_before_the_one_the_adapter_names(base, tmp_path, capsys):
    adapter = make_adapter(base, tmp_path / "a", origin="poet-tiny")
    assert minipoet_command("write", "Мороз", "--adapter", adapter, "--base", base, "--tokens", 2) == 0
    assert minipoet_command("write", "Мороз", "--adapter", adapter, "--tokens", 2) == 2
    assert "does not fit this model" in capsys.readouterr().err


@pytest.mark.parametrize("origin", ["/gone/poet", ""])
def test_adapter_whose_base_is_gone_is_tried_on_the_embedded_one(tmp_path, capsys, origin):
    adapter = make_adapter("poet-tiny", tmp_path / "a", origin)
    assert minipoet_command("write", "Мороз", "--adapter", adapter, "--tokens", 2) == 0
    assert re.search("note: .*poet-tiny is tried; see --base\n", capsys.readouterr().err)


def test_adapter_of_a_model_on_the_hub_asks_for_that_model(base, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("minipoet.api.fetch_from_hub", lambda name: asked.append(name) or base)
    adapter = make_adapter(base, tmp_path / "a", origin="owner/model")
    assert minipoet_command("write", "Мороз", "--adapter", adapter, "--tokens", 2) == 0
    assert asked == ["owner/model"]


def test_weights_are_loaded_in_the_type_asked_for_and_packed_where_that_pays(base, monkeypatch):
    seen = []

    def stream(model, *arguments, **settings):
        seen.append(({parameter.dtype for parameter in model.parameters()}, is_packed(model)))
        yield "Мороз"

    monkeypatch.setattr(write, "stream", stream)
    for options in ([], ["--dtype", "bf16"]):
        assert minipoet_command("write", "Мороз", "--base", base, *options) == 0
    pays = is_packed(pack_weights(minipoet.load(base, torch.bfloat16)[0]))
    assert seen == [({torch.float32}, False), ({torch.bfloat16}, pays)]


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "0"], "--variants must be at least 1, got 0."),
        (["--tokens", "0"], "--tokens must be a whole number, 1 or more, got 0."),
        (["--temperature", "nan"], "--temperature must be"),
        (["--temperature", "0", "--variants", "2"], "all variants would be the same"),
        (["--beams", "4"], "--beams 4 means a search, which draws nothing: give --temperature 0 with it."),
        (["--length-penalty", "2"], "--length-penalty is for a beam search: give --beams 4, say, with it."),
        (["--seed", "-1"], "--seed must be a whole number from 0"),
        (["--stop", ""], "--stop must be"),
        (["--device", "abacus"], "--device abacus cannot be used here"),
        (["--device", "meta"], "--device meta cannot be used here"),
        (["--dtype", "fp64"], "invalid choice"),
        (["--tokens", "many"], "invalid int value"),
        (["--base", "nowhere"], "no folder 'nowhere'"),
        (["--base", "adapter"], "holds an adapter, not a model: give it as --adapter."),
        (["--base", "both"], "both holds an adapter, not a model: give it as --adapter."),
        (["--adapter", "half"], "half/prefix has no adapter_config.json (found nothing)"),
        (["--base", "empty"], "empty"),
        (["--base", "list"], "list"),
        (["--adapter", "nowhere"], "no folder 'nowhere'"),
        (["--adapter", "base"], "holds a model, not an adapter: give it as --base."),
        (["--adapter", "poet-tiny"], "poet-tiny is a model, not an adapter"),
        (["--adapter", "empty"], "no adapter_config.json in it (it is empty)"),
        (["--adapter", "adapter/adapter_config.json"], "is a file: give the folder that it lies in, adapter."),
        (["--adapter", "list"], "adapter_config.json should hold a JSON object, but holds a list"),
    ],
)
def test_mistake_gets_one_sentence_and_exit_code_2(base, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(base)
    make_adapter(base, tmp_path / "adapter")
    for name in ("both", "half"):
        make_adapter(base, tmp_path / name / "lora")
        (tmp_path / name / "prefix").mkdir()
    make_prefix(base, tmp_path / "both" / "prefix")
    for name in ("empty", "list"):
        (tmp_path / name).mkdir()
    (tmp_path / "list" / "adapter_config.json").write_text("[1]")
    (tmp_path / "list" / "config.json").write_text("[1]")
    assert minipoet_command("write", "Мороз", "--tokens", 2, *arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors
    assert errors.count("error: ") == 1


def test_all_wrong_options_are_told_at_once(capsys):
    assert minipoet_command("write", "Мороз", "--variants", 0, "--top-p", 2, "--min-p", -1, "--top-k", -1) == 2
    errors = capsys.readouterr().err
    assert all(option in errors for option in ("--variants", "--top-p", "--min-p", "--top-k"))


def test_mistakes_in_options_are_told_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr("minipoet.api.load", lambda *arguments: pytest.fail("a model was loaded"))
    assert minipoet_command("write", "Мороз", "--top-p", 2) == 2
    assert minipoet_command("write", " ") == 2


def test_broken_weights_are_told(tmp_path, capsys):
    tokenizer = minipoet.load_tokenizer(reference("tokenizer"))
    sizes = {"vocab_size": tokenizer.vocab_size, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 1}
    model = GPT2(GPT2Config(**sizes))
    model.norm.weight.data.fill_(float("nan"))
    minipoet.save(model, tokenizer, tmp_path)
    assert minipoet_command("write", "Мороз", "--base", tmp_path) == 2
    assert "error: The logits" in capsys.readouterr().err


def test_adapter_config_that_names_no_base_is_read(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "a")
    config = json.loads((adapter / "adapter_config.json").read_text())
    del config["base_model_name_or_path"]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert minipoet_command("write", "Мороз", "--adapter", adapter, "--base", base, "--tokens", 2) == 0


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """A tiny untrained model that knows the markers of a conversation."""
    folder = tmp_path_factory.mktemp("talker")
    tokenizer = train_bpe(["Напиши про осень, про зиму"] * 3, 300, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.chat = PLAIN
    minipoet.save(tiny(vocab_size=tokenizer.vocab_size, n_positions=96), tokenizer, folder)
    return folder


def test_what_is_asked_for_is_answered_and_only_the_answer_is_shown(talker, capsys):
    assert minipoet_command("write", "--ask", "Напиши про", "--base", talker, "--tokens", 9, "--seed", 5) == 0
    output = capsys.readouterr().out
    model, tokenizer = minipoet.load(talker)
    assert output.rstrip("\n") == minipoet.chat(model, tokenizer, "Напиши про", max_new_tokens=9, seed=5)
    assert "Напиши" not in output
    pieces = list(stream_chat(model, tokenizer, "Напиши про", max_new_tokens=9, seed=5))
    assert len(pieces) > 1 and "".join(pieces) == output.rstrip("\n")


def test_who_cannot_talk_is_not_asked(base, capsys):
    assert minipoet_command("write", "--ask", "Напиши про", "--base", base) == 2
    assert "This model has no chat form" in capsys.readouterr().err
