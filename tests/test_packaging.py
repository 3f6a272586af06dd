"""The wheel holds what the tree holds, and works from anywhere but the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("cli", "compiler", "models", "passes", "runtime")
PIP_INSTALL = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from: earlier builds would leave files of their own in the wheel."""
    copy = tmp_path_factory.mktemp("packaging") / "tree"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    for name in ("onnxsmith", *ROOMS):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(tree, folder / "source")
    run(sys.executable, "-m", "pip", "wheel", *PIP_INSTALL[1:], "-w", str(folder), str(source), cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "pip", *PIP_INSTALL, "--target", str(target), str(wheel), cwd=target)
    return target


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    """Run a command in ``cwd`` with ``path`` as the PYTHONPATH, and give its stdout."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def package_files(tree: Path) -> set[str]:
    """Files of the tree under the names that they have in an installation."""
    prefixes = {"onnxsmith": "", **dict.fromkeys(ROOMS, "onnxsmith/")}
    return {
        prefix + path.relative_to(tree).as_posix()
        for name, prefix in prefixes.items()
        for path in (tree / name).rglob("*")
        if path.is_file()
    }


def test_the_wheel_holds_the_tree(tree: Path, wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == package_files(tree)


def test_the_wheel_imports_away_from_the_tree(installed: Path, tmp_path: Path) -> None:
    code = "import onnxsmith, onnxsmith.passes.engine as e; print(onnxsmith.__file__, e.__file__, sep='\\n')"
    for line in run(sys.executable, "-c", code, cwd=tmp_path, path=installed).splitlines():
        assert Path(line).is_relative_to(installed)


def test_the_console_script_runs(installed: Path, tmp_path: Path) -> None:
    script = next((installed / "bin").glob("onnxsmith*"))
    assert "optimize" in run(str(script), "--help", cwd=tmp_path, path=installed)


def test_an_editable_install_maps_the_rooms(tree: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    interpreter = str(tmp_path.joinpath("venv", *Path(sys.executable).parts[-2:]))
    pip = (sys.executable, "-m", "pip", "--python", interpreter, *PIP_INSTALL)
    setuptools = Path(pytest.__file__).parent.parent  # is lent to the new environment for the build alone
    run(*pip, "--ignore-installed", "--editable", str(tree), cwd=tmp_path, path=setuptools)
    code = "from importlib.util import find_spec as f; from onnxsmith.runtime import artifact; "
    code += f"print(artifact.__file__, *(f('onnxsmith.' + r).origin for r in {ROOMS}), sep='\\n')"
    expected = [tree / "runtime" / "artifact.py", *(tree / room / "__init__.py" for room in ROOMS)]
    assert run(interpreter, "-c", code, cwd=tmp_path).splitlines() == [str(path) for path in expected]
