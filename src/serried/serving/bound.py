"""The least that an engine can need for its traffic: true bounds, from conservation of engine time.

Whatever the order and the batches, each prompt token that is in no cache and each decode step is computed once, so
the passes of an engine hold so many tokens, and no fewer passes than the seats allow. The convex envelope of a table
over all batches that an engine can form is the least that a pass of so many tokens takes on average (Jensen), so a
tangent of it gives seconds per pass and seconds per token that hold for every subset of the requests.

Axes: R = request, X = knot of a table, C = context tokens, Q = tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.engine import EngineModel
from serried.serving.demand import Demand
from serried.workload.spec import Floats

__all__ = ["LeastTimes", "least_times"]

#: Ends of steps are rounded to whole nanoseconds; no pass is as short as 10,000 of them.
_ROUNDING = 1.0 - 1e-4
#: Lengths of prompts, evenly in ln, at which attention of decode steps is bounded.
_LENGTHS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastTimes:
    """Of one engine, s. prefill_s_R, decode_s_R: engine time that each request takes away from the others at least,
    whatever it shares passes with. shared_s: for blocks in several prompts, once. ttft_s_R, tpot_s_R: alone on the
    engine. refused_R: those that the engine can never hold, which take no time.
    """

    prefill_s_R: Floats
    decode_s_R: Floats
    shared_s: float
    ttft_s_R: Floats
    tpot_s_R: Floats
    refused_R: NDArray[np.bool_]


def least_times(engine: EngineModel, demand: Demand, *, prefills: bool = True, decodes: bool = True) -> LeastTimes:
    """Bounds for an engine that does all, or only prefills, or only decodes."""
    refused_R = _refused(engine, demand, decodes)
    here = ~refused_R
    steps_R = np.where(here, np.ceil(demand.later_R / (1 + len(engine.settings.acceptance))), 0.0) * decodes
    new_R = np.where(here, demand.new_R, 0.0) * prefills
    prefill_s_R, decode_s_R, token_s = _work(engine, demand, new_R, steps_R)
    caching = engine.settings.prefix_caching
    shared_s = token_s * demand.shared_tokens * prefills * caching * (not refused_R.any())
    return LeastTimes(
        prefill_s_R=prefill_s_R * _ROUNDING, decode_s_R=decode_s_R * _ROUNDING, shared_s=shared_s * _ROUNDING,
        ttft_s_R=_first_token_s(engine, demand) * _ROUNDING * prefills,
        tpot_s_R=_later_token_s(engine, demand) * _ROUNDING * decodes, refused_R=refused_R)


def _refused(engine: EngineModel, demand: Demand, decodes: bool) -> NDArray[np.bool_]:
    tokens_R = demand.input_R + (demand.later_R + 1.0) * decodes
    return np.asarray(np.ceil(tokens_R / engine.settings.block_tokens) > engine.kv_blocks)


def _work(engine: EngineModel, demand: Demand, new_R: Floats, steps_R: Floats) -> tuple[Floats, Floats, float]:
    """Engine seconds of prompts and of decode steps, over R, and seconds a token."""
    times, width, groups = engine.step_time, 1 + len(engine.settings.acceptance), engine.groups
    seats = -(-engine.settings.max_sequences // times.stages)
    passes, tokens = float(steps_R.sum()) / (groups * seats), float((new_R + width * steps_R).sum()) / groups
    x_X, y_X = _envelope(*_pass_s(engine, demand))
    per_pass_s, token_s = _tangent(x_X, y_X, tokens / passes if passes else np.inf)
    step_s = per_pass_s / (groups * seats) + (
        width * token_s + _least_ratio(times.sequences_B, times.head_s_B + times.draft_s_B, seats)) / groups
    context_R = demand.input_R + 0.5 * np.maximum(demand.later_R - width, 0.0)
    if groups > 1:   # a pass waits for the group with most sequences, whose contexts may be the shortest
        context_R = np.full(len(context_R), demand.input_R.min(initial=np.inf))
    decode_s_R = steps_R * (step_s + _decode_attention_s(engine, context_R, steps_R, seats) / groups)
    prefill_s_R = new_R * token_s / groups + np.where(new_R > 0, _prefill_attention_s(engine, demand), 0.0) / groups
    return prefill_s_R, decode_s_R, token_s / groups


def _pass_s(engine: EngineModel, demand: Demand) -> tuple[Floats, Floats]:
    """Tokens and least seconds of a pass of at least so many tokens in the mean of the groups, attention apart."""
    times = engine.step_time
    cap = _most_tokens(engine, demand)
    x_X = np.unique(np.append(times.tokens_T[times.tokens_T < cap], cap))
    host_s = 0.0 if engine.settings.asynchronous else times.host_s_per_step
    return x_X, _rising(x_X, times.tokens_T, times.dense_s_T) + _rising(x_X, times.tokens_T, times.expert_s_T) + host_s


def _rising(at_X: Floats, x_X: Floats, y_X: Floats) -> Floats:
    """The least of a table at `at_X` (ascending) or beyond."""
    return np.asarray(np.minimum.accumulate(np.interp(at_X, x_X, y_X)[::-1])[::-1])


def _most_tokens(engine: EngineModel, demand: Demand) -> float:
    """The most tokens that a pass can have: budget and padded decodes, or a whole prompt where none is cut."""
    settings = engine.settings
    width = 1 + len(settings.acceptance)
    cut = settings.token_budget if settings.chunked_prefill else max(settings.token_budget,
                                                                     demand.input_R.max(initial=1.0))
    return float(cut + settings.max_sequences * width)


def _envelope(x_X: Floats, y_X: Floats) -> tuple[Floats, Floats]:
    """Knots of the lower convex envelope of a piecewise linear function."""
    kept: list[int] = []
    for knot in range(len(x_X)):
        while len(kept) > 1 and (y_X[kept[-1]] - y_X[kept[-2]]) * (x_X[knot] - x_X[kept[-2]]) >= \
                (y_X[knot] - y_X[kept[-2]]) * (x_X[kept[-1]] - x_X[kept[-2]]):
            kept.pop()
        kept.append(knot)
    return x_X[kept], y_X[kept]


def _tangent(x_X: Floats, y_X: Floats, most: float) -> tuple[float, float]:
    """Seconds a pass (at least 0) and seconds a token whose line lies under the envelope and touches it at `most`
    tokens, or where a token costs least if that comes before."""
    best = int(np.argmin(y_X / x_X))
    if most >= x_X[best]:
        return 0.0, float(y_X[best] / x_X[best])
    right = max(int(np.searchsorted(x_X, most, side="right")), 1)
    slope = float((y_X[right] - y_X[right - 1]) / (x_X[right] - x_X[right - 1]))
    return float(y_X[right] - slope * x_X[right]), slope


def _least_ratio(x_X: Floats, y_X: Floats, cap: float) -> float:
    """Least seconds for one of up to `cap` together."""
    points = np.append(x_X[x_X < cap], cap)
    return float((np.interp(points, x_X, y_X) / points).min())


def _decode_attention_s(engine: EngineModel, context_R: Floats, steps_R: Floats, seats: int) -> float:
    """Least seconds of attention of one decode step at the mean context of all steps; 0 beyond the table."""
    times = engine.step_time
    if not steps_R.any() or context_R.min() < times.context_C[0] or context_R.max() > 0.5 * times.context_C[-1]:
        return 0.0
    each_C = np.array([_least_ratio(times.sequences_B, column, seats) for column in times.decode_attention_s_BC.T])
    x_C, y_C = _envelope(times.context_C, np.minimum.accumulate(each_C[::-1])[::-1])
    return float(np.interp(float((context_R * steps_R).sum() / steps_R.sum()), x_C, y_C))


def _prefill_attention_s(engine: EngineModel, demand: Demand) -> Floats:
    """Least seconds of attention of the tokens of a prompt that are new, over R; 0 beyond the table.

    A token at position p is in a chunk that ends at p or later, so it costs at least the least share of such a chunk.
    """
    times = engine.step_time
    cut = engine.settings.token_budget if engine.settings.chunked_prefill else demand.input_R.max(initial=1.0)
    if cut > times.query_Q[-1] or demand.input_R.max(initial=0.0) > times.context_C[-1]:
        return np.zeros(len(demand.new_R))
    each_C = (times.prefill_attention_s_QC / times.query_Q[:, None]).min(axis=0)
    x_C, y_C = _envelope(times.context_C, np.maximum(np.minimum.accumulate(each_C[::-1])[::-1], 0.0))
    area_C = np.concatenate([[0.0], np.cumsum(0.5 * (y_C[1:] + y_C[:-1]) * np.diff(x_C))])
    at = np.clip(np.searchsorted(x_C, [demand.input_R, demand.known_R], side="right") - 1, 0, len(x_C) - 2)
    position = np.maximum([demand.input_R, demand.known_R], x_C[0])
    rise = (y_C[at + 1] - y_C[at]) / (x_C[at + 1] - x_C[at])
    area = area_C[at] + (position - x_C[at]) * (y_C[at] + 0.5 * rise * (position - x_C[at]))
    return np.asarray(area[0] - area[1])


def _first_token_s(engine: EngineModel, demand: Demand) -> Floats:
    """A prompt's own passes, and the last one again on every further stage, over R."""
    times = engine.step_time
    x_X, y_X = _envelope(*_alone_s(engine, demand, engine.groups))
    ratio_X = np.minimum.accumulate(y_X / x_X)
    new_R = np.maximum(demand.new_R, 1.0)
    at = np.clip(np.searchsorted(x_X, new_R, side="right") - 1, 0, len(x_X) - 1)
    token_s_R = np.minimum(ratio_X[at], np.interp(new_R, x_X, y_X) / new_R)
    once_s = float(y_X[0]) * (times.stages - 1) + float(times.head_s_B.min())
    return np.asarray(new_R * token_s_R + _prefill_attention_s(engine, demand) + once_s)


