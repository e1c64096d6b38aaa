"""The cells and the way through time: numbers by hand, torch.nn's outputs and gradients, derivatives by differences."""

import ast
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import minipoet
from minipoet.models import cells
from minipoet.models.recurrence import through_time
from minipoet.models.rnn import Block

LN2, LN3 = math.log(2), math.log(3)  # tanh(ln 2) = 0.6, sigmoid(ln 3) = 0.75
CELLS = [cells.Elman, cells.GRU, cells.LSTM]
THEIRS = {cells.Elman: nn.RNN, cells.GRU: nn.GRU, cells.LSTM: nn.LSTM}
T, B = 7, 3


def numbers(*shape, seed=0, dtype=torch.float64, learns=True):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_(learns)


def one_step(cell, x, weight, bias, *state):
    """One place, one text, width 1."""
    parts = [torch.tensor(values, dtype=torch.float64) for values in (x, weight, bias)]
    before = tuple(torch.tensor([[value]], dtype=torch.float64) for value in state)
    outputs, after = through_time(cell, parts[0].view(1, 1, -1), parts[1].view(-1, 1), parts[2], before)
    assert torch.equal(outputs[-1], after[0])
    return [part.item() for part in after]


# --- one step, by hand --------------------------------------------------------------------------------------------


def test_elman_squeezes_the_sum():
    """h = 1: tanh(ln 2 - 0.5 + 0.25 · 1 + 0.25) = tanh(ln 2)."""
    assert one_step(cells.Elman, [LN2 - 0.5], [0.25], [0.25], 1.0) == pytest.approx([0.6])


def test_gru_keeps_z_of_the_old_state_and_resets_only_what_the_new_part_sees():
    """h = 1: reset = sigmoid(0), z = sigmoid(ln 3), n = tanh(ln 2 - 0.5 + 0.5 · (1 · 1 + 0)), 0.25 · 0.6 + 0.75 · 1."""
    assert one_step(cells.GRU, [0, LN3, LN2 - 0.5], [0, 0, 1], [0, 0, 0], 1.0) == pytest.approx([0.9])


def test_gru_resets_the_bias_of_the_past_too_as_cudnn_does():
    """h = 0, z = 0.75: n = tanh(0.5 · 2 ln 2), a quarter of it."""
    assert one_step(cells.GRU, [0, LN3, 0], [0, 0, 1], [0, 0, 2 * LN2], 0.0) == pytest.approx([0.15])


def test_lstm_forgets_adds_and_shows():
    """h = 2: i = 0.5, f = 0.75, g = 0.6, o = 0.75, and c is such that 0.75 c + 0.5 · 0.6 = ln 2: h' = 0.75 · 0.6."""
    x, weight, bias = [0, LN3 - 1, LN2, LN3 + 1], [0, 0.5, 0, -0.5], [0, 0, 0, 0]
    assert one_step(cells.LSTM, x, weight, bias, 2.0, (LN2 - 0.3) / 0.75) == pytest.approx([0.45, LN2])


def test_a_gradient_through_two_steps_by_hand():
    """Elman, h = tanh(x + w h): dh₂/dx₁ = (1 - h₂²) w (1 - h₁²) = 0.64 · 0.5 · 0.64, dh₂/dw = 0.64 · h₁."""
    x = torch.tensor([LN2, LN2 - 0.3], dtype=torch.float64).view(2, 1, 1).requires_grad_()
    weight = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    outputs, _ = through_time(cells.Elman, x, weight, torch.zeros(1).double(), (torch.zeros(1, 1).double(),))
    assert outputs.flatten().tolist() == pytest.approx([0.6, 0.6])
    outputs[-1].sum().backward()
    assert x.grad is not None and weight.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([0.64 * 0.5 * 0.64, 0.64])
    assert weight.grad.item() == pytest.approx(0.64 * 0.6)


def test_a_text_that_begins_anew_begins_with_the_start_and_teaches_it():
    """Elman, w = 0.5, start 0.6: tanh(ln 2 - 0.3 + 0.5 · 0.6) at each of two places that forget what was before them.

    d(sum of outputs)/d(start) is (1 - 0.36) · 0.5 at each place; that of the state before, which nobody reads, is 0.
    """
    x = torch.full((2, 1, 1), LN2 - 0.3, dtype=torch.float64)
    weight, bias = torch.tensor([[0.5]], dtype=torch.float64), torch.zeros(1).double()
    state, start = (numbers(1, 1),), (torch.tensor([0.6], dtype=torch.float64, requires_grad=True),)
    new = torch.ones(2, 1, dtype=torch.bool)
    outputs, _ = through_time(cells.Elman, x, weight, bias, state, new, start=start)
    outputs.sum().backward()
    assert outputs.flatten().tolist() == pytest.approx([0.6, 0.6])
    assert start[0].grad is not None and start[0].grad.item() == pytest.approx(0.64)
    assert state[0].grad is not None and state[0].grad.item() == 0


