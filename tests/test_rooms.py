"""Who may import whom, read from every file's imports; and that nothing but export needs PyTorch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedder import write_embedder

ROOT = Path(__file__).parent.parent

# What each room may import of ours besides itself and onnxsmith.errors ("" is the facade).
OURS: dict[str, set[str]] = {
    "cli": {"", "compiler", "models", "passes", "runtime"},
    "compiler": {"models", "passes", "runtime"},
    "models": set(),
    "passes": set(),
    "runtime": set(),
}
# What it may not import of others'.
BANNED: dict[str, set[str]] = {
    "cli": {"torch"},
    "compiler": set(),
    "models": {"onnx", "onnx_ir", "onnxscript", "onnxruntime"},
    "passes": {"torch", "onnxruntime"},
    "runtime": {"torch", "onnx", "onnx_ir", "onnxscript"},
}
FILES = [path.relative_to(ROOT) for room in OURS for path in sorted((ROOT / room).rglob("*.py"))]

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; import onnxsmith, json; "


def imports(source: str) -> Iterator[str]:
    """Every module that a source text imports, wherever in it; a relative import starts with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def forbidden(source: str, room: str) -> list[str]:
    """The imports of a source text that its room does not allow."""
    return [module for module in imports(source) if not _allowed(module, room)]


def _allowed(module: str, room: str) -> bool:
    top, _, rest = module.partition(".")
    if top != "onnxsmith":
        return bool(top) and top not in BANNED[room]
    target = rest.partition(".")[0]
    return target in OURS[room] | {room, "errors"}


def python(code: str) -> str:
    """Run code in a fresh interpreter and give what it prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_follow_the_arrows(path: Path) -> None:
    assert forbidden((ROOT / path).read_text(encoding="utf-8"), path.parts[0]) == []


def test_a_wrong_import_is_noticed() -> None:
    assert forbidden("from onnxsmith.compiler.verify import x", "passes") == ["onnxsmith.compiler.verify"]
    assert forbidden("def f():\n    import torch.nn", "runtime") == ["torch.nn"]
    assert forbidden("from . import engine", "passes") == ["."]
    assert forbidden("import onnxsmith", "compiler") == ["onnxsmith"]
    assert forbidden("from onnxsmith.errors import BadInput\nimport numpy", "models") == []


def test_every_module_outside_models_imports_without_torch() -> None:
    modules = [".".join(("onnxsmith", *path.with_suffix("").parts)) for path in FILES if path.parts[0] != "models"]
    names = json.dumps([module.removesuffix(".__init__") for module in modules])
    python(WITHOUT_TORCH + f"from importlib import import_module\nfor name in {names}: import_module(name)")


@pytest.mark.parametrize(
    "call",
    [
        "onnxsmith.optimize({model!r}, {output!r})",
        "onnxsmith.explain({model!r})",
        "onnxsmith.load({model!r}).embed(['red cat'])",
        "onnxsmith.compare([{model!r}, {model!r}], pairs=1)",
    ],
)
def test_everything_but_export_works_without_torch(tmp_path: Path, call: str) -> None:
    model = write_embedder(tmp_path / "a")
    python(WITHOUT_TORCH + call.format(model=str(model), output=str(tmp_path / "b")))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from onnxsmith.cli import main; main.run(['--help']); print(); print(*sys.modules)"
    loaded = set(python(code).splitlines()[-1].split())
    assert loaded & {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "tokenizers"} == set()
