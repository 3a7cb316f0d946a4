"""What one pass through each piece of the model takes on one chip, before any stack.

Axes: S = shape point, one entry per distinct (tp, cp, ep, expert_tp, micro_batch, sequence_parallel, number_format);
R = piece, G = forward by what recompute can repeat (core, attention, mlp) and backward; C = WORK.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from serried.compiler import ACTIVATION_BYTES, operator_kernel_count, operator_time_s, quantise_time_s
from serried.fabric import Fabric, collective_time_s
from serried.planner.pieces import distinct_values, model_runs
from serried.planner.spec import FORMATS, RECOMPUTE, WORK, Ints, Layouts, Machine
from serried.workload import (
    RECOMPUTED,
    block_operators,
    embedding_operators,
    head_operators,
    prediction_operators,
    recomputed_operators,
)
from serried.workload.spec import (
    Attend,
    Block,
    Elementwise,
    Exchange,
    Floats,
    Gemm,
    GroupedGemm,
    MlpSpec,
    Model,
    Operator,
    Shards,
    Training,
)

__all__ = ["KERNEL_KEYS", "KernelBook", "KernelTimes", "element_bytes_of", "kernel_times", "nodes_per_token",
           "selective_recompute", "shards_of"]

#: Columns of a layout that its kernels depend on.
KERNEL_KEYS = ("tp", "cp", "ep", "expert_tp", "micro_batch", "sequence_parallel", "number_format")
_INDEX = {name: position for position, name in enumerate(WORK)}
#: Forward operators by the parts of a block that can be computed again; backward; what "selective" repeats.
_CORE, _ATTENTION, _MLP, _BACKWARD, _AGAIN = range(5)
_PARTS = {"attention": (_CORE, _ATTENTION), "mlp": (_MLP,), "full": (_CORE, _ATTENTION, _MLP), "none": ()}
#: Host cost of a product inside a compiled loop over experts, over that of an operator's own launch. Eight small
#: products in such a loop take 0.27 ms, 33 us each (NVIDIA/TransformerEngine, pull request 3134, its table of the
#: multi-stream loop), where an operator of module code takes 55 us.
_LOOPED_LAUNCH = 0.6
_WIDE_FORMATS = ("bf16", "fp16", "tf32", "fp32")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTimes:
    """work_RGCS: seconds (and launches) of one pass of one micro-batch; selective_RCS: what "selective" repeats of it;
    weight_gemm_s_RS: weight gradients in it."""

    work_RGCS: Floats
    selective_RCS: Floats
    weight_gemm_s_RS: Floats

    def behind_sync(self, model: Model) -> Floats:
        """Of the forward of a mixture of experts what stands behind the read of its counts: [R, C, S]; else 0."""
        mixtures = [block.mlp is not None and block.mlp.experts > 0 for block in model_runs(model)] + [False, False]
        return np.where(np.array(mixtures)[:, None, None], self.work_RGCS[:, _MLP], 0.0)

    def phases(self, recompute: int) -> Floats:
        """Forward, backward and recompute under one choice of RECOMPUTE: [R, P, C, S]. Ends are never recomputed."""
        forward = self.work_RGCS[:, :_BACKWARD].sum(axis=1)
        name = RECOMPUTE[recompute]
        again = self.selective_RCS.copy() if name == "selective" else \
            self.work_RGCS[:, list(_PARTS[name])].sum(axis=1)
        again[-2:] = 0.0
        return np.stack([forward, self.work_RGCS[:, _BACKWARD], again], axis=1)


def shards_of(job: Training, points: Layouts) -> Shards:
    """How the layouts cut the model, and the tokens that one chip sees."""
    tokens = np.full(len(points), float(job.sequence_tokens))
    return Shards(sequences=points.micro_batch.astype(np.float64), query_tokens=tokens, context_tokens=tokens,
                  tensor=points.tp.astype(np.float64), context=points.cp.astype(np.float64),
                  expert=points.ep.astype(np.float64), expert_tensor=points.expert_tp.astype(np.float64),
                  sequence_parallel=points.sequence_parallel.astype(bool))


def element_bytes_of(number_format: Ints) -> Floats | float:
    """Bytes of one element between operators: a number where all formats agree, else over S."""
    widths = np.array([ACTIVATION_BYTES[name] for name in FORMATS])[number_format]
    return float(widths[0]) if len(widths) and (widths == widths[0]).all() else widths


def kernel_times(job: Training, machine: Machine, points: Layouts) -> KernelTimes:
    """Times of every piece at the shape points. Depends on the facts of the stack's recipe, never on its parameters."""
    model, shards = job.model, shards_of(job, points)
    facts, width = machine.stack.facts, element_bytes_of(points.number_format)
    fused = {name: bool(facts.get(name, True)) for name in ("fused_attention", "fused_experts")}
    again = selective_recompute(machine)
    runs = model_runs(model)
    clock = _Clock(machine=machine, points=points, work=np.zeros((len(runs) + 2, 5, len(WORK), len(points))),
                   weight_gemm=np.zeros((len(runs) + 2, len(points))))
    for index, block in enumerate(runs):
        forward, backward = (_operators(model, block, index, shards, phase, width, fused)
                             for phase in ("forward", "backward"))
        clock.add_all(index, forward, mlp=block.mlp)
        clock.add_all(index, backward, part=_BACKWARD, mlp=block.mlp)
        clock.add_all(index, recomputed_operators(forward, again), part=_AGAIN, mlp=block.mlp)
    fused_loss = bool(machine.stack.facts.get("fused_loss", True))
    for index, ends in ((-2, embedding_operators), (-1, head_operators)):
        forward, backward = (ends(model, shards, phase=phase, element_bytes=width)
                             for phase in ("forward", "backward"))
        if fused_loss:
            forward, backward = (_with_fused_loss(operators, model, shards, width, forward=operators is forward)
                                 for operators in (forward, backward))
        clock.add_all(index, forward)
        clock.add_all(index, backward, part=_BACKWARD)
    if machine.stack.facts.get("captured", False):
        clock.work[:, :, [_INDEX["kernels"], _INDEX["fusible_kernels"]]] = 0.0
    return KernelTimes(work_RGCS=clock.work[:, :_AGAIN], selective_RCS=clock.work[:, _AGAIN],
                       weight_gemm_s_RS=clock.weight_gemm)


