"""What every figure needs: matplotlib, which is an extra."""

from __future__ import annotations

from importlib.util import find_spec

from onnxsmith.errors import BadInput

PAGE = "a page with plots"


def need_matplotlib(caller: str) -> None:
    """Say before the work is done how to install it. Raises BadInput when it is not there for the ``caller``."""
    if find_spec("matplotlib") is None:
        raise BadInput(f"{caller} needs matplotlib, which is not installed: pip install 'onnxsmith[report]'")
