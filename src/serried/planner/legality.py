"""Which layouts can exist: a table of rules, each a name, a vectorised predicate and what would mend it.

Axes: L = layout. A rule says of which columns it speaks, so that the space can be filtered as soon as they are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from serried.compiler import ENGINE_FORMAT
from serried.errors import BadInput
from serried.planner.spec import FORMATS, SCHEDULES, Layouts, Machine
from serried.workload.spec import Model, Training

__all__ = ["LEGALITY", "TRAINING_FORMATS", "Columns", "Rule", "broken_rules", "explain", "refuse_illegal"]

Columns: TypeAlias = Mapping[str, NDArray[np.int64]]
Bools: TypeAlias = NDArray[np.bool_]

#: Recipes that training runs are known to use; int8 has no backward pass.
TRAINING_FORMATS = ("bf16", "fp16", "fp8", "fp8-block", "mxfp8", "nvfp4", "tf32", "fp32")
_INTERLEAVED, _PLAIN = SCHEDULES.index("interleaved"), SCHEDULES.index("1f1b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One law of layouts.

    columns: those that `holds` reads. holds(columns, job, machine) -> True where the law is kept.
    redundant: the layout could run, but has no place of its own in the space: it equals another one, or splits blocks
    unevenly over chunks; a user's own layout may break it.
    """

    name: str
    columns: tuple[str, ...]
    holds: Callable[[Columns, Training, Machine], Bools]
    broken: str
    remedy: str
    redundant: bool = False


def _divides(number: int | NDArray[np.int64], by: NDArray[np.int64]) -> Bools:
    return np.asarray(np.mod(number, by) == 0)


def _model_degree(c: Columns) -> NDArray[np.int64]:
    return np.asarray(c["tp"] * c["cp"] * c["pp"])


