"""The command line: what it prints where, and its exit codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click
import numpy as np
import pytest

from onnxsmith.cli import console, files, main, optimize
from onnxsmith.cli.compare import parse_shapes
from onnxsmith.compiler.arrays import write_npz
from onnxsmith.compiler.cache_precision import PRECISIONS
from onnxsmith.compiler.optimize import Verify
from onnxsmith.compiler.target import TARGETS
from onnxsmith.errors import BadInput, BadUsage, CheckFailed
from tests.command import Invoke, Result, assert_refused
from tests.embedder import TEXTS, WIDTH, write_embedder
from tests.tiny import write_mlp


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make ``onnxsmith boom`` raise an error."""

    def install(error: BaseException) -> None:
        @click.command()
        def boom() -> None:
            raise error

        monkeypatch.setattr(main.LazyGroup, "get_command", lambda self, ctx, name: boom)

    return install


class TestHelp:
    def test_lists_every_command(self, invoke: Invoke) -> None:
        result = invoke("--help")
        assert result.code == 0
        summaries = result.out.split("Commands:\n")[1]
        listed = [line.split()[0] for line in summaries.splitlines()]
        assert listed == list(main.COMMANDS)
        assert "..." not in summaries  # every summary fits on its line

    @pytest.mark.parametrize("name", main.COMMANDS)
    def test_of_each_command(self, invoke: Invoke, name: str) -> None:
        result = invoke(name, "--help")
        assert result.code == 0
        assert result.out.startswith(f"Usage: onnxsmith {name}")

    def test_imports_nothing_heavy(self) -> None:
        script = (
            "import sys; from onnxsmith.cli.main import run; run(['--help']); run(['optimize', '--help']);"
            "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxscript', 'onnxruntime', 'numpy', 'rich'};"
            "heavy &= set(sys.modules);"
            "sys.exit(f'imported {heavy}' if heavy else 0)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_python_dash_m(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "onnxsmith", "--version"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout[:9]) == (0, "onnxsmith")


class TestUsage:
    @pytest.mark.parametrize(
        "args",
        [
            (),
            ("forge",),
            ("optimize",),
            ("optimize", "a.onnx"),
            ("optimize", "a.onnx", "-o", "b", "--target", "toaster"),
            ("optimize", "a.onnx", "-o", "b", "--precision", "int3"),
            ("optimize", "a.onnx", "-o", "b", "--verify", "perhaps"),
            ("optimize", "a.onnx", "-o", "b", "--frobnicate"),
            ("export", "bert"),
            ("explain",),
            ("run",),
            ("run", "a.onnx", "--text", "x", "--file", "y"),
            ("compare", "a.onnx"),
            ("compare", "a.onnx", "b.onnx", "--pairs", "0"),
            ("compare", "a.onnx", "b.onnx", "--shapes", "batch"),
        ],
        ids=" ".join,
    )
    def test_wrong_usage(
        self, invoke: Invoke, args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = invoke(*args)
        assert result.code == 2
        assert result.err
        assert result.out == ""
        assert not list(tmp_path.iterdir())

    def test_choices_are_those_of_the_compiler(self) -> None:
        choices = {
            str(parameter.name): set(parameter.type.choices)
            for parameter in optimize.command.params
            if isinstance(parameter.type, click.Choice)
        }
        assert choices == {
            "target": set(TARGETS),
            "precision": {name for target in TARGETS.values() for name in target.precisions},
            "verify": set(get_args(Verify)),
            "cache_precision": set(PRECISIONS),
        }

    def test_shapes(self) -> None:
        assert parse_shapes("batch=1, sequence=128") == {"batch": 1, "sequence": 128}

    @pytest.mark.parametrize("text", ["", "batch", "batch=", "=1", "batch=0", "batch=-1", "batch=1,,", "batch=x"])
    def test_bad_shapes(self, text: str) -> None:
        with pytest.raises(BadUsage, match="batch=1,sequence=128"):
            parse_shapes(text)


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code"),
        [(BadInput("broken"), 3), (BadUsage("broken"), 2), (CheckFailed("broken"), 1)],
    )
    def test_ours_are_one_line(
        self, invoke: Invoke, failing: Callable[[BaseException], None], error: Exception, code: int
    ) -> None:
        failing(error)
        assert invoke("boom") == Result(code, "", "error: broken\n")

    def test_files_of_the_system(self, invoke: Invoke, failing: Callable[[BaseException], None]) -> None:
        failing(OSError(28, "No space left on device", "model.onnx"))
        assert invoke("boom") == Result(3, "", "error: model.onnx: No space left on device\n")

    def test_unexpected(
        self,
        invoke: Invoke,
        failing: Callable[[BaseException], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        failing(ZeroDivisionError("by\nzero"))
        monkeypatch.delenv("ONNXSMITH_TRACEBACK", raising=False)
        hint = "set ONNXSMITH_TRACEBACK=1 to see the traceback"
        assert invoke("boom") == Result(70, "", f"error: ZeroDivisionError: by zero ({hint})\n")
        monkeypatch.setenv("ONNXSMITH_TRACEBACK", "1")
        result = invoke("boom")
        assert (result.code, result.err.splitlines()[0]) == (70, "Traceback (most recent call last):")

    def test_interrupt(self, invoke: Invoke, failing: Callable[[BaseException], None]) -> None:
        failing(KeyboardInterrupt())
        assert invoke("boom").code == 130


class TestConsole:
    def test_hostile_names_are_plain(self, invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
        hostile = "\x1b[31mred\x1b[0m [bold]not bold[/bold] :smile:\n\u202eback \x9b5n\udcff"
        console.table("[red]title[/red]", ("a",), [(hostile,)])
        console.note(hostile)
        captured = capsys.readouterr()
        for text in (captured.out, captured.err):
            assert all(char.isprintable() or char == "\n" for char in text)
            assert "[31mred[0m [bold]not bold[/bold] :smile: back 5n" in text
        assert "[red]title[/red]" in captured.out

    def test_json_escapes_control_characters(self, capsys: pytest.CaptureFixture[str]) -> None:
        value = {"name": "\x1b[31m\u202e", "nan": float("nan"), "rows": [(1.5, float("inf"))]}
        console.emit_json(value)
        out = capsys.readouterr().out
        assert out.isascii() and "\x1b" not in out
        assert json.loads(out) == {"name": "\x1b[31m\u202e", "nan": None, "rows": [[1.5, None]]}


class TestFiles:
    def test_texts(self, tmp_path: Path) -> None:
        path = tmp_path / "texts.txt"
        path.write_text("one\n\n  two \n", encoding="utf-8")
        assert files.read_texts(path) == ["one", "two"]

    def test_bad_texts(self, tmp_path: Path) -> None:
        (tmp_path / "empty.txt").write_text(" \n")
        (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
        for name in ("empty.txt", "latin.txt", "missing.txt"):
            with pytest.raises(BadInput, match=name):
                files.read_texts(tmp_path / name)

    def test_tensors(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npz"
        write_npz(path, {"a": np.arange(3), "file": np.ones(2)})
        assert list(files.read_tensors(path)) == ["a", "file"]
        assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]

    def test_bad_tensors(self, tmp_path: Path) -> None:
        np.save(tmp_path / "one.npy", np.ones(2))
        np.savez(tmp_path / "pickled.npz", a=np.array([{}], dtype=object), allow_pickle=True)
        (tmp_path / "text.npz").write_text("no archive")
        (tmp_path / "empty.npz").touch()
        for name in ("one.npy", "pickled.npz", "text.npz", "empty.npz", "missing.npz"):
            with pytest.raises(BadInput, match=name):
                files.read_tensors(tmp_path / name)

    def test_a_failed_write_keeps_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "x.npz"
        write_npz(path, {"a": np.arange(3)})

        def interrupted(*args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(np.lib.format, "write_array", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_npz(path, {"a": np.arange(9)})
        assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]
        assert files.read_tensors(path)["a"].size == 3


class TestTensors:
    @pytest.fixture
    def feeds(self, tmp_path: Path) -> Path:
        path = tmp_path / "x.npz"
        np.savez(path, x=np.arange(8, dtype=np.float32).reshape(2, 4))
        return path

    def test_run(self, invoke: Invoke, tmp_path: Path, feeds: Path) -> None:
        model = write_mlp(tmp_path / "model.onnx")
        result = invoke("run", model, "--input", feeds, "--output", tmp_path / "y.npz")
        assert result.code == 0
        assert "float32" in result.out and "[2, 4]" in result.out
        assert result.err == f"wrote {tmp_path / 'y.npz'}\n"
        np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"], np.load(feeds)["x"])

    def test_json(self, invoke: Invoke, tmp_path: Path, feeds: Path) -> None:
        result = invoke("run", write_mlp(tmp_path / "model.onnx"), "--input", feeds, "--json")
        expected = {"output": "y", "dtype": "float32", "shape": [2, 4], "min": 0.0, "max": 7.0, "mean": 3.5}
        assert json.loads(result.out) == expected

    def test_hostile_input_name(self, invoke: Invoke, tmp_path: Path, feeds: Path) -> None:
        model = write_mlp(tmp_path / "model.onnx", name="\x1b[31mx [bold]")
        result = invoke("run", model, "--input", feeds)
        assert_refused(result, "[31mx [bold]")
        assert "\x1b" not in result.err


class TestTexts:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        return write_embedder(tmp_path / "embedder")

    def test_summary(self, invoke: Invoke, model: Path) -> None:
        result = invoke("run", model, "--text", "red cat", "--text", "green dog")
        assert (result.code, result.err) == (0, "")
        assert all(part in result.out for part in ("red cat", "green dog", "cosine", "1.0000"))

    def test_json_lines(self, invoke: Invoke, model: Path) -> None:
        result = invoke("run", model, "--json", *(word for text in TEXTS for word in ("--text", text)))
        rows = [json.loads(line) for line in result.out.splitlines()]
        assert [row["text"] for row in rows] == list(TEXTS)
        assert [len(row["embedding"]) for row in rows] == [WIDTH] * len(TEXTS)

    def test_file_and_standard_input(
        self, invoke: Invoke, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n\n")
        from_file = invoke("run", model, "--file", tmp_path / "texts.txt", "--json")
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(TEXTS)))
        assert invoke("run", model, "--json") == from_file
        assert from_file.code == 0 and len(from_file.out.splitlines()) == len(TEXTS)

    def test_output(self, invoke: Invoke, model: Path, tmp_path: Path) -> None:
        result = invoke("run", model, "--text", "red cat", "--output", tmp_path / "y.npz")
        assert result.err == f"wrote {tmp_path / 'y.npz'}\n"
        assert files.read_tensors(tmp_path / "y.npz")["embeddings"].shape == (1, WIDTH)

    def test_nothing_to_run_on(self, invoke: Invoke, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
        result = invoke("run", model)
        assert (result.code, "--text" in result.err) == (2, True)

    def test_compare(self, invoke: Invoke, model: Path) -> None:
        result = invoke("compare", model, model, "--pairs", "2", "--json")
        assert result.code == 0, result.err
        assert [variant["name"] for variant in json.loads(result.out)["variants"]] == [str(model)] * 2
        table = invoke("compare", model, model, "--pairs", "2", "--shapes", "batch=2,sequence=5")
        assert table.code == 0, table.err
        assert "1.0000000" in table.out and "[2, 5]" in table.out
