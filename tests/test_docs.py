"""The chapters: their code runs and prints what stands below it, and what they name or link to exists.

A block ```python runs, the blocks of a file one after another in one namespace; ```python no-run does not. A block
```output right after it is what it prints: equal word for word, but numbers with a decimal point may differ by 3 %,
since other machines round otherwise. Files that a block writes go to a temporary folder, and there is no network.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import re
import socket
import sys
import types
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = [*sorted((ROOT / "docs").glob("*.md")), *(path for path in [ROOT / "README.md"] if path.exists())]
SOURCES = sorted((ROOT / "minipoet").rglob("*.py"))
TOLERANCE = 0.03

FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|(?:src|href)=\"([^\"]+)\"")
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
IN_FILE = re.compile(r"([\w/.-]+\.py):([A-Za-z_][\w.]*)")
PATH = re.compile(r"(?:minipoet|tests|docs|examples)/[\w/.-]*")
SUFFIXES = {"py", "md", "txt", "json", "jsonl", "gz", "safetensors", "bin", "model", "png", "cfg", "toml"}


class Block(NamedTuple):
    """A fenced block: what stands after the ticks, the number of its first line, its lines."""

    info: str
    line: int
    text: str


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a chapter, without their indentation."""
    found, opened, lines = [], None, []
    for number, line in enumerate(markdown.split("\n"), start=1):
        match = FENCE.fullmatch(line.rstrip())
        if opened is None:
            if match:
                opened, first, lines = match, number + 1, []
        elif match and not match["info"] and len(match["ticks"]) >= len(opened["ticks"]):
            found.append(Block(opened["info"].strip(), first, "\n".join(lines)))
            opened = None
        else:
            lines.append(line.removeprefix(opened["indent"]))
    assert opened is None, f"line {first - 1}: this block has no end"
    return found


def prose(markdown: str) -> str:
    """A chapter without its fenced blocks."""
    lines, ticks = [], ""
    for line in markdown.split("\n"):
        match = FENCE.fullmatch(line.rstrip())
        if match and (not ticks or (not match["info"] and len(match["ticks"]) >= len(ticks))):
            ticks = "" if ticks else match["ticks"]
        elif not ticks:
            lines.append(line)
    return "\n".join(lines)


def same_output(expected: str, printed: str) -> bool:
    """Equal words; numbers with a decimal point within the tolerance."""
    one, other = expected.split(), printed.split()
    return len(one) == len(other) and all(map(_same_word, one, other))


def _same_word(one: str, other: str) -> bool:
    if one == other:
        return True
    numbers = [re.split(r"(-?\d+\.\d+(?:e[+-]?\d+)?)", word) for word in (one, other)]
    if len(numbers[0]) != len(numbers[1]) or numbers[0][::2] != numbers[1][::2]:
        return False
    return all(
        float(a) == pytest.approx(float(b), rel=TOLERANCE)
        for a, b in zip(numbers[0][1::2], numbers[1][1::2], strict=True)
    )


def missing_links(markdown: str, folder: Path) -> list[str]:
    """Relative links that lead nowhere: no such file, no such heading, or a number of a line, which moves."""
    wrong = []
    for match in LINK.finditer(prose(markdown)):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (folder / name).resolve() if name else None
        if path is not None and not path.exists():
            wrong.append(f"{target}: no such file")
        elif re.fullmatch(r"L\d+.*", anchor):
            wrong.append(f"{target}: line numbers move, name the function")
        elif anchor and (path is None or path.suffix == ".md"):
            text = markdown if path is None else path.read_text(encoding="utf-8")
            if anchor not in headings(text):
                wrong.append(f"{target}: no such heading")
    return wrong


