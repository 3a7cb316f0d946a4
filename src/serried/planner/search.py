"""Exhaustive search: every legal layout is evaluated in chunks of columns; the best are kept.

Memory comes first; only layouts that fit are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from serried.errors import BadInput, NoAnswer
from serried.planner.kernels import KERNEL_KEYS, KernelBook
from serried.planner.memory import MemoryEstimate, estimate_memory, explain_memory
from serried.planner.pieces import Points
from serried.planner.space import CHUNK_LAYOUTS, layout_chunks, switched_layouts
from serried.planner.spec import Layouts, Machine, SearchResult, StepTime, TrainingEstimate
from serried.planner.step import assemble, estimate_of, estimate_training, kernel_table
from serried.workload.spec import Training

__all__ = ["OBJECTIVES", "search_training"]

#: What "best" means: the step, or the money of a step (the same tokens).
OBJECTIVES = ("step_time", "usd_per_token")

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class _Best:
    """The best rows so far, best first; ties keep the order of the space, so that the answer is reproducible."""

    count: int
    score: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    layouts: list[Layouts] = field(default_factory=list)

    def offer(self, layouts: Layouts, score: NDArray[np.float64]) -> None:
        """Keep the best of what is held and what is offered."""
        rows = np.arange(len(score))
        if len(score) > self.count:
            limit = np.partition(score, self.count - 1)[self.count - 1]
            rows = np.flatnonzero(score <= limit)
        held = [*self.layouts, layouts.take(rows)]
        scores = np.concatenate([self.score, score[rows]])
        joined = Layouts(**{column.name: np.concatenate([getattr(part, column.name) for part in held])
                            for column in fields(Layouts)})
        order = np.argsort(scores, kind="stable")[:self.count]
        self.layouts, self.score = [joined.take(order)], scores[order]


@dataclass(slots=True)
class _Tightest:
    """The layout with the smallest memory, for the answer when nothing fits."""

    total_bytes: float = np.inf
    reason: str = ""
    binding: str = ""

    def offer(self, memory: MemoryEstimate) -> None:
        """Remember the smallest of `memory` when it is smaller than what is held."""
        row = int(np.argmin(memory.total_bytes))
        if memory.total_bytes[row] < self.total_bytes:
            self.total_bytes = float(memory.total_bytes[row])
            self.reason = explain_memory(memory, row=row)
            self.binding = max(memory.by_cause_bytes, key=lambda cause: float(memory.by_cause_bytes[cause][row]))


def search_training(job: Training, machine: Machine, *, top: int = 10, progress: Progress | None = None,
                    objective: str = "step_time", chunk_layouts: int = CHUNK_LAYOUTS, bounded: bool = False,
                    **choices: Sequence[object]) -> SearchResult:
    """The best `top` of all legal layouts, evaluated one and all.

    choices: columns of Layouts to pin, e.g. tp=[8], number_format=["bf16"]. progress(done, fitting) is called after
    each chunk. bounded: the same answer sooner: layouts whose fastest variant is slower than the best so far are ruled
    out together, and `evaluated` counts what was evaluated. Raises NoAnswer when nothing is legal or nothing fits, with
    what binds and the smallest chip count that would fit; BadInput for an unknown choice.
    """
    if objective not in OBJECTIVES:
        raise BadInput(field="objective", value=objective, expected=f"one of {', '.join(OBJECTIVES)}",
                       remedy="Choose one of them.")
    if top < 1:
        raise BadInput(field="top", value=top, expected="1 or more", remedy="Ask for at least one layout.")
    started = time.perf_counter()
    best, tightest, rejected = _Best(count=top), _Tightest(), dict[str, int]()
    book = _opened_book(job, machine, choices, chunk_layouts)
    evaluated = fitting = 0
    chunks = layout_chunks(job, machine, choices=choices, chunk_layouts=chunk_layouts, rejected=rejected)
    if bounded and objective == "step_time":
        chunks = _worthwhile(job, machine, choices, book, best, chunk_layouts, rejected)
    for chunk in chunks:
        memory = estimate_memory(job, machine, chunk)
        evaluated += len(chunk)
        if memory.fits.any():
            held = chunk.take(np.flatnonzero(memory.fits))
            fitting += len(held)
            step = assemble(kernel_table(job, machine, held, book=book), machine.stack)
            best.offer(held, _score(job, machine, memory, step, objective))
        tightest.offer(memory)
        if progress is not None:
            progress(evaluated, fitting)
    if not best.layouts:
        raise _no_answer(job, machine, tightest, evaluated, rejected, choices)
    found = best.layouts[0]
    return SearchResult(layouts=found, estimate=estimate_training(job, machine, found), evaluated=evaluated,
                        fitting=fitting, rejected=rejected, smallest_memory_bytes=tightest.total_bytes,
                        wall_s=time.perf_counter() - started)


def _worthwhile(job: Training, machine: Machine, choices: Mapping[str, Sequence[object]], book: KernelBook,
                best: _Best, chunk_layouts: int, rejected: dict[str, int]) -> Iterator[Layouts]:
    """Chunks of the layouts that may still be among the best, by the time of the fastest variant of each.

    Recomputing adds more time than it gives traffic to hide behind, and overlap never costs more than it hides: with
    nothing recomputed and everything overlapped, a layout is as fast as any of its variants.
    """
    tried = {name: _tried(name, choices) for name in ("overlap_data", "overlap_tensor")}
    lean: dict[str, Sequence[object]] = {**choices, "recompute": _fastest_recompute(choices),
                                         "overlap_data": [False], "overlap_tensor": [False]}
    switches = ("overlap_data", "overlap_tensor", *(("recompute",) if lean["recompute"] == ["none"] else ()))
    per_slice = max(chunk_layouts // 20, 1)
    for chunk in layout_chunks(job, machine, choices=lean, chunk_layouts=4 * chunk_layouts, rejected=rejected):
        everything = replace(chunk, overlap_data=np.full(len(chunk), tried["overlap_data"]),
                             overlap_tensor=np.full(len(chunk), tried["overlap_tensor"]))
        bound_s = assemble(kernel_table(job, machine, everything, book=book), machine.stack).time_s * (1 - 1e-12)
        order = np.argsort(bound_s, kind="stable")
        for start in range(0, len(order), per_slice):
            rows = order[start:start + per_slice]
            if len(best.score) == best.count:
                rows = rows[bound_s[rows] <= best.score[-1]]
            if not len(rows):
                break
            yield switched_layouts(chunk.take(np.sort(rows)), job, machine, switches, choices)


def _tried(name: str, choices: Mapping[str, Sequence[object]]) -> bool:
    """Whether any of the pinned values of a switch turns it on; unpinned ones are tried both ways."""
    return any(bool(value) for value in choices.get(name, (True,)))


def _fastest_recompute(choices: Mapping[str, Sequence[object]]) -> list[object]:
    """"none" when it is tried; else every pinned choice, since none of them is surely the fastest."""
    pinned = list(choices.get("recompute", ("none",)))
    return ["none"] if "none" in pinned or 0 in pinned else pinned


def _opened_book(job: Training, machine: Machine, choices: Mapping[str, Sequence[object]],
                 chunk_layouts: int) -> KernelBook:
    """Kernel times of every shape that may fit, asked in few large calls: what fits with the leanest switches."""
    lean: dict[str, Sequence[object]] = {"recompute": ["full"], "sharding": [0, 3], "overlap_data": [False],
                                         "overlap_tensor": [False], **choices}
    book = KernelBook(job, machine)
    for chunk in layout_chunks(job, machine, choices=lean, chunk_layouts=chunk_layouts):
        held = np.flatnonzero(estimate_memory(job, machine, chunk).fits)
        if len(held):
            fitting = chunk.take(held)
            book.times(fitting.take(Points.of(fitting, *KERNEL_KEYS).rows))
    return book


def _score(job: Training, machine: Machine, memory: MemoryEstimate, step: StepTime,
           objective: str) -> NDArray[np.float64]:
    if objective == "step_time":
        return np.asarray(step.time_s)
    held = np.flatnonzero(memory.fits)
    kept = replace(memory, total_bytes=memory.total_bytes[held], fits=memory.fits[held],
                   by_cause_bytes={cause: column[held] for cause, column in memory.by_cause_bytes.items()})
    estimate: TrainingEstimate = estimate_of(job, machine, kept, step)
    return np.asarray(np.where(np.isnan(estimate.price_usd), np.inf, estimate.price_usd))


def _no_answer(job: Training, machine: Machine, tightest: _Tightest, evaluated: int, rejected: Mapping[str, int],
               choices: Mapping[str, Sequence[object]]) -> NoAnswer:
    if not evaluated:
        worst = max(rejected, key=lambda name: rejected[name], default="")
        return NoAnswer(f"No layout of {job.model.name} can exist on {machine.chip_count} {machine.chip.name}: most "
                        f"candidates break the rule {worst!r}.", binding=worst,
                        remedy="Change the chip count or the global batch, or pin less.")
    smallest = _smallest_fleet(job, machine, choices)
    remedy = f"It fits on {smallest} chips." if smallest else "It does not fit on any number of these chips tried."
    return NoAnswer(f"No layout of {job.model.name} fits on {machine.chip_count} {machine.chip.name}; in the smallest, "
                    f"{tightest.reason}.", binding=tightest.binding, remedy=remedy)


def _smallest_fleet(job: Training, machine: Machine, choices: Mapping[str, Sequence[object]]) -> int | None:
    """The first doubling of the chips on which a layout fits, halved back as far as it still does; None if none."""
    lean: dict[str, Sequence[object]] = {"micro_batch": [1], "number_format": ["bf16"], "overlap_data": [False],
                                         "overlap_tensor": [False], **choices}
    count = machine.chip_count
    for _ in range(10):
        count *= 2
        if _fits(job, replace(machine, chip_count=count), lean):
            break
    else:
        return None
    node = max(machine.fabric.node_size, 1)
    low, high = count // 2, count
    while high - low > max(node, low // 16):
        middle = (low + high) // 2 // node * node
        if middle <= low:
            break
        low, high = (low, middle) if _fits(job, replace(machine, chip_count=middle), lean) else (middle, high)
    return high


def _fits(job: Training, machine: Machine, choices: Mapping[str, Sequence[object]]) -> bool:
    """A fleet of another count takes a global batch that its data ranks can share."""
    return any(bool(estimate_memory(job, machine, chunk).fits.any())
               for chunk in layout_chunks(job, machine, choices=choices))


