"""The history: what is added outlives a kill, and a resumed run writes anew what happened after its checkpoint."""

import json

import pytest

from minipoet.training import History, read_history

EVENTS = [{"step": 0, "validation": 5.0}, {"step": 1, "loss": 4.5}, {"step": 2, "loss": 4.0}, {"step": 2, "note": "ё"}]


def written(path) -> History:
    history = History(path)
    for event in EVENTS:
        history.add(**event)
    return history


def test_each_event_is_a_json_line_as_soon_as_it_is_added(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    for number, event in enumerate(EVENTS, start=1):
        history.add(**event)
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == EVENTS[:number] == history.events
    assert "ё" in path.read_text(encoding="utf-8")


def test_history_without_a_file_is_kept_in_memory():
    assert written(None).events == EVENTS


def test_curve_has_the_steps_and_values_of_one_key():
    assert written(None).curve("loss") == ([1, 2], [4.5, 4.0])
    assert written(None).curve("nothing") == ([], [])


def test_rewinding_forgets_later_events_in_memory_and_in_the_file(tmp_path):
    history = written(tmp_path / "history.jsonl")
    history.rewind(1)
    assert history.events == EVENTS[:2]
    assert read_history(tmp_path / "history.jsonl").events == EVENTS[:2]
    history.add(step=2, loss=3.9)
    assert read_history(tmp_path / "history.jsonl").events == [*EVENTS[:2], {"step": 2, "loss": 3.9}]


def test_last_line_may_be_cut_short_anywhere(tmp_path):
    path = tmp_path / "history.jsonl"
    written(path)
    whole = path.read_bytes()
    start_of_last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start_of_last, len(whole) - 1):  # also between the two bytes of ё
        path.write_bytes(whole[:end])
        assert read_history(path).events == EVENTS[:3]
    path.write_bytes(whole[:-1])
    assert read_history(path).events == EVENTS


def test_resuming_after_a_cut_line_leaves_a_whole_file(tmp_path):
    path = tmp_path / "history.jsonl"
    written(path)
    path.write_bytes(path.read_bytes()[:-5])
    history = read_history(path)
    history.rewind(2)
    history.add(step=3, loss=3.5)
    assert read_history(path).events == [*EVENTS[:3], {"step": 3, "loss": 3.5}]


@pytest.mark.parametrize("line", ["{", "[1]", "7", '{"loss": 1}', "null", "\xff"])
def test_another_kind_of_file_is_refused_by_line(tmp_path, line):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"step": 0}\n' + line.encode("latin-1") + b'\n{"step": 1}\n')
    with pytest.raises(ValueError, match=r"history\.jsonl, line 2: not an event"):
        read_history(path)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"history\.jsonl cannot be read"):
        read_history(tmp_path / "history.jsonl")


@pytest.mark.parametrize("content", ["x", '{"loss": 1}', "[1]", '{\n  "vocab_size": 5\n}', '{"step": "1"}\n'])
def test_a_whole_file_of_another_kind_is_no_history_cut_short(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json, line 1: not an event"):
        read_history(tmp_path / "config.json")