def headings(markdown: str) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    titles = re.findall(r"^#{1,6} +(.+?) *$", prose(markdown), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def missing_symbols(markdown: str) -> list[str]:
    """Names in backticks that look like ours and are not there."""
    wrong = []
    for code in CODE.findall(prose(markdown)):
        if match := IN_FILE.fullmatch(code):
            if match[2] not in names_of_files(match[1]):
                wrong.append(f"{code}: no such function, class or constant in a file of that name")
        elif PATH.fullmatch(code):
            if not (ROOT / code).exists():
                wrong.append(f"{code}: no such file")
        elif (match := DOTTED.match(code)) and not is_known(match[0]):
            wrong.append(f"{code}: no such name")
    return wrong


def names_of_files(path: str) -> set[str]:
    """What the files of that name (or end of a path) define: `function`, `Class`, `Class.method`, `CONSTANT`."""
    names: set[str] = set()
    for file in [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").glob("*.py")]:
        if f"/{file.relative_to(ROOT).as_posix()}".endswith(f"/{path}"):
            names |= _names(ast.parse(file.read_text(encoding="utf-8")).body)
    return names


def _names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    names = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            names |= _names(node.body, f"{prefix}{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
    return names


@cache
def modules() -> dict[str, list[str]]:
    """Last part of a module's name -> the modules that it may mean, rooms first."""
    found: dict[str, list[str]] = {}
    for file in sorted(SOURCES, key=lambda path: len(path.parts)):
        parts = file.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts[-1] != "__main__":
            found.setdefault(parts[-1], []).append(".".join(parts))
    return found


def is_known(dotted: str) -> bool:
    """Is `minipoet.room.name` or `module.name` there? What begins with no module of ours is not ours to judge."""
    first, *rest = dotted.split(".")
    if first not in modules() or rest[-1] in SUFFIXES:
        return True
    if hasattr(str, rest[0]) or hasattr(torch.Tensor, rest[0]):  # text.strip, loss.backward: a variable of that name
        return True
    return any(_has(importlib.import_module(module), rest) for module in modules()[first])


def _has(thing: object, names: list[str]) -> bool:
    """Has a module (or a class in it: `cache.length`) an attribute, a field or a submodule of that name?"""
    if not names:
        return True
    name, *rest = names
    if isinstance(thing, types.ModuleType):
        if not hasattr(thing, name) and hasattr(thing, "__path__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(f"{thing.__name__}.{name}")
        if hasattr(thing, name):
            return _has(getattr(thing, name), rest)
        own = [c for c in vars(thing).values() if inspect.isclass(c) and c.__module__ == thing.__name__]
        return any(_has(c, names) for c in own)
    if hasattr(thing, name):
        return _has(getattr(thing, name), rest)
    annotated = any(name in vars(c).get("__annotations__", {}) for c in getattr(thing, "__mro__", ()))
    return annotated or (inspect.isclass(thing) and re.search(rf"self\.{name}\b", inspect.getsource(thing)) is not None)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A temporary folder, one thread, no network, nothing in a cache; PyTorch's settings are put back."""

    def refuse(*arguments):
        raise OSError("the chapters run without a network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIPOET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_code_runs_and_prints_what_stands_below_it(path: Path, alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    chapter = types.ModuleType(f"chapter_{path.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, chapter.__name__, chapter)
    found = blocks(path.read_text(encoding="utf-8"))
    for block, after in zip(found, [*found[1:], None], strict=False):
        if block.info != "python":
            continue
        printed = io.StringIO()
        # With the lines before it as empty ones, so that an error names the line of the chapter.
        code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, vars(chapter))
        if after is not None and after.info == "output":
            assert same_output(after.text, printed.getvalue()), (
                f"{path}:{after.line}: the block above it prints\n{printed.getvalue()}"
            )


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_output_stands_after_code_that_runs(path: Path) -> None:
    found = blocks(path.read_text(encoding="utf-8"))
    before = [None, *(block.info for block in found)]
    wrong = [b.line for b, info in zip(found, before, strict=False) if b.info == "output" and info != "python"]
    assert not wrong, f"{path}: lines {wrong}: ```output must follow ```python"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    assert missing_links(path.read_text(encoding="utf-8"), path.parent) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_named_files_and_symbols_exist(path: Path) -> None:
    assert missing_symbols(path.read_text(encoding="utf-8")) == []


def test_chapters_that_the_code_points_to_exist() -> None:
    missing = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in [*SOURCES, *sorted((ROOT / "examples").glob("*.py"))]
        for name in re.findall(r"docs/[\w-]+\.md", file.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    ]
    assert missing == []


# The checks themselves


def test_blocks_are_found_with_their_lines() -> None:
    markdown = "a\n```python\nx = 1\n```\n- b\n  ````text\n  ```\n    y\n  ````\n"
    assert blocks(markdown) == [Block("python", 3, "x = 1"), Block("text", 7, "```\n  y")]
    assert prose(markdown) == "a\n- b\n"


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("loss 3.50, 12 steps", "loss  3.51, 12 steps\n", True),
        ("loss 3.50", "loss 3.70", False),
        ("12 steps", "13 steps", False),
        ("v1.0", "w1.0", False),
        ("", "1", False),
    ],
)
def test_output_is_compared_by_words_and_nearly_by_numbers(expected: str, printed: str, same: bool) -> None:
    assert same_output(expected, printed) == same


def test_wrong_links_are_found() -> None:
    markdown = "# One *two*\n[a](#one-two) [b](#three) [c](nowhere.md) [d](https://example.org) [e](../setup.cfg#L3)"
    assert [problem.partition(":")[0] for problem in missing_links(markdown, ROOT / "docs")] == [
        "#three",
        "nowhere.md",
        "../setup.cfg#L3",
    ]


def test_wrong_symbols_are_found() -> None:
    right = "`minipoet.load(x)` `minipoet.text.split.split_by_work` `packing.Batches.batch` `bpe.py:merge_word` "
    right += "`training/loop.py:train` `tests/test_bpe.py` `text.strip()` `torch.anything` `tokenizer.json`"
    assert missing_symbols(right) == []
    wrong = ["minipoet.nothing", "minipoet.text.split.nothing", "packing.nothing", "bpe.py:nothing", "tests/no.py"]
    assert [problem.partition(": ")[0] for problem in missing_symbols(" ".join(f"`{code}`" for code in wrong))] == wrong
