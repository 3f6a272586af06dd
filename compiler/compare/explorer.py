"""Node mappings that Google's model-explorer reads, to move in two graphs at once.

The format is its ``SyncNavigationData``: ``{"type": "sync_navigation", "mapping": {left node id: right node id}}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from onnxsmith.compiler.atomic import replacing
from onnxsmith.compiler.compare.report import Comparison
from onnxsmith.compiler.compare.structure import Changes


def mapping(changes: Changes) -> dict[str, object]:
    """Every original node to the main new node that stands for it: the last one, which gives the result.

    The ids are the nodes' names, as in the ``model-explorer-onnx`` adapter.
    """
    groups = (group for group in changes.account.groups if group.made)
    pairs = {name: group.made[-1] for group in groups for name in group.origins}
    return {"type": "sync_navigation", "mapping": pairs, "disableMappingFallback": True}


def write_mappings(comparison: Comparison, path: Path) -> Iterator[Path]:
    """One file for each variant with a graph: ``path`` for the first, with a number before its suffix for others."""
    found = [v.changes for v in comparison.variants if v.changes]
    for number, changes in enumerate(found, 1):
        target = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        with replacing(target) as made:
            made.write_text(json.dumps(mapping(changes)), encoding="utf-8")
        yield target
