"""The gap between two fleets on a serving job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serried.compiler import ENGINE_FORMAT
from serried.economics import DEFAULT_TARIFF, Tariff
from serried.fabric import Pool
from serried.insight.game import End, known_format
from serried.insight.serving_game import UNIT_TOKENS, ServingGame
from serried.insight.spec import Waterfall
from serried.insight.waterfall import explain
from serried.planner.spec import FORMATS, Machine
from serried.serving import Deployments, default_deployment, estimate_static, search_static, static_tables
from serried.serving.machine import serving_machine
from serried.serving.search import launches
from serried.serving.static import closed_loop
from serried.software import Stack
from serried.workload.spec import Floats, Serving

__all__ = ["SERVING_FORMATS", "ServingContest", "gap_serving"]

#: Formats that engines serve with and whose loss of quality is established as small, widest first.
SERVING_FORMATS = ("bf16", "fp8", "int8")


class ServingContest:
    """A serving job as the waterfall asks about it; the unit of work is 1,000 output tokens on one chip."""

    kind = "serving"
    unit_of_work = f"chip-seconds for {UNIT_TOKENS:,.0f} output tokens"

    def __init__(self, job: Serving) -> None:
        self.job = job
        self.job_words = (f"{job.model.name}, {job.input_tokens} tokens in, {job.output_tokens} out, "
                          f"{job.concurrency} requests in flight")

    def best(self, machine: Machine, formats: Sequence[str]) -> End[Deployments]:
        """The best deployment by exhaustive search. Raises NoAnswer when none fits."""
        found = search_static(self.job, machine, top=1, weight_formats=formats).deployments
        return End(machine=machine, number_format=FORMATS[int(found.weight_format[0])], layout=found)

    def game(self, ends: tuple[End[Deployments], End[Deployments]]
             ) -> Callable[[NDArray[np.bool_], Mapping[str, Floats]], Floats]:
        """Simulator of coalitions between two ends."""
        return ServingGame(self.job, ends)

    def time_s(self, end: End[Deployments]) -> float:
        """Chip-seconds for 1,000 output tokens."""
        found = estimate_static(self.job, end.machine, self._row(end))
        return float(UNIT_TOKENS / found.output_tokens_per_s_per_chip[0])

    def plain(self, machine: Machine) -> End[Deployments]:
        """Eager launches in 16 bits on the deployment that people start with."""
        return End(machine=machine, number_format="bf16",
                   layout=default_deployment(self.job, machine, captured=False))

    def times_s(self, end: End[Deployments], stack: Mapping[str, Floats]) -> Floats:
        """Chip-seconds for 1,000 output tokens under stack parameters (G,)."""
        rows = self._row(end)
        loop = closed_loop(self.job, rows, static_tables(self.job, end.machine, rows),
                           {name: column[:, None] for name, column in stack.items()})
        return np.asarray(UNIT_TOKENS * rows.chip_count / loop.output_tokens_per_s)[:, 0]

    def formats(self, machine: Machine) -> tuple[str, ...]:
        """Formats of SERVING_FORMATS that the chip's engines have."""
        return tuple(name for name in SERVING_FORMATS if ENGINE_FORMAT[name] in machine.chip.number_formats)

    def tokens_per_s_per_chip(self, time_s: float) -> float:
        """Output tokens per second of one chip."""
        return UNIT_TOKENS / time_s

    def describe(self, end: End[Deployments]) -> tuple[Mapping[str, int | bool | str], Mapping[str, float],
                                                       Mapping[str, float], float]:
        """The deployment, chip-seconds by cause for 1,000 output tokens, its figures, and how busy its chips are."""
        rows = self._row(end)
        found = estimate_static(self.job, end.machine, rows)
        scale = self.time_s(end) / float(found.cycle_s[0])
        causes = {name: float(np.ravel(column)[0]) * scale for name, column in found.time_by_cause_s.items()}
        figures = {name: float(getattr(found, name)[0]) for name in
                   ("ttft_s", "ttft_burst_s", "tpot_s", "decode_step_s", "prefill_s", "request_s", "batch",
                    "max_batch", "memory_bytes")}
        idle = causes["host"] + causes["pipeline_bubble"]
        return rows.row(0), causes, figures, 1.0 - idle / max(sum(causes.values()), 1e-30)

    def _row(self, end: End[Deployments]) -> Deployments:
        return replace(end.layout, weight_format=np.array([FORMATS.index(end.number_format)]))


def gap_serving(job: Serving, fleet_pool: Pool, rival_pool: Pool, *, stack: Stack | None = None,
                rival_stack: Stack | None = None, number_format: str = "bf16", rival_number_format: str = "bf16",
                layout: Deployments | str = "best", rival_layout: Deployments | str = "best", draws: int = 64,
                seed: int = 0, tariff: Tariff = DEFAULT_TARIFF, library: str | None = None,
                rival_library: str | None = None) -> Waterfall:
    """Why the fleet serves the job slower (or faster) per chip than the rival, layer by layer.

    layout: "best" by search, "default" (what people start with), or a deployment of one row. library, rival_library:
    kernel profiles to use instead of the chips' own. Raises NoAnswer when a
    side cannot hold one request, MissingFigure when a chip lacks a figure that the kernels need.
    """
    contest = ServingContest(job)
    ends = [_end(contest, serving_machine(pool, own, library=kernels), chosen, wanted)
            for pool, own, kernels, chosen, wanted in (
                (fleet_pool, stack, library, number_format, layout),
                (rival_pool, rival_stack, rival_library, rival_number_format, rival_layout))]
    return explain(contest, ends[0], ends[1], draws=draws, seed=seed, tariff=tariff)


def _end(contest: ServingContest, machine: Machine, number_format: str, layout: Deployments | str) -> End[Deployments]:
    if layout == "best":
        return contest.best(machine, (known_format(number_format),))
    chosen = default_deployment(contest.job, machine, weight_format=number_format, captured=launches(machine)[0]) \
        if isinstance(layout, str) else layout
    return End(machine=machine, number_format=number_format, layout=chosen)
