"""Reading JSON files that may be missing, broken or of another kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnxsmith.errors import BadInput


def read_json(path: Path, kind: type[Any]) -> Any:
    """A JSON file that holds a ``kind`` (dict or list). Raises BadInput when it is missing, broken or another kind."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path.parent} has no {path.name}; is it a Hugging Face model folder?") from None
    except (OSError, ValueError, RecursionError) as e:
        raise BadInput(f"{path} is not readable JSON ({e}); fetch it again") from None
    if not isinstance(found, kind):
        raise BadInput(f"{path} holds a {type(found).__name__}; a JSON {kind.__name__} was expected")
    return found
