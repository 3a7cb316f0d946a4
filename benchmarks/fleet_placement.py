"""The published comparison of placement rules in full: five pod lists, ten seeds, load 1.3 (about two minutes)."""

from __future__ import annotations

import numpy as np

from benchmarks import Row
from serried.fleet.arrival_replay import replay_arrivals
from serried.fleet.openb import OPENB, arrivals, published_percent, read_nodes, read_pods

SEEDS = range(1, 11)
LISTS = tuple(f"openb_pod_list_{name}" for name in ("default", "cpu050", "gpushare40", "gpuspec10", "multigpu20"))
#: Rule -> percentage points that the mean over seeds may lie off the published one.
BARS = {"random": 0.5, "best-fit": 0.6, "fragmentation": 0.7}
LOAD_PERCENT = 130


def run() -> list[Row]:
    """Mean allocation per list and rule beside the published mean, each step checked against a ledger of its own."""
    rows = []
    for pods in LISTS:
        ratios: dict[str, list[float]] = {rule: [] for rule in BARS}
        for seed in SEEDS:
            fleet = read_nodes(OPENB / "openb_node_list_gpu_node.csv.gz", seed=seed)
            jobs = read_pods(OPENB / f"{pods}.csv.gz", fleet)
            arriving = arrivals(jobs, fleet, load=LOAD_PERCENT / 100, seed=seed)
            for rule, percents in ratios.items():
                found = replay_arrivals(fleet, jobs, arriving, rule, seed=seed)
                percents.append(float(found.allocation_ratio_L[LOAD_PERCENT]) * 100)
        for rule, percents in ratios.items():
            published = published_percent(pods, rule, LOAD_PERCENT)
            assert published is not None, "the lists and rules are those of the publication"
            mean = float(np.mean(percents))
            rows.append(Row(name=f"{pods}, {rule}: mean allocation of {len(SEEDS)} seeds", value=mean, unit="%",
                            bar=f"{published[0]:.2f} ± {BARS[rule]}", met=abs(mean - published[0]) <= BARS[rule]))
    return rows
