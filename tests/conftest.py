"""Fixtures that several test files use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onnxsmith.cli import main
from tests.command import Invoke, Result


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run a command in this process."""

    def call(*args: object) -> Result:
        code = main.run([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What was tuned on this machine is no part of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNXSMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-cases", action="store_true", help="rewrite what tests/cases expects")


@pytest.fixture
def update_cases(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-cases"))
