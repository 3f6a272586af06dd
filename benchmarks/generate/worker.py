"""One engine in a process of its own, as ``benchmarks/bench/worker.py``, that generates:

python -m benchmarks.generate.worker ADAPTER VARIANT FOLDER THREADS
{"prompts": [[ids]], "new": N, "beams": K}    {"ids": [[N new ones]], "first": seconds, "total": .., "read": ..}
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.bench.worker import answer, begin, reason


def main(adapter: str, variant: str, folder: Path, threads: int) -> None:
    answers = begin()
    try:
        generate = import_module(f"benchmarks.generate.adapters.{adapter}").open_engine(folder, variant, threads)
        answer(answers, {})
    except Exception as e:  # an engine's own fault, whatever it is, is its result
        answer(answers, {"why": reason(e)})
        return
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer(answers, asdict(generate(asked["prompts"], asked["new"], asked["beams"])))
        except Exception as e:
            answer(answers, {"why": reason(e)})


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
