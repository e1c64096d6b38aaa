"""What memory there is, and what a step of training will take of it."""

import pytest
import torch
from test_gpt2 import tiny
from test_qwen2 import shape
from test_t5 import tiny as tiny_t5

import minipoet
from minipoet.models import memory
from minipoet.models.memory import available_memory, training_memory
from minipoet.training import loss

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 20 GB free; returns a function that puts this process into a control group of it."""
    monkeypatch.setattr(memory, "_machine_memory", lambda: 20 * GB)
    monkeypatch.setattr(memory, "PROC", tmp_path)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup.of.system")
    (tmp_path / "cgroup").write_text("")

    def put(line, folder, **files):
        (tmp_path / "cgroup").write_text(f"{line}\n")
        place = tmp_path / "cgroup.of.system" / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (place / name.replace("_", ".", 1)).write_text(f"{content}\n")

    return put


def test_without_a_limit_the_machine_says_what_is_free(machine):
    assert available_memory() == 20 * GB
    machine("0::/user", "user", memory_max="max", memory_current=5 * GB, memory_stat="anon 1")
    assert available_memory() == 20 * GB


def test_a_container_may_take_what_its_limit_leaves_and_what_only_caches_files(machine):
    stat = f"anon {2 * GB}\nactive_file {GB}\ninactive_file {GB}"
    machine("0::/", "", memory_max=8 * GB, memory_current=5 * GB, memory_stat=stat)
    assert available_memory() == (8 - 5 + 2) * GB


def test_the_tightest_of_the_groups_around_a_process_counts(machine):
    machine("0::/a/b", "a", memory_max=4 * GB, memory_current=GB, memory_stat="anon 0")
    machine("0::/a/b", "a/b", memory_max=9 * GB, memory_current=GB, memory_stat="anon 0")
    assert available_memory() == 3 * GB
    machine("0::/not/seen/from/inside", "", memory_max=2 * GB, memory_current=GB, memory_stat="anon 0")
    assert available_memory() == GB


def test_the_first_version_of_control_groups_is_read_too(machine):
    names = {"memory_limit_in_bytes": 6 * GB, "memory_usage_in_bytes": 2 * GB, "memory_stat": "active_file 5"}
    machine("4:cpu,memory:/x", "memory/x", **names)
    assert available_memory() == 4 * GB + 5
    machine("4:cpuset:/x", "memory/x", **names)
    assert available_memory() == 20 * GB


def test_a_gpu_is_asked_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 * GB, 80 * GB))
    assert available_memory("cuda:1") == 7 * GB


def test_this_machine_has_some_memory():
    assert 10**6 < available_memory() < 10**15


def test_an_estimate_worked_by_hand():
    """GPT-2: C = 32, 2 layers, 50 words; a block's matrices are 32 × 96, 32 × 32, 32 × 128, 128 × 32."""
    model = minipoet.add_lora(tiny(n_embd=32, n_layer=2, vocab_size=50), rank=2, targets=("attn.qkv",))
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16() if not parameter.requires_grad else parameter.data
    found = training_memory(model, rows=3, length=7)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert found.weights == 2 * frozen
    assert found.trained == 2 * (2 * 32 + 2 * 96) * (16 + 2)  # value, gradient, two means, a copy in bf16
    per_token = 2 * (32 + 96 + 32 + 32 + 32 + 128 + 128 + 32) + 2 * 4 * 32
    assert found.kept == 2 * (21 * 2 * 32 + int(0.3 * 21 * per_token))
    assert found.block == 3 * (21 * per_token) // 2
    assert found.logits == 2 * 21 * 50
    assert found.total == found.weights + found.trained + found.kept + found.block + memory.BESIDES
    assert training_memory(model, 3, 7, checkpointing=False).kept == 2 * 2 * 21 * per_token
    assert training_memory(model, 3, 7, bits=32).logits == 4 * 21 * 50


@pytest.mark.parametrize(
    ("size", "length", "checkpointing", "resident", "own"),  # MB, of tests/benchmarks/bench_qwen.py --measures step
    [
        ("0.5B", 256, True, 1372, 335),
        ("0.5B", 512, True, 1524, 487),
        ("0.5B", 256, False, 1966, 936),
        ("1.5B", 256, True, 3666, 527),
        ("3B", 256, True, 7051, 822),
    ],
)
def test_an_estimate_is_near_what_was_measured(size, length, checkpointing, resident, own):
    model = minipoet.add_lora(shape(size).bfloat16(), rank=8, targets="all-linear")
    found = training_memory(model, 1, length, checkpointing)
    assert found.total == pytest.approx(resident * 10**6, rel=0.05)
    assert found.total - found.weights == pytest.approx(own * 10**6, rel=0.2)


def test_many_words_go_through_the_head_a_few_tokens_at_a_time():
    assert memory.LOGITS == loss.LOGITS
    many, more = (training_memory(shape("0.5B"), 1, length) for length in (512, 4096))
    assert many.logits == more.logits == 2 * 151936 * loss.chunk_for(shape("0.5B"))


def test_what_no_estimate_is_made_for_is_refused():
    with pytest.raises(ValueError, match="estimated for one stack of blocks, a Linear is none"):
        training_memory(torch.nn.Linear(2, 2), 1, 1)
    with pytest.raises(ValueError, match="estimated for one stack of blocks, a T5 is none"):
        training_memory(tiny_t5(), 1, 5)
    with pytest.raises(ValueError, match="rows=0"):
        training_memory(tiny(), 0, 5)
    with pytest.raises(ValueError, match="bits"):
        training_memory(tiny(), 1, 5, bits=8)
