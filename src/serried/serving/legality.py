"""Which deployments exist: the whole space as columns, and the rules that cut it as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.planner.spec import FORMATS, Machine
from serried.serving.spec import CACHE_FORMATS, Deployments
from serried.workload.spec import Model, Serving

__all__ = ["LEGALITY", "Rule", "broken_rule", "deployment_space"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A named rule: `holds` is a predicate over D; `sentence` says what is broken and what mends it."""

    name: str
    holds: Callable[[Serving, Machine, Deployments], NDArray[np.bool_]]
    sentence: str


def _experts(model: Model) -> int:
    """The smallest count of routed experts of any block that has them; 0 for a dense model."""
    return min((block.mlp.experts for block in model.blocks if block.mlp and block.mlp.experts), default=0)


def _head_counts(model: Model) -> list[int]:
    """Heads that the tensor degree must divide, over all kinds of attention in the model."""
    specs = [block.attention for block in model.blocks if block.attention]
    return [spec.state_value_heads or spec.heads if spec.kind == "linear" else spec.heads for spec in specs]


def _divides_heads(job: Serving, machine: Machine, rows: Deployments) -> NDArray[np.bool_]:
    holds = np.ones(len(rows), dtype=bool)
    for heads in _head_counts(job.model):
        holds &= heads % rows.tp == 0
    return holds


def _divides_experts(job: Serving, machine: Machine, rows: Deployments) -> NDArray[np.bool_]:
    experts = _experts(job.model)
    if not experts:
        return np.asarray(rows.ep == 1)
    return np.asarray((experts % rows.ep == 0) & (rows.tp * rows.attention_dp % rows.ep == 0))


#: Every rule of a deployment, in the order in which a person would check them.
LEGALITY: tuple[Rule, ...] = (
    Rule(name="chips", holds=lambda job, machine, rows: rows.chip_count == machine.chip_count,
         sentence="tp * attention_dp * pp * replicas must be the number of chips; change one degree."),
    Rule(name="heads", holds=_divides_heads,
         sentence="tp must divide the attention heads; choose a smaller tp."),
    Rule(name="experts", holds=_divides_experts,
         sentence="ep must divide both the routed experts and tp * attention_dp, and is 1 for a dense model."),
    Rule(name="attention_dp",
         holds=lambda job, machine, rows: (rows.attention_dp == 1) | (_experts(job.model) > 0) & (rows.ep > 1),
         sentence="attention_dp shares experts between groups and needs ep > 1; a dense model has replicas instead."),
    Rule(name="stages", holds=lambda job, machine, rows: rows.pp <= job.model.layer_count,
         sentence="each pipeline stage holds at least one block; choose a smaller pp."),
    Rule(name="tensor domain",
         holds=lambda job, machine, rows: rows.tp <= max(machine.fabric.node_size, 1) * 2,
         sentence="a tensor group spans at most two scale-up domains; choose a smaller tp."),
    Rule(name="requests", holds=lambda job, machine, rows: rows.replicas * rows.attention_dp <= max(job.concurrency, 1),
         sentence="every replica and every attention group needs a request of its own; use fewer of them."),
)


def broken_rule(job: Serving, machine: Machine, rows: Deployments) -> list[str | None]:
    """The first rule that each deployment breaks, as its sentence; None when it is legal."""
    found: list[str | None] = [None] * len(rows)
    for rule in LEGALITY:
        for index in np.flatnonzero(~rule.holds(job, machine, rows)):
            found[index] = found[index] or f"{rule.name}: {rule.sentence}"
    return found


def deployment_space(job: Serving, machine: Machine, *, weight_formats: Sequence[str] = ("bf16",),
                     cache_formats: Sequence[str] = ("bf16",), captured: Sequence[bool] = (True,),
                     max_batch: Sequence[int] = (0,), use_all_chips: bool = True) -> Deployments:
    """Every legal deployment of the job on the machine, as columns.

    use_all_chips: False leaves out the rule that every chip works, for a load that does not fill the fleet.
    """
    chips, degrees = machine.chip_count, _divisors(machine.chip_count)
    choices: Mapping[str, NDArray[np.int64]] = {
        "tp": degrees, "pp": degrees, "attention_dp": degrees, "ep": degrees,
        "weight_format": np.array([FORMATS.index(name) for name in weight_formats]),
        "cache_format": np.array([tuple(CACHE_FORMATS).index(name) for name in cache_formats]),
        "captured": np.array([int(choice) for choice in captured]), "max_batch": np.array(max_batch)}
    if not _experts(job.model):
        choices = {**choices, "attention_dp": np.array([1]), "ep": np.array([1])}
    grid = np.meshgrid(*choices.values(), indexing="ij")
    columns = dict(zip(choices, (axis.ravel().astype(np.int64) for axis in grid), strict=True))
    per_replica = columns["tp"] * columns["pp"] * columns["attention_dp"]
    keep = chips % per_replica == 0
    columns = {name: column[keep] for name, column in columns.items()}
    replicas = chips // per_replica[keep]
    if not use_all_chips:
        replicas = np.minimum(replicas, max(job.concurrency, 1))
    rows = Deployments(replicas=replicas, captured=columns.pop("captured") == 1, **columns)
    legal = np.ones(len(rows), dtype=bool)
    for rule in LEGALITY:
        if use_all_chips or rule.name != "chips":
            legal &= rule.holds(job, machine, rows)
    return rows.take(np.flatnonzero(legal))


def _divisors(count: int) -> NDArray[np.int64]:
    numbers = np.arange(1, count + 1)
    return np.asarray(numbers[count % numbers == 0], dtype=np.int64)
