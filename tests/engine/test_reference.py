"""Runs of steps equal single steps, to the nanosecond."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.engine import simulate
from tests.engine.reference import Reference
from tests.engine.tables import alone, engine, requests, step_time

_LOADS = st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 150), st.integers(1, 60)), min_size=1, max_size=14)


def _compare(model, load, *, unit_tokens=0, units=None):
    arrival_ns = np.cumsum([gap for gap, _, _ in load]).tolist()
    inputs, outputs = [row[1] for row in load], [row[2] for row in load]
    more = {}
    if units is not None:
        more = {"block_hash_H": [unit for row in units for unit in row], "hash_block_tokens": unit_tokens,
                "block_start_R": [0, *np.cumsum([len(row) for row in units]).tolist()]}
    found = simulate(requests(arrival_ns, inputs, outputs, **more), alone(model), seed=0)
    fits = [-(-(tokens + output - 1) // model.settings.block_tokens) <= model.kv_blocks
            for tokens, output in zip(inputs, outputs, strict=True)]
    assert (found.reason_R == [0 if fit else 1 for fit in fits]).all()
    rows = [(arrival_ns[n], inputs[n], outputs[n], () if units is None else tuple(units[n]))
            for n in range(len(load)) if fits[n]]
    truth = Reference(model, rows, max(unit_tokens // model.settings.block_tokens, 1))
    served = np.array(fits)
    for name, column in (("first_ns", found.first_token_ns_R), ("last_ns", found.last_token_ns_R),
                         ("scheduled_ns", found.scheduled_ns_R), ("preemptions", found.preemptions_R),
                         ("cached", found.cached_tokens_R)):
        assert column[served].tolist() == [getattr(one, name) for one in truth.ones], name
    assert (found.busy_ns_E[0], found.steps_E[0]) == (truth.busy_ns, truth.steps)
    assert found.evicted_blocks_E[0] == sum(memory.evicted for memory in truth.memory)
    assert found.peak_blocks_E[0] == max(memory.peak for memory in truth.memory)
    return found


@settings(max_examples=100, deadline=None)
@given(load=_LOADS, blocks=st.integers(8, 40), budget=st.integers(16, 160), seats=st.integers(1, 8),
       block=st.sampled_from([1, 4, 16]), mixed=st.booleans(), chunked=st.booleans(), groups=st.integers(1, 3),
       far_ns=st.integers(0, 3))
def test_random_engines(load, blocks, budget, seats, block, mixed, chunked, groups, far_ns):
    model = engine(blocks=blocks * 16 // block, groups=groups, max_sequences=seats, token_budget=budget,
                   block_tokens=block, mixed_steps=mixed, chunked_prefill=chunked,
                   steps=step_time(expert_ns=1, head_ns=7, far_context_ns=far_ns))
    _compare(model, load)


@settings(max_examples=60, deadline=None)
@given(load=_LOADS, blocks=st.integers(12, 60), seats=st.integers(1, 16), asynchronous=st.booleans(),
       host_us=st.sampled_from([0, 2, 6]), launches=st.sampled_from([0, 9]), mixed=st.booleans(),
       sizes=st.sampled_from([(), (1, 2, 4), (1, 2, 4, 8, 16)]), prompts=st.booleans())
def test_random_hosts_and_graphs(load, blocks, seats, asynchronous, host_us, launches, mixed, sizes, prompts):
    steps = step_time(host_s_per_step=host_us * 1e-6, host_s_per_sequence=1e-7, launches=launches,
                      host_s_per_launch=1e-6)
    _compare(engine(blocks=blocks, max_sequences=seats, asynchronous=asynchronous, capture_sizes=sizes,
                    captures_prompts=prompts, mixed_steps=mixed, steps=steps), load)


@settings(max_examples=50, deadline=None)
@given(load=_LOADS, stages=st.integers(2, 4), budget=st.integers(16, 100), blocks=st.integers(10, 60))
def test_random_pipelines(load, stages, budget, blocks):
    """Attention is free of the context here: shares of sequences would not be whole nanoseconds."""
    steps = step_time(expert_ns=1, head_ns=7, context_ns=0, far_context_ns=0, stages=stages)
    _compare(engine(blocks=blocks, token_budget=budget, steps=steps), load)


@st.composite
def _shared_prompts(draw):
    """Requests that begin with parts of a few documents of 16-token blocks, and go on by themselves."""
    load, units = [], []
    for number in range(draw(st.integers(1, 14))):
        document, shared = draw(st.integers(0, 2)), draw(st.integers(0, 6))
        own = draw(st.integers(1, 60))
        load.append((draw(st.integers(0, 60_000)), 16 * shared + own, draw(st.integers(1, 40))))
        units.append([100 * document + at for at in range(shared)]
                     + [10_000 + 100 * number + at for at in range(own // 16)])
    return load, units


@settings(max_examples=100, deadline=None)
@given(case=_shared_prompts(), blocks=st.integers(12, 40), budget=st.integers(16, 160), seats=st.integers(1, 6),
       mixed=st.booleans())
def test_random_prefix_caches(case, blocks, budget, seats, mixed):
    load, units = case
    model = engine(blocks=blocks, token_budget=budget, max_sequences=seats, mixed_steps=mixed, prefix_caching=True)
    _compare(model, load, unit_tokens=16, units=units)


def test_tight_memory_does_preempt():
    """The comparison above is worth something: here every kind of trouble happens."""
    load = [(1_000, 30, 60)] * 10
    found = _compare(engine(blocks=14, max_sequences=8), load)
    assert found.preemptions_R.sum() > 3
    assert found.peak_blocks_E[0] == 14
