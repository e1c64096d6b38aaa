"""The plan of the house (docs/contributing.md): imports run one way, and nothing runs code from a file."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "minipoet"
EXAMPLES = PACKAGE.parent / "examples"
FILES = sorted(PACKAGE.rglob("*.py"))
YARDSTICKS = {"transformers", "peft", "trl", "sentencepiece", "accelerate", "datasets"}
# What each of the first rooms may import of the package besides itself, minipoet.files and minipoet.checks.
LAYERS = tuple(f"minipoet.models.{name}" for name in ("base", "layers", "linear", "packed", "weights"))
BELOW = {
    "text": (),
    "tokenization": (),
    "models": (),
    "adapters": LAYERS,
    "quantization": (*LAYERS, *(f"minipoet.models.{name}" for name in ("checkpoint", "decoder", "memory"))),
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    """minipoet/text/poems.py -> minipoet.text.poems; a package's __init__.py is the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are by full name, not relative"
            assert node.module is not None
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = inside & MODULES
            found |= submodules | ({node.module} if inside - submodules else set())
    return found


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "minipoet"}


def room(module: str) -> str:
    """minipoet.text.poems -> text."""
    return [*module.split("."), ""][1]


def files_of(name: str) -> list[Path]:
    return [path for path in FILES if room(module_name(path)) == name]


def is_in(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(f"{allowed}.")


def is_family(path: Path) -> bool:
    """A family's file has a class with a model_type of its own."""
    classes = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    assigned = [node for cls in classes for node in cls.body if isinstance(node, ast.Assign)]
    return any(isinstance(t, ast.Name) and t.id == "model_type" for node in assigned for t in node.targets)


FAMILIES = {module_name(path) for path in files_of("models") if is_family(path)}


def test_this_test_sees_the_house():
    assert "minipoet.models.gpt2" in FAMILIES
    assert "minipoet.models.base" not in FAMILIES
    assert "minipoet.training.batch" in ours(PACKAGE / "training" / "loss.py")
    assert "minipoet.api" in ours(PACKAGE / "__init__.py")


@pytest.mark.parametrize("name", BELOW)
def test_first_rooms_know_nothing_of_each_other_nor_of_later_ones(name):
    allowed = (f"minipoet.{name}", "minipoet.files", "minipoet.checks", *BELOW[name])
    wrong = {
        f"{path.name} imports {module}"
        for path in files_of(name)
        for module in ours(path)
        if not any(is_in(module, place) for place in allowed)
    }
    assert wrong == set()


def test_no_room_but_models_knows_a_family():
    free = {PACKAGE / "__init__.py", PACKAGE / "__main__.py", PACKAGE / "api.py", *files_of("models")}
    wrong = {
        f"{module_name(path)} imports {module}"
        for path in FILES
        if path not in free
        for module in ours(path) & FAMILIES
    }
    assert wrong == set()


def test_no_family_knows_another():
    wrong = {
        f"{path.name} imports {module}"
        for path in files_of("models")
        if module_name(path) in FAMILIES
        for module in ours(path) & (FAMILIES - {module_name(path)})
    }
    assert wrong == set()


def test_rooms_import_one_another_in_one_direction():
    rooms = {room(module) for module in MODULES} - {""}
    below = {name: {room(m) for path in files_of(name) for m in ours(path)} - {name, ""} for name in rooms}
    while free := [name for name in below if not below[name] & below.keys()]:
        for name in free:
            del below[name]
    assert below == {}, "these import one another in a circle"


def test_only_the_door_imports_api():
    doors = {PACKAGE / "__init__.py", PACKAGE / "__main__.py", *files_of("command")}
    wrong = {module_name(path) for path in FILES if path not in doors and "minipoet.api" in ours(path)}
    assert wrong == set()


def test_no_room_imports_the_whole_package():
    wrong = {module_name(path) for path in FILES if room(module_name(path)) and "minipoet" in ours(path)}
    assert wrong - {"minipoet.__main__", "minipoet.command"} == set()


@pytest.mark.parametrize("name", ["files", "checks"])
def test_what_is_for_all_knows_none(name):
    assert ours(PACKAGE / f"{name}.py") == set()


def test_yardsticks_are_not_imported():
    paths = [*FILES, *EXAMPLES.glob("*.py")]
    wrong = {
        f"{path.name} imports {name}" for path in paths for name in imports(path) if name.split(".")[0] in YARDSTICKS
    }
    assert wrong == set()


def test_drawing_library_is_imported_only_when_something_is_drawn():
    def at_the_top(path: Path) -> Iterator[str]:
        for node in tree(path).body:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or ""

    assert {path.name for path in FILES for name in at_the_top(path) if name.startswith("matplotlib")} == set()


def dangerous(node: ast.Call) -> bool:
    """eval(…), exec(…), pickle's loaders, and torch.load without weights_only=True."""
    function = node.func
    if isinstance(function, ast.Name):
        return function.id in ("eval", "exec", "compile", "__import__")
    if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
        return False
    module, name = function.value.id, function.attr
    if module in ("pickle", "marshal", "dill", "shelve"):
        return name in ("load", "loads", "Unpickler", "open")
    safe = any(option.arg == "weights_only" and ast.unparse(option.value) == "True" for option in node.keywords)
    return module == "torch" and name == "load" and not safe


@pytest.mark.parametrize(
    ("code", "expected"),
    [("eval('1')", True), ("model.eval()", False), ("pickle.load(f)", True), ("json.load(f)", False),
     ("torch.load(f)", True), ("torch.load(f, weights_only=True)", False), ("torch.load(f, weights_only=x)", True)],
)  # fmt: skip
def test_dangerous_calls_are_known(code, expected):
    assert dangerous(ast.parse(code, mode="eval").body) is expected


def test_nothing_runs_code_from_a_file():
    wrong = {
        f"{path.name}, line {node.lineno}"
        for path in [*FILES, *EXAMPLES.glob("*.py")]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and dangerous(node)
    }
    assert wrong == set()
    loaders = {
        f"{path.name} imports {alias.name}"
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "dill", "shelve")
        for alias in node.names
    }
    assert loaders == set()