# --- torch.nn with the same weights -------------------------------------------------------------------------------


def compared(cell, n_layer, dtype):
    """(name, ours, theirs) of outputs, last states and all gradients, of a stack and of torch.nn's with its weights."""
    n_in, C = 5, 6
    theirs = THEIRS[cell](n_in, C, n_layer).to(dtype)
    blocks = [Block(cell, n_in if layer == 0 else C, C).to(dtype) for layer in range(n_layer)]
    pairs = []
    for layer, block in enumerate(blocks):
        ours = (block.input.weight, block.input.bias, block.recurrent_weight, block.recurrent_bias)
        named = [f"{name}_l{layer}" for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")]
        for seed, (name, parameter) in enumerate(zip(named, ours, strict=True), start=10 * layer):
            nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(seed))
            other = getattr(theirs, name)
            other.data.copy_(parameter.data)
            pairs.append((name, parameter, other))
    inputs = [numbers(T, B, n_in, seed=1, dtype=dtype) for _ in range(2)]
    starts = [[numbers(n_layer, B, C, seed=2 + part, dtype=dtype) for part in range(cell.states)] for _ in range(2)]
    pairs += [("inputs", *inputs), *((f"start {part}", *pair) for part, pair in enumerate(zip(*starts, strict=True)))]

    x, last = inputs[0], []
    for layer, block in enumerate(blocks):
        x, state = block(x, tuple(start[layer] for start in starts[0]), None, None)
        last.append(state)
    after = [torch.stack(part) for part in zip(*last, strict=True)]
    other, after_other = theirs(inputs[1], tuple(starts[1]) if cell is cells.LSTM else starts[1][0])
    after_other = after_other if cell is cells.LSTM else (after_other,)

    found = [("outputs", x, other), *(("last", *pair) for pair in zip(after, after_other, strict=True))]
    weights = [numbers(*one.shape, seed=7 + n, dtype=dtype, learns=False) for n, (_, one, _) in enumerate(found)]
    for side in (1, 2):
        sum((row[side] * weight).sum() for row, weight in zip(found, weights, strict=True)).backward()
    return found + [(f"gradient of {name}", one.grad, other.grad) for name, one, other in pairs]