def _alone_s(engine: EngineModel, demand: Demand, spread: int) -> tuple[Floats, Floats]:
    """As `_pass_s`, for the tokens of one group while the others may be empty: experts see one in `spread` of them."""
    times, cap = engine.step_time, _most_tokens(engine, demand)
    knots_T = np.append(times.tokens_T, times.tokens_T * spread)   # the experts' knots lie at their mean tokens
    x_X = np.unique(np.append(knots_T[knots_T < cap], cap))
    return x_X, _rising(x_X, times.tokens_T, times.dense_s_T) \
        + _rising(x_X / spread, times.tokens_T, times.expert_s_T)


def _later_token_s(engine: EngineModel, demand: Demand) -> Floats:
    """Decode steps of a sequence alone, over R. In a pipeline a step is a pass of every stage, of a share of the
    sequences that is one at least; experts are asked for the mean share."""
    times, width = engine.step_time, 1 + len(engine.settings.acceptance)
    x_X, y_X = _alone_s(engine, demand, engine.groups * times.stages)
    pass_s_R = np.interp(width, x_X, y_X) + float((times.head_s_B + times.draft_s_B).min()) \
        + _own_attention_s(engine, demand)
    host_s = times.host_s_per_step + times.host_s_per_sequence
    pass_s_R = np.maximum(pass_s_R, host_s) if engine.settings.asynchronous else pass_s_R + host_s
    steps_R = np.ceil(demand.later_R / width)
    return np.asarray(np.where(demand.later_R > 0,
                               steps_R * times.stages * pass_s_R / np.maximum(demand.later_R, 1.0), 0.0))