class KernelBook:
    """Times of shape points asked so far, so that a search times each of them once.

    The one thing in this room that remembers: its answers are those of `kernel_times`.
    """

    def __init__(self, job: Training, machine: Machine) -> None:
        self._job, self._machine = job, machine
        self._place: dict[tuple[int, ...], int] = {}
        self._pages: list[KernelTimes] = []

    def times(self, points: Layouts) -> KernelTimes:
        """As `kernel_times` of the same job and machine."""
        keys = list(zip(*(np.asarray(getattr(points, name), dtype=np.int64).tolist() for name in KERNEL_KEYS),
                        strict=True))
        new = [row for row, key in enumerate(keys) if key not in self._place]
        if new:
            start = len(self._place)
            self._place |= {keys[row]: start + position for position, row in enumerate(new)}
            self._pages.append(kernel_times(self._job, self._machine, points.take(np.array(new))))
            if len(self._pages) > 1:
                self._pages = [KernelTimes(**{column.name: np.concatenate(
                    [getattr(page, column.name) for page in self._pages], axis=-1) for column in fields(KernelTimes)})]
        where = np.array([self._place[key] for key in keys], dtype=np.intp)
        page = self._pages[0]
        return KernelTimes(**{column.name: getattr(page, column.name)[..., where] for column in fields(KernelTimes)})


def selective_recompute(machine: Machine) -> str:
    """What the stack's recipe means by "selective", as the workload calls it."""
    meant = str(machine.stack.facts.get("selective", "core"))
    return "selective" if meant == "core" else meant


def _operators(model: Model, block: Block, index: int, shards: Shards, phase: Literal["forward", "backward"],
               element_bytes: Floats | float, fused: Mapping[str, bool]) -> tuple[Operator, ...]:
    """Of one block of a run; the run behind the model's own ones is that of the prediction blocks."""
    if index < len(model.blocks):
        return block_operators(model, block, shards, phase=phase, element_bytes=element_bytes, **fused)
    return prediction_operators(model, shards, phase=phase, element_bytes=element_bytes, **fused)


def _with_fused_loss(operators: tuple[Operator, ...], model: Model, shards: Shards,
                     element_bytes: Floats | float, *, forward: bool) -> tuple[Operator, ...]:
    """The ends with one kernel for the loss: two passes over the logits in forward, of which the second leaves the
    gradient in their place, and nothing in backward."""
    logits_bytes = element_bytes * shards.sequences * shards.query_tokens / shards.context * model.vocab / shards.tensor
    fused = Elementwise(name="head.loss", read_bytes=2.0 * logits_bytes, write_bytes=logits_bytes, fusible=False)
    return tuple(fused if operator.name == "head.loss" else operator for operator in operators
                 if forward or operator.name != "head.loss")


