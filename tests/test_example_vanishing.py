"""The example that measures how far back the gradient reaches, run as a user runs it; its measures, by hand."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from test_example_vocabulary import load_example
from test_examples import corpus, run_example  # noqa: F401  (a fixture)

from minipoet.models.rnn import LSTM, RNN, RNNConfig

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "vanishing_gradients.py"
SMALL = ("--far", 12, "--places", 5, "--hidden", 8, "--steps", 4, "--rows", 2, "--length", 20)


@pytest.fixture(scope="module")
def example():
    return load_example(EXAMPLE)


def nearly_linear(weight: float) -> RNN:
    """Elman's network with one number of state, so small that tanh does nothing: h' = x + weight · h."""
    model = RNN(RNNConfig(vocab_size=3, n_embd=1, n_hidden=1, n_layer=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.weight.copy_(torch.tensor([[1e-4], [-1e-4], [2e-4]]))
        model.blocks[0].input.weight.fill_(1)
        model.blocks[0].recurrent_weight.fill_(weight)
        model.head.weight.copy_(torch.tensor([[1.0], [0.0], [0.0]]))
    return model


@pytest.mark.parametrize("weight", [0.5, -0.9, 1.1])
def test_the_gradient_of_a_linear_memory_is_a_power_of_its_weight(example, weight):
    """The loss of letter 1 among three has the slope p(0) = 1/3 in the state; each letter back multiplies by weight."""
    ids = torch.tensor([[0, 1, 2, 0, 1, 2, 1], [2, 2, 1, 0, 0, 1, 1]])
    curve = example.gradients(nearly_linear(weight), ids, far=4)
    assert curve == pytest.approx([abs(weight) ** d / 3 for d in range(5)], rel=1e-2)


def test_another_letter_changes_the_loss_by_what_the_gradient_says(example):
    """As far as the weight reaches, and not at all where there is none; each replaced letter is another one."""
    ids = torch.tensor([[0, 1, 2, 0, 1, 2, 1], [2, 2, 1, 0, 0, 1, 1]])
    found = example.effects(nearly_linear(0.0), ids, [0, 1, 3], letters=3, seed=0)
    assert found[0] > 1e-5 and found[1:] == [0, 0]
    found = example.effects(nearly_linear(0.5).double(), ids, [0, 1, 3], letters=3, seed=0)
    assert all(2e-5 * 0.5**d < value < 2e-4 * 0.5**d for d, value in zip([0, 1, 3], found, strict=True))


def test_windows_are_pieces_of_the_texts(example):
    texts = [list(range(10)), list(range(100, 105)), [7, 7]]
    found = example.windows(texts, 5, number=50, seed=0).tolist()
    assert all(b - a == 1 for row in found for a, b in pairwise(row))
    assert {row[0] for row in found} == {0, 1, 2, 3, 4, 5, 100}


def test_gone_is_the_first_distance_below_a_hundredth(example):
    assert example.reach([2.0, 0.5, 0.021, 0.019, 0.03]) == 3
    assert example.reach([2.0, 0.5]) is None


def test_the_former_start_values_are_as_they_say(example):
    model = LSTM(RNNConfig(10, 4, 16, n_layer=1))
    example.no_forget_bias(model)
    assert not model.blocks[0].input.bias.any()
    model = RNN(RNNConfig(10, 4, 100, n_layer=1))
    example.uniform_start(model)
    assert 0.09 < model.blocks[0].recurrent_weight.abs().max() <= 0.1
    assert torch.linalg.eigvals(model.blocks[0].recurrent_weight.detach()).abs().max().item() == pytest.approx(
        1 / math.sqrt(3), abs=0.1
    )


def test_the_example_leaves_what_it_promises(corpus, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "run"
    run_example("--corpus", corpus, "--out", out, *SMALL, example=EXAMPLE)
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "vanishing_gradients.png"]
    assert (out / "vanishing_gradients.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((out / "results.json").read_text("utf-8"))
    assert list(told["found"]) == ["RNN", "RNN, uniform start", "GRU", "LSTM", "LSTM, forget bias 0"]
    for name, found in told["found"].items():
        assert len(found["before"]) == len(found["after"]) == 13
        assert found["before"] != found["after"]
        assert len(found["effect"]) == len(told["distances"])
        assert f"{name:<20} {found['bits_per_character']:.2f} bits a letter after 4 steps" in printed
        assert f"| {name}, before | {100 * found['before'][1] / found['before'][0]:.2g} |" in printed
    one, other = (told["found"][name]["before"] for name in ("RNN", "RNN, uniform start"))
    assert one[12] / one[0] > 5 * other[12] / other[0]  # what is turned lives longer than what is shrunk


def test_quick_runs_on_the_embedded_corpus(tmp_path, capsys):
    run_example("--quick", "--rows", 2, "--length", 20, "--out", tmp_path, example=EXAMPLE)
    assert "| LSTM, after |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "nowhere"], "nowhere"),
        (["--far", "0", "--places", "-1"], "--far, --places must be at least 1"),
        (["--far", "5000"], "No held-out text is long enough to look so far back: --far may be "),
        (["--length", "100000"], "take windows of at most"),
        (["--lr", "-1"], "lr must be"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(corpus, tmp_path, capsys, arguments, message):  # noqa: F811
    with pytest.raises(SystemExit) as stop:
        run_example("--corpus", corpus, "--out", tmp_path / "out", *SMALL, *arguments, example=EXAMPLE)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert "Traceback" not in error


def test_the_greatest_distance_that_is_told_works(corpus, tmp_path, capsys):  # noqa: F811
    with pytest.raises(SystemExit):
        run_example("--corpus", corpus, "--out", tmp_path, *SMALL, "--far", 5000, example=EXAMPLE)
    most = capsys.readouterr().err.split("--far may be ")[1].split()[0]
    run_example("--corpus", corpus, "--out", tmp_path, *SMALL, "--far", most, "--steps", 1, example=EXAMPLE)
