"""Ctrl-C on a real terminal, a pseudo one: the command ends with 130, and the terminal is as it was."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.generation import folders

pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")

HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"  # the cursor
SECONDS = 60
CTRL_C = b"\x03"
SLOWLY = """
import sys, time
from onnxsmith.cli.main import main
from onnxsmith.runtime.generation.decoder import Decoder
step = Decoder.step
def slow(self, tokens):
    print("step", file=sys.stderr)
    time.sleep(0.02)
    return step(self, tokens)
Decoder.step = slow
main()
"""


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What comes up to some bytes; fails where they do not come."""
    text, end = b"", time.monotonic() + SECONDS
    while wanted not in text and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            text += os.read(terminal, 4096)
    assert wanted in text, text
    return text


def rest_of(terminal: int) -> bytes:
    text = b""
    while select.select([terminal], [], [], 0.1)[0]:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # nobody has it open any more
            break
        text += piece
    return text


@pytest.mark.parametrize("way", ["prompt", "chat", "jsonl"])
def test_the_terminal_is_as_it_was(way: str, tmp_path: Path) -> None:
    lines = tmp_path / "in.jsonl"
    lines.write_text("".join(json.dumps({"prompt": f"Once {n}"}) + "\n" for n in range(4000)))
    options = {
        "prompt": ["--prompt", "Once", "--max-new-tokens", "190", "--seed", "1"],
        "chat": ["--chat"],
        "jsonl": ["--jsonl", str(lines), "--output", str(tmp_path / "out.jsonl")],
    }[way]
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    words = [sys.executable, "-c", SLOWLY, "run", str(folders("gpt2")[1])]
    process = subprocess.Popen(
        [*words, *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1"},
        preexec_fn=_own_terminal,
    )
    try:
        shown = read_until(ours, {"prompt": b"step", "chat": b"> ", "jsonl": HIDE}[way])
        os.write(ours, CTRL_C)
        code = process.wait(SECONDS)
        shown += rest_of(ours)
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        os.close(ours)
        os.close(theirs)
    assert shown.rfind(HIDE) <= shown.rfind(SHOW)
    assert b"Traceback" not in shown
    assert code == 130
    assert not (tmp_path / "out.jsonl").exists()


def _own_terminal() -> None:
    """Let the terminal's Ctrl-C reach the process, as in a shell; what runs in the background may have it ignored."""
    import fcntl

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
