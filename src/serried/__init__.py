"""serried: the open stack above the chip.

    import serried as sr

    fleet, rival = sr.read_fleet("zhenwu-810e:8"), sr.read_fleet("h20:8")
    job = sr.Serving(model=sr.read_model("Qwen/Qwen3-32B"), input_tokens=512, output_tokens=128, concurrency=64)
    print(sr.gap_serving(job, fleet.pools[0], rival.pools[0]).gap_ln)

The names below are the whole public face; each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: Public name -> the room it lives in.
_ROOM = {
    "BadInput": "errors", "NoAnswer": "errors",
    "read_chip": "silicon", "read_model": "workload", "read_fleet": "fabric", "read_fabric": "fabric",
    "read_stack": "software",
    "Training": "workload", "Serving": "workload",
    "machine_of": "planner", "search_training": "planner", "search_static": "serving",
    "gap_training": "insight", "gap_serving": "insight", "diagnose": "insight",
    "run_evidence": "evidence",
}
__all__ = list(_ROOM)


def __getattr__(name: str) -> Any:
    if name in _ROOM:
        return getattr(importlib.import_module(f"serried.{_ROOM[name]}"), name)
    raise AttributeError(f"module 'serried' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_ROOM, "__version__"])