def _part_of(name: str) -> int:
    if name.startswith(RECOMPUTED["selective"]):
        return _CORE
    return _ATTENTION if name.startswith(RECOMPUTED["attention"]) else _MLP


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """Adds operators to the columns of a piece."""

    machine: Machine
    points: Layouts
    work: Floats
    weight_gemm: Floats

    def add_all(self, piece: int, operators: Iterable[Operator], *, part: int | None = None,
                mlp: MlpSpec | None = None) -> None:
        """Add to `part`, or each forward operator to the part of the block that it belongs to.

        mlp: how the block routes a token to its experts."""
        for operator in operators:
            column = self.work[piece, _part_of(operator.name) if part is None else part]
            if isinstance(operator, Exchange):
                self._exchange(operator, column, mlp)
            else:
                self._kernel(piece, operator, column, forward=part != _BACKWARD)

    def _kernel(self, piece: int, operator: Operator, column: Floats, *, forward: bool) -> None:
        is_core = operator.name.startswith(RECOMPUTED["selective"])
        time_s = self._time_s(operator)
        launches = self._launches(operator)
        if isinstance(operator, Elementwise):
            fusible = operator.fusible and not is_core
            column[_INDEX["attention" if is_core else "fusible" if fusible else "memory"]] += time_s
            column[_INDEX["fusible_kernels" if fusible else "kernels"]] += launches
            return
        column[_INDEX["attention" if is_core or isinstance(operator, Attend) else "gemm"]] += time_s
        column[_INDEX["kernels"]] += launches
        if isinstance(operator, (Gemm, GroupedGemm)) and not is_core:
            if operator.phase == "backward_weight":
                self.weight_gemm[piece] += time_s
            self._cast(operator, column, forward=forward)

    def _launches(self, operator: Operator, *, each: float = _LOOPED_LAUNCH) -> Floats:
        """Launches over S. Software without a grouped kernel launches for every expert: products in a compiled loop,
        at `each` of what a launch of its own costs the host; casts one by one."""
        count = float(operator_kernel_count(operator))
        if isinstance(operator, GroupedGemm) and not self.machine.stack.facts.get("grouped_kernel", True):
            more = np.broadcast_to(operator.groups, len(self.points)) - 1.0
            return np.asarray(count * (1.0 + each * more))
        return np.full(len(self.points), count)

    def _time_s(self, operator: Operator) -> Floats:
        """Seconds over S; each format is asked once, for distinct shapes only."""
        found = np.zeros(len(self.points))
        for code in np.unique(self.points.number_format):
            chosen = np.flatnonzero(self.points.number_format == code)
            found[chosen] = self._distinct_time_s(operator, chosen, FORMATS[int(code)])
        return found

    def _distinct_time_s(self, operator: Operator, chosen: np.ndarray, number_format: str) -> Floats:
        if isinstance(operator, GroupedGemm) and not self.machine.stack.facts.get("grouped_kernel", True):
            alone = self._distinct_time_s(self._one_expert(operator), chosen, number_format)
            return np.asarray(alone * np.broadcast_to(operator.groups, len(self.points))[chosen])
        names = _SHAPE[type(operator)]
        count = len(self.points)
        columns = [np.broadcast_to(np.asarray(getattr(operator, name), dtype=np.float64), count)[chosen]
                   for name in names]
        values, where = distinct_values(columns)
        asked = replace(operator, **dict(zip(names, values, strict=True)))  # type: ignore[arg-type]
        time_s = operator_time_s(asked, chip=self.machine.chip, profile=self.machine.profile,
                                 number_format=number_format)
        return np.asarray(np.broadcast_to(time_s, len(values[0]))[where])

    def _one_expert(self, operator: GroupedGemm) -> Gemm:
        """The product of one expert by itself, as software without a grouped kernel runs it: its tiles share no wave
        with those of the others."""
        rows, wide, deep = (np.broadcast_to(np.asarray(column, dtype=np.float64), len(self.points))
                            for column in (operator.rows / operator.groups, operator.n, operator.k))
        if operator.phase == "backward_weight":
            return Gemm(name=operator.name, m=wide, n=deep, k=rows, weight=False, phase=operator.phase)
        return Gemm(name=operator.name, m=rows, n=wide, k=deep, phase=operator.phase)

    def _cast(self, operator: Gemm | GroupedGemm, column: Floats, *, forward: bool) -> None:
        """Low-precision operands are cast once: the input in forward, where the kernel before can do it, and the
        gradient that enters the data product in backward."""
        if getattr(operator, "high_precision", False) or operator.phase == "backward_weight":
            return
        rows = operator.rows if isinstance(operator, GroupedGemm) else operator.m
        for code in np.unique(self.points.number_format):
            name = FORMATS[int(code)]
            if name in _WIDE_FORMATS:
                continue
            chosen = self.points.number_format == code
            time_s = np.broadcast_to(quantise_time_s(
                rows, operator.k, chip=self.machine.chip, number_format=name,
                parameters=self.machine.profile.parameters("quantise", name)), len(chosen))
            column[_INDEX["fusible" if forward else "memory"], chosen] += time_s[chosen]
            column[_INDEX["fusible_kernels" if forward else "kernels"], chosen] += (
                self._launches(operator, each=1.0)[chosen])

    def _exchange(self, operator: Exchange, column: Floats, mlp: MlpSpec | None) -> None:
        points = self.points
        degree, stride = {
            "tensor": (points.tp, np.ones_like(points.tp)), "context": (points.cp, points.tp),
            "expert": (points.ep, points.expert_tp)}[operator.axis]
        payload = np.broadcast_to(operator.payload_bytes, len(points))
        asked = [payload, np.asarray(degree, dtype=np.float64), np.asarray(stride, dtype=np.float64)]
        (payloads, degrees, strides), where = distinct_values(asked)
        dispatch = self.machine.stack.facts.get("expert_dispatch", "plain")
        if mlp is not None and operator.axis == "expert" and dispatch == "once_per_node":
            asked_s = once_per_node_s(payloads, degrees, strides, mlp, fabric=self.machine.fabric)
        else:
            asked_s = collective_time_s(operator.operation, payloads, degrees, strides, fabric=self.machine.fabric)
        time_s = asked_s[where]
        moves = (degree > 1) & (payload > 0)
        name = "tensor_beside" if operator.axis == "tensor" and operator.beside else operator.axis
        column[_INDEX[name]] += np.where(moves, time_s, 0.0)
        column[_INDEX["kernels"]] += np.where(moves, operator_kernel_count(operator), 0.0)