@pytest.mark.parametrize("n_layer", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_outputs_states_and_all_gradients_are_those_of_torch(cell, n_layer, dtype, limit):
    rows = compared(cell, n_layer, dtype)
    assert len(rows) == 1 + cell.states + 4 * n_layer + 1 + cell.states
    for name, ours, theirs in rows:
        assert float((ours - theirs).detach().abs().max()) <= limit * float(theirs.detach().abs().max()), name


# --- derivatives, with texts that begin anew and padding ----------------------------------------------------------


@pytest.mark.parametrize("start", [False, True], ids=["", "start"])
@pytest.mark.parametrize("marked", ["", "new", "real", "new real"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_is_that_of_small_differences(cell, marked, start):
    steps, rows, C = 5, 4, 2
    draw = torch.Generator().manual_seed(5)
    new = torch.rand(steps, rows, generator=draw) < 0.4 if "new" in marked else None
    real = torch.rand(steps, rows, generator=draw) < 0.6 if "real" in marked else None
    inputs = [numbers(steps, rows, cell.gates * C, seed=1), numbers(cell.gates * C, C, seed=2)]
    inputs += [numbers(cell.gates * C, seed=3), *(numbers(rows, C, seed=4 + part) for part in range(cell.states))]
    inputs += [numbers(C, seed=6 + part) for part in range(cell.states) if start]

    def read(x, weight, bias, *parts):
        state, begin = parts[: cell.states], parts[cell.states :] or None
        outputs, last = through_time(cell, x, weight, bias, state, new, real, begin)
        return outputs, *last

    assert torch.autograd.gradcheck(read, inputs)


@pytest.mark.parametrize("begins", [False, True], ids=["zeros", "start"])
@pytest.mark.parametrize("cell", CELLS)
def test_marks_mean_that_each_text_is_read_alone_and_padding_not_at_all(cell, begins):
    """A row of padding, a text of two, padding within the second text, and one that goes on from the state before."""
    C = 4
    x, weight, bias = numbers(6, 2, cell.gates * C), numbers(cell.gates * C, C), numbers(cell.gates * C)
    state = tuple(numbers(2, C, seed=8 + part) for part in range(cell.states))
    new = torch.tensor([[0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]).bool().t()
    real = torch.tensor([[0, 1, 1, 1, 0, 1], [1, 1, 0, 1, 1, 1]]).bool().t()
    start = tuple(numbers(C, seed=20 + part) for part in range(cell.states)) if begins else None
    outputs, last = through_time(cell, x, weight, bias, state, new, real, start)

    def alone(row, places, before):
        return through_time(cell, x[places, row : row + 1], weight, bias, tuple(s[row : row + 1] for s in before))

    fresh = tuple((torch.zeros(C) if start is None else start[n]).expand(2, C) for n in range(cell.states))
    assert torch.equal(outputs[0, 0], state[0][0])
    for row, places, before in ((0, [1, 2], fresh), (0, [3, 5], fresh), (1, [0, 1, 3], state), (1, [4, 5], fresh)):
        expected, end = alone(row, places, before)
        torch.testing.assert_close(outputs[places, row], expected[:, 0])
    assert torch.equal(outputs[4, 0], outputs[3, 0])
    for part, own in zip(last, end, strict=True):
        torch.testing.assert_close(part[1:], own)


@pytest.mark.parametrize("cell", CELLS)
def test_only_what_learns_gets_a_gradient(cell):
    C = 3
    for learns in range(3):
        parts = [numbers(T, B, cell.gates * C), numbers(cell.gates * C, C), numbers(cell.gates * C)]
        for number, part in enumerate(parts):
            part.requires_grad_(number == learns)
        outputs, _ = through_time(cell, *parts, tuple(torch.zeros(B, C).double() for _ in range(cell.states)))
        outputs.sum().backward()
        assert [part.grad is not None for part in parts] == [number == learns for number in range(3)]


def test_a_second_derivative_is_refused_and_not_wrong():
    x, weight = numbers(T, B, 3), numbers(3, 3)
    outputs, _ = through_time(cells.Elman, x, weight, numbers(3), (torch.zeros(B, 3).double(),))
    (grad,) = torch.autograd.grad(outputs.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("cell", CELLS)
def test_reading_no_token_leaves_the_state(cell):
    state = tuple(numbers(B, 3, seed=part) for part in range(cell.states))
    outputs, last = through_time(
        cell, numbers(0, B, cell.gates * 3), numbers(cell.gates * 3, 3), numbers(cell.gates * 3), state
    )
    assert outputs.shape == (0, B, 3)
    assert all(torch.equal(one, other) for one, other in zip(last, state, strict=True))


# --- types of numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_under_autocast_the_recurrence_keeps_all_its_digits(cell):
    block = Block(cell, 5, 6)
    block.reset(torch.Generator().manual_seed(0))
    x = numbers(T, B, 5, dtype=torch.float32)
    state = tuple(numbers(B, 6, seed=part, dtype=torch.float32) for part in range(cell.states))
    with torch.autocast("cpu", torch.bfloat16):
        outputs, last = block(x, state, None, None)
        rounded = block.input(x)
    expected, _ = through_time(cell, rounded.float(), block.recurrent_weight, block.recurrent_bias, state)
    assert rounded.dtype is torch.bfloat16  # the product of all places may be rounded
    assert {tensor.dtype for tensor in (outputs, *last)} == {torch.float32}
    assert torch.equal(outputs, expected)
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in block.parameters())


@pytest.mark.parametrize("cell", CELLS)
def test_a_block_in_bf16_learns_in_bf16(cell):
    block = Block(cell, 5, 6)
    block.reset(torch.Generator().manual_seed(0))
    x, state = numbers(T, B, 5, dtype=torch.float32), tuple(torch.zeros(B, 6) for _ in range(cell.states))
    expected, _ = block(x, state, None, None)
    block.bfloat16()
    outputs, last = block(x.bfloat16(), state, None, None)
    assert {tensor.dtype for tensor in (outputs, *last)} == {torch.bfloat16}
    torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=0.05)
    outputs.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


# --- from scratch -------------------------------------------------------------------------------------------------

# nn.LSTM, torch.nn.modules.rnn.GRU, torch.lstm, torch._VF.gru, torch.rnn_tanh, torch.ops.aten.mkldnn_rnn_layer;
# torch.nn.utils.rnn has no layers: it pads.
READY_MADE = re.compile(
    r"(torch\.)?nn\.(.*\.)?(RNN|GRU|LSTM)\w*|torch\.(?!nn\.utils\.)(.*\.)?\w*(lstm|gru|rnn)\w*(\..*)?"
)


def ready_made(source: str) -> list[str]:
    """The recurrent layers of PyTorch that a source names."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            names.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if READY_MADE.fullmatch(name)]


def test_the_house_uses_no_recurrent_layer_of_torch():
    package = Path(minipoet.__file__).parent
    found = {str(path): ready_made(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}
    assert any(path.endswith("cells.py") for path in found)


@pytest.mark.parametrize(
    "source",
    ["nn.LSTM(2, 3)", "torch.nn.GRUCell(1, 1)", "from torch.nn import RNN", "import torch.nn.modules.rnn", "torch.lstm",
     "from torch.nn.modules.rnn import LSTM", "torch._VF.gru(x)", "torch.ops.aten.mkldnn_rnn_layer(x)"],
)  # fmt: skip
def test_a_ready_made_layer_would_be_found(source):
    assert ready_made(source)
    assert not ready_made("cells.LSTM; from minipoet.models.rnn import LSTM; torch.nn.utils.rnn.pad_sequence")
