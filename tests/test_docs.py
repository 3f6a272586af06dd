"""The documents against the code: every command, flag, target and file that they name exists."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

import onnxsmith
from onnxsmith.cli.main import COMMANDS, cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *(ROOT / "docs").rglob("*.md"),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def readme_commands() -> list[list[str]]:
    """The words of each indented line of the README that calls onnxsmith."""
    lines = (line.strip() for line in README.splitlines() if line.startswith("    "))
    return [shlex.split(line, comments=True) for line in lines if re.match(r"(\$ )?onnxsmith ", line)]


def subcommand(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None, name
    return found


@pytest.mark.parametrize("words", readme_commands(), ids=" ".join)
def test_readme_commands_parse(words: list[str]) -> None:
    name, *args = words[words.index("onnxsmith") + 1 :]
    subcommand(name).make_context(name, args)


def test_readme_shows_every_command() -> None:
    shown = {words[words.index("onnxsmith") + 1] for words in readme_commands()}
    assert shown >= set(COMMANDS) - {"demo"}


def test_readme_flags_exist() -> None:
    options = {option for name in COMMANDS for parameter in subcommand(name).params for option in parameter.opts}
    pip_options = {"--index-url", "--no-deps"}
    assert set(re.findall(r"(?<!\S)`?(--[a-z][a-z-]+)", README)) <= options | pip_options


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {
        target
        for path in DOCUMENTS
        for line in re.findall(r"^    make ([a-z -]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        for target in line.split()
    }
    assert named and named <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_public_names_have_docstrings() -> None:
    for name in set(onnxsmith.__all__) - {"__version__"}:
        assert getattr(onnxsmith, name).__doc__, name


def test_changelog_has_this_version() -> None:
    assert f"## {onnxsmith.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_what_pyproject_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["torch"], *extras["test"], *extras["dev"]]
    names = {re.match(r"[A-Za-z0-9-]+", line).group() for line in wanted}  # type: ignore[union-attr]
    pins = re.findall(r"^([a-z0-9-]+)==[0-9.]+(?:post\d+)?$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert names - {"onnxsmith"} <= set(pins)
