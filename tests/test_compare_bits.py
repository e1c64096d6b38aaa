"""The comparison of bits, run as a user runs it on a tiny model and corpus; and what a mistake is told."""

import json
from pathlib import Path

import pytest
from reference_data import reference
from test_example_vocabulary import load_example
from test_examples import corpus, run_example  # noqa: F401  (a fixture)
from test_gpt2 import tiny

import minipoet
from minipoet.quantization import QuantConfig
from minipoet.quantization.calibrate import quantize

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "compare_bits.py"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny untrained model with the recorded tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = minipoet.load_tokenizer(reference("tokenizer"))
    minipoet.save(tiny(vocab_size=tokenizer.vocab_size, n_positions=96), tokenizer, folder)
    return folder


@pytest.mark.filterwarnings("ignore")  # of kernels that take no matrices so small
def test_all_ways_are_measured_and_written(base, corpus, tmp_path, capsys):  # noqa: F811
    run_example("--models", base, "--corpus", corpus, "--out", tmp_path / "run", "--bits", 4, 3, "--group-sizes", 16,
                "--tokens", 3, "--poems", 5, "--held-out", 2, example=EXAMPLE)  # fmt: skip
    found = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    (rows,) = found["rows"].values()
    assert [row["name"] for row in rows] == ["as it is", "int8", "NF4"] + [
        f"{bits} bits, groups of 16: {way}" for bits in (4, 3) for way in ("to nearest", "GPTQ", "GPTQ, act-order")
    ]
    assert (found["calibration_poems"], found["held_out_poems"]) == (5, 2)
    size, error = ({row["name"]: row[what] for row in rows} for what in ("megabytes", "error"))
    assert size["3 bits, groups of 16: GPTQ"] < size["4 bits, groups of 16: GPTQ"] < size["int8"] < size["as it is"]
    assert size["4 bits, groups of 16: GPTQ"] == size["4 bits, groups of 16: to nearest"]
    for bits in (4, 3):
        assert error[f"{bits} bits, groups of 16: GPTQ"] < error[f"{bits} bits, groups of 16: to nearest"]
    assert all(row["tokens_per_second"] > 0 for row in rows)
    assert (tmp_path / "run" / "report.md").read_text("utf-8") in capsys.readouterr().out
    assert (tmp_path / "run" / f"{base.name}.png").read_bytes().startswith(b"\x89PNG")


def test_sizes_are_those_of_files(base):
    example = load_example(EXAMPLE)
    model, _ = minipoet.load(base)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert example.file_bytes(model) == 2 * parameters
    matrices = {name: layer.weight.numel() for name, layer in model.named_modules()
                if name.startswith("blocks") and hasattr(layer, "in_features")}  # fmt: skip
    quantize(model, None, QuantConfig(bits=4, group_size=-1), "rtn", quiet=True)
    outputs = {name: layer.out_features for name, layer in model.named_modules() if name in matrices}
    inputs = {name: layer.in_features for name, layer in model.named_modules() if name in matrices}
    packed = sum(matrices.values()) / 2 + sum(2.5 * n for n in outputs.values()) + sum(4 * n for n in inputs.values())
    assert example.file_bytes(model) == 2 * (parameters - sum(matrices.values())) + packed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bits", 5), "bits must be one of 2, 3, 4, 8, got 5"),
        (("--group-sizes", 0), "group_size must be a whole number of at least 1, or -1, got 0"),
        (("--poems", 9999), "--poems must be from 1 to "),
        (("--held-out", 0, "--tokens", 0), "--held-out must be at least 1, got 0; --tokens must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_sentence(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_example("--out", tmp_path / "run", *options, example=EXAMPLE)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