def _dp(c: Columns, machine: Machine) -> NDArray[np.int64]:
    return np.asarray(np.maximum(machine.chip_count // _model_degree(c), 1), dtype=np.int64)


def _micro_batches(c: Columns, job: Training, machine: Machine) -> NDArray[np.int64]:
    return np.asarray(np.maximum(job.global_batch_sequences // (_dp(c, machine) * c["micro_batch"]), 1), dtype=np.int64)


def _heads_divide(c: Columns, job: Training, _: Machine) -> Bools:
    kept = np.ones(len(c["tp"]), dtype=bool)
    for block in job.model.blocks:
        if block.attention is not None and block.attention.kind != "linear":
            kept &= _divides(block.attention.heads, c["tp"])
        elif block.attention is not None:
            kept &= _divides(max(block.attention.state_value_heads, 1), c["tp"])
    return kept


def _kv_heads_divide(c: Columns, job: Training, _: Machine) -> Bools:
    kept = np.ones(len(c["tp"]), dtype=bool)
    for block in job.model.blocks:
        if block.attention is not None and block.attention.kind == "full":
            kv_heads = max(block.attention.kv_heads, 1)
            kept &= _divides(kv_heads, c["tp"]) | (c["tp"] % kv_heads == 0)
    return kept


def _widths_divide(c: Columns, job: Training, _: Machine) -> Bools:
    kept = _divides(job.model.hidden, c["tp"])
    for block in job.model.blocks:
        if block.mlp is not None and not block.mlp.experts:
            kept &= _divides(block.mlp.width, c["tp"])
        elif block.mlp is not None and block.mlp.shared_width:
            kept &= _divides(block.mlp.shared_width, c["tp"])
    return kept


def experts_of(model: Model) -> int:
    """Routed experts of the mixture, 0 for a dense model."""
    return max((block.mlp.experts for block in model.blocks if block.mlp), default=0)


def _experts_divide(c: Columns, job: Training, _: Machine) -> Bools:
    return _divides(experts_of(job.model), c["ep"]) if experts_of(job.model) else np.asarray(c["ep"] == 1)


def _expert_width_divides(c: Columns, job: Training, _: Machine) -> Bools:
    kept = np.ones(len(c["tp"]), dtype=bool)
    for block in job.model.blocks:
        if block.mlp is not None and block.mlp.experts:
            kept &= _divides(block.mlp.width, c["expert_tp"])
    return kept


def _equal_chunks(c: Columns, job: Training, _: Machine) -> Bools:
    """Chunks are equal, or become so when embedding, head and prediction blocks take the places of blocks."""
    layers, chunks = job.model.layer_count, c["pp"] * c["virtual_stages"]
    equal = c["virtual_stages"] == 1
    for places in range(3 + job.model.prediction_blocks):
        equal = equal | _divides(layers + places, chunks)
    return np.asarray(equal)


def _format_known(c: Columns, _: Training, machine: Machine) -> Bools:
    if not machine.chip.number_formats:
        machine.chip.need("matrix_peak.bf16")
    known = [name in TRAINING_FORMATS and ENGINE_FORMAT[name] in machine.chip.number_formats for name in FORMATS]
    return np.asarray(known)[c["number_format"]]


def _has_exchange(c: Columns) -> Bools:
    return np.asarray((c["tp"] > 1) | (c["cp"] > 1) | (c["ep"] > 1))


#: The laws. Degrees are at least 1 everywhere.
LEGALITY: tuple[Rule, ...] = (
    Rule(name="degrees are positive", columns=("tp", "cp", "pp"),
         holds=lambda c, job, machine: np.asarray((c["tp"] >= 1) & (c["cp"] >= 1) & (c["pp"] >= 1)),
         broken="a degree is below 1", remedy="Use 1 for an axis that is not cut."),
    Rule(name="chips divide", columns=("tp", "cp", "pp"),
         holds=lambda c, job, machine: _divides(machine.chip_count, np.maximum(_model_degree(c), 1)),
         broken="tp * cp * pp does not divide the chip count", remedy="Choose degrees whose product divides it."),
    Rule(name="heads divide", columns=("tp",), holds=_heads_divide,
         broken="tp does not divide the attention heads", remedy="Choose tp among the divisors of the heads."),
    Rule(name="key-value heads divide", columns=("tp",), holds=_kv_heads_divide,
         broken="tp and the key-value heads do not divide each other", remedy="Choose tp among divisors or multiples."),
    Rule(name="widths divide", columns=("tp",), holds=_widths_divide,
         broken="tp does not divide the hidden or the inner width", remedy="Choose a smaller tp."),
    Rule(name="stages hold blocks", columns=("pp",),
         holds=lambda c, job, machine: np.asarray(c["pp"] <= job.model.layer_count),
         broken="there are more pipeline stages than blocks", remedy="Choose a smaller pp."),
    Rule(name="context divides", columns=("cp",),
         holds=lambda c, job, machine: (c["cp"] == 1) | _divides(job.sequence_tokens, 2 * c["cp"]),
         broken="the sequence does not divide into 2 * cp balanced pieces", remedy="Choose a smaller cp."),
    Rule(name="experts divide", columns=("ep",), holds=_experts_divide,
         broken="ep does not divide the experts (a dense model has ep = 1)", remedy="Choose ep among their divisors."),
    Rule(name="expert tensor degree", columns=("tp", "expert_tp"),
         holds=lambda c, job, machine: np.asarray((c["expert_tp"] == 1) | (c["expert_tp"] == c["tp"])),
         broken="expert_tp is neither 1 nor tp", remedy="Cut an expert's matrices over tp ranks or not at all."),
    Rule(name="expert widths divide", columns=("tp", "expert_tp"), holds=_expert_width_divides,
         broken="expert_tp does not divide the experts' width", remedy="Choose expert_tp = 1."),
    Rule(name="expert ranks divide", columns=("tp", "cp", "pp", "ep", "expert_tp"),
         holds=lambda c, job, machine: _divides(c["tp"] * c["cp"] * _dp(c, machine), c["ep"] * c["expert_tp"]),
         broken="ep * expert_tp does not divide the ranks of a stage", remedy="Choose a smaller ep or pp."),
    Rule(name="batch divides", columns=("tp", "cp", "pp", "micro_batch"),
         holds=lambda c, job, machine: (c["micro_batch"] >= 1) & _divides(
             job.global_batch_sequences, _dp(c, machine) * np.maximum(c["micro_batch"], 1)),
         broken="dp * micro_batch does not divide the global batch",
         remedy="Choose another micro-batch, more tp * cp * pp, or another global batch."),
    Rule(name="chunks are equal", columns=("pp", "virtual_stages"), holds=_equal_chunks, redundant=True,
         broken="the blocks do not divide into pp * virtual_stages chunks", remedy="Choose other virtual stages."),
    Rule(name="chunks hold blocks", columns=("pp", "virtual_stages"),
         holds=lambda c, job, machine: (c["virtual_stages"] >= 1) & (
             c["pp"] * c["virtual_stages"] <= job.model.layer_count + 2),
         broken="there are more chunks than blocks", remedy="Choose fewer virtual stages."),
    Rule(name="interleaving has chunks", columns=("pp", "virtual_stages", "schedule"),
         holds=lambda c, job, machine: (c["schedule"] != _INTERLEAVED) | ((c["virtual_stages"] > 1) & (c["pp"] > 1)),
         broken="an interleaved schedule needs pp > 1 and at least two chunks a stage",
         remedy="Choose schedule 1f1b or more virtual stages."),
    Rule(name="1f1b has one chunk", columns=("virtual_stages", "schedule"),
         holds=lambda c, job, machine: np.asarray((c["schedule"] != _PLAIN) | (c["virtual_stages"] == 1)),
         broken="schedule 1f1b runs one chunk a stage", remedy="Choose schedule interleaved or one virtual stage."),
    Rule(name="zero-bubble has one or two chunks", columns=("virtual_stages", "schedule"),
         holds=lambda c, job, machine: np.asarray(
             (c["schedule"] != SCHEDULES.index("zero-bubble")) | (c["virtual_stages"] <= 2)),
         broken="the zero-bubble family runs one or two chunks a stage", remedy="Choose at most 2 virtual stages."),
    Rule(name="interleaving fills", columns=("tp", "cp", "pp", "micro_batch", "schedule"),
         holds=lambda c, job, machine: (c["schedule"] != _INTERLEAVED) | (
             _micro_batches(c, job, machine) >= c["pp"]),
         broken="an interleaved schedule needs at least pp micro-batches",
         remedy="Choose a smaller micro-batch or pp."),
    Rule(name="sequence pieces divide", columns=("tp", "cp", "sequence_parallel"),
         holds=lambda c, job, machine: (c["sequence_parallel"] == 0) | _divides(job.sequence_tokens, c["cp"] * c["tp"]),
         broken="the sequence does not divide over cp * tp", remedy="Turn sequence parallelism off or lower tp."),
    Rule(name="format is known", columns=("number_format",), holds=_format_known,
         broken="the chip lacks the number format, or nobody trains in it",
         remedy="Choose a format whose matrix_peak the chip file gives."),
    Rule(name="sharding has a stage", columns=("sharding",),
         holds=lambda c, job, machine: np.asarray((c["sharding"] >= 0) & (c["sharding"] <= 3)),
         broken="sharding is not one of 0, 1, 2, 3", remedy="Choose 0 to 3."),
    Rule(name="dense experts", columns=("tp", "expert_tp"), redundant=True,
         holds=lambda c, job, machine: np.asarray(
             (c["expert_tp"] == c["tp"]) if not experts_of(job.model) else np.ones(len(c["tp"]), dtype=bool)),
         broken="a dense model has no experts to cut", remedy="Use expert_tp = tp."),
    Rule(name="sequence parallelism has ranks", columns=("tp", "sequence_parallel"), redundant=True,
         holds=lambda c, job, machine: np.asarray((c["tp"] > 1) | (c["sequence_parallel"] == 0)),
         broken="sequence parallelism over one rank", remedy="Turn it off."),
    Rule(name="a pipeline has stages", columns=("pp", "virtual_stages", "schedule"), redundant=True,
         holds=lambda c, job, machine: np.asarray(
             (c["pp"] > 1) | ((c["schedule"] == _PLAIN) & (c["virtual_stages"] == 1))),
         broken="a schedule without a pipeline", remedy="Use schedule 1f1b."),
    Rule(name="sharding has ranks", columns=("tp", "cp", "pp", "sharding"), redundant=True,
         holds=lambda c, job, machine: np.asarray((c["sharding"] == 0) | (_dp(c, machine) * c["cp"] > 1)),
         broken="states sharded over one rank", remedy="Use sharding 0."),
    Rule(name="data overlap has traffic", columns=("tp", "cp", "pp", "overlap_data"), redundant=True,
         holds=lambda c, job, machine: np.asarray((c["overlap_data"] == 0) | (_dp(c, machine) * c["cp"] > 1)),
         broken="nothing to overlap on the data axis", remedy="Turn overlap_data off."),
    Rule(name="tensor overlap has traffic", columns=("tp", "cp", "ep", "overlap_tensor"), redundant=True,
         holds=lambda c, job, machine: np.asarray((c["overlap_tensor"] == 0) | _has_exchange(c)),
         broken="nothing to overlap on tensor, context and expert axes", remedy="Turn overlap_tensor off."),
)


def columns_of(layouts: Layouts) -> dict[str, NDArray[np.int64]]:
    """The layouts as a mapping of int64 columns."""
    return {column.name: np.asarray(getattr(layouts, column.name), dtype=np.int64) for column in fields(layouts)}


def broken_rules(layouts: Layouts, job: Training, machine: Machine) -> dict[str, Bools]:
    """Rule name to where it is broken, over L; redundant ones included."""
    columns = columns_of(layouts)
    with np.errstate(divide="ignore"):
        return {rule.name: ~rule.holds(columns, job, machine) for rule in LEGALITY}


def explain(layouts: Layouts, job: Training, machine: Machine, *, row: int = 0) -> list[Rule]:
    """The laws that one layout breaks so that it cannot exist; empty when it can."""
    one = layouts.take(np.array([row]))
    if int(min(one.tp[0], one.cp[0], one.pp[0])) < 1:
        return [LEGALITY[0]]
    broken = broken_rules(one, job, machine)
    return [rule for rule in LEGALITY if not rule.redundant and broken[rule.name][0]]


def refuse_illegal(layouts: Layouts, job: Training, machine: Machine) -> None:
    """BadInput that names the first law broken by any of the layouts, and the layout."""
    if len(layouts) and int(min(layouts.tp.min(), layouts.cp.min(), layouts.pp.min())) < 1:
        raise BadInput(field="layout", value=0, expected=LEGALITY[0].name, remedy=LEGALITY[0].remedy)
    columns = columns_of(layouts)
    for rule in LEGALITY:
        if rule.redundant:
            continue
        wrong = np.flatnonzero(~rule.holds(columns, job, machine))
        if len(wrong):
            row = layouts.row(int(wrong[0]))
            shown = {name: row[name] for name in rule.columns}
            raise BadInput(field=f"layout ({rule.name})", value=shown,
                           expected=f"a layout that can exist on {machine.chip_count} chips, but {rule.broken}",
                           remedy=rule.remedy)