def _own_attention_s(engine: EngineModel, demand: Demand) -> Floats:
    """Least seconds of attention of a pass while a sequence decodes, over R: where others are with it, their mean
    context is at least its own over their number, which is up to `stages` times that of a pass."""
    times = engine.step_time
    least_BC = np.minimum.accumulate(times.decode_attention_s_BC[:, ::-1], axis=1)[:, ::-1]
    if engine.groups > 1:   # the contexts of another group may be what is waited for
        return np.full(len(demand.input_R), min(float(least_BC.min()), 0.0))
    least = demand.input_R.min(initial=np.inf)
    # rising, so each request takes the figure of the next shorter one of a few prompts
    length_X = np.geomspace(least, max(demand.input_R.max(initial=0.0), least), _LENGTHS) if len(demand.input_R) else \
        np.ones(1)
    found_X = np.full(len(length_X), np.inf)
    for low, high in zip(range(len(least_BC)), [*range(1, len(least_BC)), len(least_BC) - 1], strict=True):
        mean_X = np.maximum(length_X / (times.sequences_B[high] * times.stages), least)
        for row in (low, high):
            found_X = np.minimum(found_X, np.interp(mean_X, times.context_C, least_BC[row]))
    found_R = found_X[np.maximum(np.searchsorted(length_X, demand.input_R, side="right") - 1, 0)]
    return np.where(demand.input_R >= times.context_C[0], found_R, min(float(least_BC.min()), 0.0))
