"""`serried fleet replay`: jobs of a trace arrive one by one and stay; how much of the fleet is handed out?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from serried.display.fleet import print_replays
from serried.display.plain import plain
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.errors import BadInput, nearest
from serried.fleet.arrival_replay import Replayed, replay_arrivals
from serried.fleet.openb import OPENB, arrivals, read_nodes, read_pods
from serried.fleet.policies import MEASURES

__all__ = ["command"]

_MOST_LOAD = 10.0
_MOST_SEEDS = 1000


def command(
    pods: Annotated[list[str], typer.Option(help="a pod list (CSV, also gzip), or a shipped one's name; repeatable")],
    nodes: Annotated[str, typer.Option(help="a node list, the same way")] = "openb_node_list_gpu_node.csv",
    policy: Annotated[str, typer.Option(help=f"comma-separated: {', '.join(MEASURES)}; or all")] = "fragmentation",
    load: Annotated[float, typer.Option(help="chips asked for in all, in multiples of the fleet's")] = 1.3,
    seed: Annotated[str, typer.Option(help="comma-separated whole numbers, or a range: 1-10")] = "1",
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Replay pod lists against a node list under placement rules: allocation at every percent of arrived load."""
    if not 0 < load <= _MOST_LOAD:
        raise BadInput(field="--load", value=load, expected=f"a number above 0, at most {_MOST_LOAD:g}",
                       remedy="1.3 asks for 130 % of the fleet's chips.")
    rules, seeds = _policies(policy), _seeds(seed)
    node_path = _path(nodes, "--nodes")
    paths = {Path(name).name.removesuffix(".gz").removesuffix(".csv"): _path(name, "--pods") for name in pods}
    replays: list[tuple[str, str, int, Replayed]] = []
    total = len(paths) * len(rules) * len(seeds)
    with progress_bar("arrivals", quiet=as_json) as report:
        for name, path in paths.items():
            for number in seeds:
                fleet = read_nodes(node_path, seed=number)
                known = read_pods(path, fleet)
                arriving = arrivals(known, fleet, load=load, seed=number)
                for rule in rules:
                    replays.append((name, rule, number, replay_arrivals(
                        fleet, known, arriving, rule, seed=number,
                        progress=report and _shifted(report, len(replays), total))))
    if as_json:
        print(json.dumps(_answer(replays, load)))
        return
    print_replays(replays, console())


def _shifted(report: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    """Progress of one replay as a part of that of all."""
    return lambda done, each: report(before * each + done, total * each)


def _policies(text: str) -> list[str]:
    named = [name.strip().lower().replace("_", "-") for name in text.split(",") if name.strip()]
    if named == ["all"]:
        return list(MEASURES)
    for name in named:
        if name not in MEASURES:
            near = nearest(name, MEASURES, count=1)
            raise BadInput(field="--policy", value=name, expected=f"some of {', '.join(MEASURES)}, or all",
                           remedy=f"Perhaps {near[0]!r} is meant." if near else "Separate them by commas.")
    if not named:
        raise BadInput(field="--policy", value=text, expected=f"some of {', '.join(MEASURES)}, or all",
                       remedy="Name at least one.")
    return list(dict.fromkeys(named))


def _seeds(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or max(len(first), len(last)) > 18:
            raise BadInput(field="--seed", value=text, expected="whole numbers from 0 on, or a range such as 1-10",
                           remedy="Separate them by commas.")
        found += range(int(first), min(int(last) if dash else int(first), int(first) + _MOST_SEEDS) + 1)
    if not 0 < len(found) <= _MOST_SEEDS:
        raise BadInput(field="--seed", value=text, expected=f"1 to {_MOST_SEEDS} seeds, ranges upwards",
                       remedy="Ask for fewer, or turn the range round.")
    return list(dict.fromkeys(found))


def _path(name: str, field: str) -> Path:
    """A user's file, or the shipped one of that name."""
    shipped = {path.name.removesuffix(".gz"): path for path in sorted(OPENB.glob("openb_*.csv.gz"))}
    path = Path(name)
    if path.is_file():
        return path
    if path.name.removesuffix(".gz") in shipped:
        return shipped[path.name.removesuffix(".gz")]
    raise BadInput(field=field, value=name, expected="a file, or one of those that ship with serried",
                   remedy=f"Shipped: {', '.join(shipped)}.")


def _answer(replays: list[tuple[str, str, int, Replayed]], load: float) -> dict[str, Any]:
    ratio_RL = _aligned([one.allocation_ratio_L for *_, one in replays])
    answer: dict[str, Any] = plain({
        "schema": "serried/fleet-replay/1", "load": load,
        "allocation_ratio": ratio_RL.mean(axis=0), "decisions": sum(one.decisions for *_, one in replays),
        "placed": sum(one.placed for *_, one in replays),
        "invariant_checks": sum(one.invariant_checks for *_, one in replays),
        "runs": [{"pods": name, "policy": rule, "seed": seed, "allocation_ratio": one.allocation_ratio_L,
                  "decisions": one.decisions, "placed": one.placed, "invariant_checks": one.invariant_checks,
                  "wall_s": one.wall_s} for name, rule, seed, one in replays],
        "timing": {"items": sum(one.decisions for *_, one in replays), "unit": "decisions",
                   "wall_s": sum(one.wall_s for *_, one in replays)}})
    return answer


def _aligned(ratios_L: list[np.ndarray[Any, np.dtype[np.float64]]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Runs side by side up to the load that all of them reached."""
    shortest = min(len(ratio_L) for ratio_L in ratios_L)
    return np.array([ratio_L[:shortest] for ratio_L in ratios_L])
