"""One step as a timeline: every stage's turns in the order of its schedule, played out event by event.

This is the schedule simulated rather than summed up, so it also checks the closed forms of `schedule.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serried.planner.spec import STAGES, Layouts, TrainingEstimate

__all__ = ["Span", "Turn", "order_of_turns", "play", "timeline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One block of a timeline. stage: pipeline rank; stream: "compute" or "network"; cause: what it is for."""

    stage: int
    stream: str
    name: str
    cause: str
    start_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a stage: forward or backward of a micro-batch through one of its chunks."""

    forward: bool
    micro_batch: int
    chunk: int


def timeline(estimate: TrainingEstimate, layouts: Layouts, row: int) -> list[Span]:
    """The step of layout `row`: a span per turn, transfer, gather, reduction and optimizer, per stage and stream.

    Stage times are those of the estimate's first, middle and last stage; with v chunks a turn takes a v-th of them.
    Jitter stretches the step at its end.
    """
    assert estimate.step is not None, "an estimate of layouts carries its stage times"
    step, stages = estimate.step, int(layouts.pp[row])
    kinds = [0 if stage == 0 else len(STAGES) - 1 if stage == stages - 1 else 1 for stage in range(stages)]
    forward_s, backward_s, weight_s = ([float(times[kind, row]) for kind in kinds] for times in (
        step.stage_forward_s_KL, step.stage_backward_s_KL, step.stage_weight_s_KL))
    micro_batches, chunks = round(float(step.micro_batches_L[row])), int(layouts.virtual_stages[row])
    causes = {cause: float(column[row]) for cause, column in estimate.time_by_cause_s.items()}
    send_s = causes["pipeline_exposed"] / max(2 * micro_batches * chunks + 2 * (stages - 1), 1)
    zero_bubble = str(layouts.row(row)["schedule"]) == "zero-bubble"
    spans = play(forward_s, backward_s, [each if zero_bubble else 0.0 for each in weight_s], send_s=send_s,
                 micro_batches=micro_batches, chunks=chunks)
    end_s = max(span.start_s + span.duration_s for span in spans)
    tail = (("network", "gradients and parameters", "data_exposed"), ("compute", "optimizer", "optimizer"),
            ("compute", "jitter", "jitter"))
    once_s = {"data_exposed": max(0.0, float(estimate.time_s[row]) - end_s - causes["optimizer"] - causes["jitter"])}
    for stream, name, cause in tail:
        duration_s = once_s.get(cause, causes[cause])
        spans += [Span(stage=stage, stream=stream, name=name, cause=cause, start_s=end_s, duration_s=duration_s)
                  for stage in range(stages) if duration_s > 0]
        end_s += duration_s
    return spans


def order_of_turns(stage: int, *, stages: int, micro_batches: int, chunks: int) -> list[Turn]:
    """The turns of one stage in 1F1B order; with chunks interleaved by `stages` (Narayanan et al. 2021)."""
    total, group = micro_batches * chunks, stages * chunks
    ahead = min(total, stages - stage - 1 if chunks == 1 else 2 * (stages - stage - 1) + (chunks - 1) * stages)

    def turn(position: int, *, forward: bool) -> Turn:
        if chunks == 1:
            return Turn(forward, position, 0)
        chunk = position % group // stages
        return Turn(forward, position // group * stages + position % stages, chunk if forward else chunks - 1 - chunk)

    turns = [turn(position, forward=True) for position in range(ahead)]
    for position in range(total):
        if position + ahead < total:
            turns.append(turn(position + ahead, forward=True))
        turns.append(turn(position, forward=False))
    return turns


def play(forward_s: Sequence[float], backward_s: Sequence[float], weight_s: Sequence[float], *, send_s: float,
         micro_batches: int, chunks: int) -> list[Span]:
    """Start and length of every turn. A stage takes its turns in order and waits for what the turn needs.

    weight_s > 0: that part of backward may wait; a stage runs it where it would be idle, and the rest at the end.
    Raises AssertionError when the order can never be played (our fault).
    """
    stages = len(forward_s)
    waiting = [order_of_turns(stage, stages=stages, micro_batches=micro_batches, chunks=chunks)[::-1]
               for stage in range(stages)]
    free_s, owed_s = [0.0] * stages, [0.0] * stages
    done_s: dict[tuple[int, Turn], float] = {}
    spans: list[Span] = []
    while any(waiting):
        moved = False
        for stage in range(stages):
            while waiting[stage]:
                turn = waiting[stage][-1]
                ready_s = _ready_s(stage, turn, done_s, stages=stages, chunks=chunks, send_s=send_s)
                if ready_s is None:
                    break
                owed_s[stage] -= _fill(spans, stage, free_s, min(owed_s[stage], max(0.0, ready_s - free_s[stage])))
                start_s = max(free_s[stage], ready_s)
                own_s = (forward_s if turn.forward else backward_s)[stage] / chunks
                later_s = 0.0 if turn.forward else weight_s[stage] / chunks
                spans.append(_turn_span(stage, turn, start_s, own_s - later_s))
                owed_s[stage] += later_s
                free_s[stage] = done_s[stage, turn] = start_s + own_s - later_s
                spans += _transfer(stage, turn, free_s[stage], send_s, stages=stages, chunks=chunks)
                waiting[stage].pop()
                moved = True
        assert moved, "the schedule waits for itself"
    for stage in range(stages):
        _fill(spans, stage, free_s, owed_s[stage])
    return spans


def _ready_s(stage: int, turn: Turn, done_s: dict[tuple[int, Turn], float], *, stages: int, chunks: int,
             send_s: float) -> float | None:
    """When what the turn needs has arrived; None when it is not yet known."""
    source = _source(stage, turn, stages=stages, chunks=chunks)
    if source is None:
        return 0.0
    done = done_s.get(source)
    return None if done is None else done + (send_s if source[0] != stage else 0.0)


def _source(stage: int, turn: Turn, *, stages: int, chunks: int) -> tuple[int, Turn] | None:
    """The turn, and its stage, whose result this turn works on."""
    if turn.forward:
        if stage > 0:
            return stage - 1, turn
        return None if turn.chunk == 0 else (stages - 1, Turn(True, turn.micro_batch, turn.chunk - 1))
    if stage < stages - 1:
        return stage + 1, turn
    if turn.chunk < chunks - 1:
        return 0, Turn(False, turn.micro_batch, turn.chunk + 1)
    return stage, Turn(True, turn.micro_batch, turn.chunk)


def _fill(spans: list[Span], stage: int, free_s: list[float], duration_s: float) -> float:
    """Run owed weight gradients for `duration_s` from where the stage is free; returns how much was run."""
    if duration_s > 0:
        spans.append(Span(stage=stage, stream="compute", name="weight gradients", cause="weight gradient",
                          start_s=free_s[stage], duration_s=duration_s))
        free_s[stage] += duration_s
    return duration_s


def _turn_span(stage: int, turn: Turn, start_s: float, duration_s: float) -> Span:
    words = f"{'F' if turn.forward else 'B'}{turn.micro_batch}" + (f" chunk {turn.chunk}" if turn.chunk else "")
    return Span(stage=stage, stream="compute", name=words, cause="forward" if turn.forward else "backward",
                start_s=start_s, duration_s=duration_s)


def _transfer(stage: int, turn: Turn, start_s: float, send_s: float, *, stages: int, chunks: int) -> list[Span]:
    """The result on its way to the next stage, when there is one and the wire is seen."""
    last_forward = stage == stages - 1 and turn.chunk == chunks - 1
    last_backward = stage == 0 and turn.chunk == 0
    if send_s <= 0 or stages == 1 or (last_forward if turn.forward else last_backward):
        return []
    name = f"{'activations' if turn.forward else 'gradients'} {turn.micro_batch}"
    return [Span(stage=stage, stream="network", name=name, cause="send", start_s=start_s, duration_s=send_s)]