def once_per_node_s(payload_bytes: Floats, degree: Floats, stride: Floats, mlp: MlpSpec, *, fabric: Fabric) -> Floats:
    """An expert exchange that sends a token once to every node which holds some of its experts, where it is copied on.

    Both ways run at once, so that the slower one counts. Inside one node nothing changes.
    """
    node = float(max(fabric.node_size, 1))
    inside = np.clip(np.floor(node / stride), 1.0, degree)
    nodes = np.maximum(degree / inside, 1.0)
    counts, where = np.unique(nodes, return_inverse=True)
    share = np.array([nodes_per_token(count, mlp) for count in counts])[where] / max(mlp.experts_per_token, 1)
    between_s = collective_time_s("all_to_all", payload_bytes * np.minimum(share, 1.0), np.round(nodes),
                                  stride * inside, fabric=fabric)
    inside_s = collective_time_s("all_to_all", payload_bytes, inside, stride, fabric=fabric)
    return np.asarray(np.maximum(np.where(nodes > 1, between_s, 0.0), inside_s))


def nodes_per_token(nodes: float, mlp: MlpSpec) -> float:
    """How many of `nodes` nodes, over which the experts stand in order, a token needs on average.

    k experts evenly over N nodes: N (1 - (1 - 1/N)^k). Where they come from L of G groups (DeepSeek-V3, section 2.1.2),
    a node holds j chosen groups of its G/N with hypergeometric chance, and is missed with (1 - j/L)^k; a group that is
    wider than a node is a node's with chance L/G, and then missed with (1 - 1/(L N/G))^k.
    """
    routes, groups = max(mlp.experts_per_token, 1), max(mlp.route_groups, 1)
    chosen = min(max(mlp.groups_per_token, 1), groups)
    if chosen == groups or (nodes < groups and groups % nodes):
        return float(nodes * (1.0 - (1.0 - 1.0 / nodes) ** routes))
    if nodes >= groups:
        reached = nodes * chosen / groups
        return float(reached * (1.0 - (1.0 - 1.0 / reached) ** routes))
    mine = int(groups // nodes)
    missed = sum(math.comb(mine, j) * math.comb(groups - mine, chosen - j) * (1.0 - j / chosen) ** routes
                 for j in range(min(mine, chosen) + 1)) / math.comb(groups, chosen)
    return float(nodes * (1.0 - missed))


#: Fields of an operator that are arrays over S.
_SHAPE: dict[type, tuple[str, ...]] = {
    Gemm: ("m", "n", "k", "batch"), GroupedGemm: ("groups", "rows", "n", "k"),
    Attend: ("sequences", "query_tokens", "context_tokens", "heads", "kv_heads"),
    Elementwise: ("read_bytes", "write_bytes"),
}
