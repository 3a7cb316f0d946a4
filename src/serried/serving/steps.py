"""Step-time tables of deployments: what the request simulator asks of kernels, wires and host, all shapes at once.

Axes: D = deployment, S = shape (a deployment at a grid point), T, B, C, Q as in `serried.engine.StepTime`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serried.engine import StepTime
from serried.planner.spec import FORMATS, Machine
from serried.serving.memory import wide_attention
from serried.serving.spec import CACHE_FORMATS, Deployments
from serried.serving.static import device_causes_s
from serried.serving.tables import PhaseTimes, StageTiming
from serried.workload import block_operators, embedding_operators, head_operators
from serried.workload.spec import Attend, Block, Floats, Model, Operator, Shards

__all__ = ["CONTEXT_GRID", "QUERY_GRID", "SEQUENCE_GRID", "TOKEN_GRID", "step_times"]

TOKEN_GRID = np.array([1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1280,
                       1536, 2048, 2560, 3072, 4096, 6144, 8192, 12288, 16384, 32768], dtype=np.float64)
SEQUENCE_GRID = np.array([1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096],
                         dtype=np.float64)
CONTEXT_GRID = np.array([16, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768, 65536,
                         131072, 262144], dtype=np.float64)
QUERY_GRID = np.array([1, 32, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768], dtype=np.float64)
#: Passes of at most so many tokens are exposed to their traffic as decode steps are: nothing beside it is long enough.
_SMALL_PASS_TOKENS = 256

StackValues = Mapping[str, float]
Wanted = Callable[[Operator], bool]


def step_times(model: Model, machine: Machine, rows: Deployments, *, drafts: int = 0,
               stack: StackValues | None = None) -> list[StepTime]:
    """The tables of every deployment, in order; shapes of all of them are timed together.

    drafts: tokens drafted in each step by a head of the model's own, a block each. stack: parameters that bend the
    times, by default those of the machine's stack. Raises MissingFigure when the chip lacks a figure that the kernels
    need.
    """
    found: list[StepTime | None] = [None] * len(rows)
    values = machine.stack.parameters if stack is None else stack
    codes = np.stack([rows.weight_format, rows.cache_format], axis=1)
    for weight_code, cache_code in np.unique(codes, axis=0):
        chosen = np.flatnonzero((codes == (weight_code, cache_code)).all(axis=1))
        tables = _Tables(model, machine, rows.take(chosen), FORMATS[int(weight_code)],
                         tuple(CACHE_FORMATS)[int(cache_code)], values)
        for at, step in zip(chosen, tables.step_times(drafts), strict=True):
            found[at] = step
    return [step for step in found if step is not None]


class _Tables:
    """Tables of deployments that share their number formats."""

    def __init__(self, model: Model, machine: Machine, rows: Deployments, weight_format: str, cache_format: str,
                 stack: StackValues) -> None:
        self.model, self.machine, self.rows, self.stack = model, machine, rows, stack
        self.formats = weight_format, cache_format
        self.share_D = np.ceil(model.layer_count / rows.pp) / model.layer_count

    def step_times(self, drafts: int) -> list[StepTime]:
        """One StepTime per deployment."""
        dense, experts = self.blocks(_is_dense, TOKEN_GRID), self.blocks(_is_expert, TOKEN_GRID)
        embedding = self.edge(embedding_operators, TOKEN_GRID, sends=True)
        head = self.edge(head_operators, SEQUENCE_GRID, loss=False, decode=True)
        small_T = TOKEN_GRID <= _SMALL_PASS_TOKENS
        dense_DT = self.device_s(dense, small_T) + self.device_s(embedding, small_T)
        expert_DT = self.device_s(experts, small_T)
        head_DB = self.device_s(head, np.ones(len(SEQUENCE_GRID), dtype=bool))
        decode_DBC, prefill_DQC = self.decode_attention(), self.prefill_attention()
        launches_D = sum(self.launches(phase, len(TOKEN_GRID)) for phase in (dense, experts, embedding)) \
            + self.launches(head, len(SEQUENCE_GRID))
        draft_DB = drafts * (head_DB + np.array([
            np.interp(SEQUENCE_GRID, TOKEN_GRID, row) for row in dense_DT + expert_DT]) / self.model.layer_count)
        host = {name: float(self.stack.get(name, 0.0)) for name in ("host_s_per_step", "host_s_per_sequence")}
        return [StepTime(
            tokens_T=TOKEN_GRID, dense_s_T=dense_DT[row], expert_s_T=expert_DT[row], sequences_B=SEQUENCE_GRID,
            head_s_B=head_DB[row], draft_s_B=draft_DB[row], context_C=CONTEXT_GRID,
            decode_attention_s_BC=decode_DBC[row], query_Q=QUERY_GRID, prefill_attention_s_QC=prefill_DQC[row],
            stages=int(self.rows.pp[row]), launches=float(np.ravel(launches_D)[row]),
            host_s_per_launch=float(self.stack["host_s_per_operator"]), **host) for row in range(len(self.rows))]

    def timing(self, points: int) -> StageTiming:
        """Every deployment at every one of so many grid points, deployment by deployment."""
        tp, ep, groups = (np.repeat(column.astype(np.float64), points)
                          for column in (self.rows.tp, self.rows.ep, self.rows.attention_dp))
        return StageTiming(self.machine, *self.formats, tp=tp, ep=ep, attention_dp=groups,
                           wide_attention=wide_attention(self.model, self.formats[0]))

    def blocks(self, wanted: Wanted, sequences_P: Floats, query_P: Floats | float = 1.0,
               context_P: Floats | float = 1.0, *, decode: bool = False) -> PhaseTimes:
        """The wanted operators of all blocks of a stage at grid points P."""
        timing = self.timing(len(sequences_P))
        shards = self.shards(timing, sequences_P, query_P, context_P)
        share_S = np.repeat(self.share_D, len(sequences_P))
        for block in self.model.blocks:
            for operator in self.operators(block, shards, decode):
                if wanted(operator):
                    timing.add(operator, block.count * share_S)
        return timing.times()

    def shards(self, timing: StageTiming, sequences_P: Floats, query_P: Floats | float,
               context_P: Floats | float) -> Shards:
        """What one chip sees at each grid point, for every deployment."""
        ones_P = np.ones(len(sequences_P))
        columns = (np.tile(np.asarray(column) * ones_P, len(self.rows)) for column in (sequences_P, query_P, context_P))
        return timing.shards(*columns)

    def operators(self, block: Block, shards: Shards, decode: bool) -> Iterable[Operator]:
        """Operators of one block in serving."""
        return block_operators(self.model, block, shards, phase="forward", element_bytes=2.0, decode=decode,
                               serving=True)

    def edge(self, operators: Callable[..., Sequence[Operator]], sequences_P: Floats, *, sends: bool = False,
             **options: bool) -> PhaseTimes:
        """Embedding or head, once."""
        timing = self.timing(len(sequences_P))
        shards = self.shards(timing, sequences_P, 1.0, 1.0)
        for operator in operators(self.model, shards, phase="forward", element_bytes=2.0, **options):
            timing.add(operator, np.ones(len(timing.tp)))
        if sends:
            timing.send(2.0 * self.model.hidden * shards.sequences, np.repeat(self.rows.pp, len(sequences_P)))
        return timing.times()

    def device_s(self, phase: PhaseTimes, is_small_P: NDArray[np.bool_]) -> Floats:
        """Seconds on the device, D x P."""
        small_S = np.tile(is_small_P, len(self.rows))
        total_S = sum(device_causes_s(phase, self.stack, decode=small_S).values(), start=np.zeros(len(small_S)))
        return np.asarray(total_S.reshape(len(self.rows), -1))

    def launches(self, phase: PhaseTimes, points: int) -> Floats:
        """Kernels of one pass, over D; they do not depend on the grid point."""
        kernels_S = phase.kernels + phase.fusible_kernels * self.stack["unfused_fraction"]
        return np.asarray(kernels_S.reshape(-1, points)[:, 0])

    def decode_attention(self) -> Floats:
        """D x B x C: the core of decoding, and what projections of a latent cache take more (or less) than in a
        prefill pass of as many tokens, as which the dense table counts them."""
        sequences_P, context_P = (grid.ravel() for grid in np.meshgrid(SEQUENCE_GRID, CONTEXT_GRID, indexing="ij"))
        core = self.blocks(_is_core, sequences_P, 1.0, context_P, decode=True)
        small_P, small_B = np.ones(len(sequences_P), dtype=bool), np.ones(len(SEQUENCE_GRID), dtype=bool)
        core_DBC = self.device_s(core, small_P).reshape(len(self.rows), len(SEQUENCE_GRID), len(CONTEXT_GRID))
        if not any(block.attention and block.attention.kind == "mla" for block in self.model.blocks):
            return np.asarray(core_DBC)
        more_DB = self.device_s(self.blocks(_is_projection, SEQUENCE_GRID, decode=True), small_B) \
            - self.device_s(self.blocks(_is_projection, SEQUENCE_GRID), small_B)
        return np.asarray(core_DBC + more_DB[:, :, None])

    def prefill_attention(self) -> Floats:
        """D x Q x C: the core of a chunk, and projections of a latent context that the chunk meets again."""
        query_P, context_P = (grid.ravel() for grid in np.meshgrid(QUERY_GRID, CONTEXT_GRID, indexing="ij"))
        context_P = np.maximum(context_P, query_P)
        ones_P, small_P = np.ones(len(query_P)), np.zeros(len(query_P), dtype=bool)
        total_DP = self.device_s(self.blocks(_is_core, ones_P, query_P, context_P), small_P)
        if any(block.attention and block.attention.kind == "mla" for block in self.model.blocks):
            total_DP = total_DP + self.device_s(self.blocks(_is_projection, ones_P, query_P, context_P), small_P) \
                - self.device_s(self.blocks(_is_projection, ones_P, query_P, query_P), small_P)
        return np.asarray(total_DP.reshape(len(self.rows), len(QUERY_GRID), len(CONTEXT_GRID)))


def _is_core(operator: Operator) -> bool:
    return isinstance(operator, Attend)


def _is_expert(operator: Operator) -> bool:
    return operator.name.startswith("moe.") and not operator.name.startswith("moe.shared")


def _is_dense(operator: Operator) -> bool:
    return not _is_core(operator) and not _is_expert(operator)


def _is_projection(operator: Operator) -> bool:
    """Between hidden state and core, where decoding on a latent cache differs from a prefill."""
    return operator.name.startswith("attention.") and not _is_core(operator)
