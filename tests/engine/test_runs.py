"""What must hold of every run: hand-worked cases, conservation, scaling, queueing theory, seeds."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.engine import Cluster, EnginePool, KvTransfer, simulate, tokens_per_step
from serried.errors import BadInput
from tests.engine.tables import alone, engine, requests, step_time

_LOADS = st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 150), st.integers(1, 60)), min_size=1, max_size=20)
_WIRES = KvTransfer(bytes_per_token=100.0, bytes_per_request=0.0, send_bytes_per_s=1e9, receive_bytes_per_s=1e9,
                    total_bytes_per_s=1e9, latency_s=2e-6)


def _load(rows):
    return requests(np.cumsum([row[0] for row in rows]).tolist(), [row[1] for row in rows], [row[2] for row in rows])


def test_three_requests_by_hand():
    """A step takes 1,000 ns + 10 a token, and nothing else; two may run, 8 tokens a step.

    0: 6 tokens of A, 1,060. A's first token; B (10 tokens) and C wait, B begins beside A's decode with 7 of its tokens:
    8 tokens, 1,080, at 2,140. A's second and B's last 3: 4 tokens, 1,040, at 3,180: A has 3 tokens and ends, B its
    first. C (2 tokens) takes A's seat beside B's decode: 3 tokens, 1,030, at 4,210: B has 2 and ends, C its only one.
    """
    steps = step_time(base_ns=1_000, token_ns=10, context_ns=0, far_context_ns=0, prompt_ns=0)
    found = simulate(requests([0, 10, 20], [6, 10, 2], [3, 2, 1]),
                     alone(engine(max_sequences=2, token_budget=8, steps=steps)), seed=0)
    assert found.scheduled_ns_R.tolist() == [0, 1_060, 3_180]
    assert found.first_token_ns_R.tolist() == [1_060, 3_180, 4_210]
    assert found.last_token_ns_R.tolist() == [3_180, 4_210, 4_210]
    assert (found.busy_ns_E[0], found.steps_E[0], found.tokens_E[0], found.end_ns) == (4_210, 4, 18 + 3, 4_210)


def test_a_long_prompt_follows_itself_through_a_pipeline():
    """Ten full chunks and four stages: 10 + 3 passes, not 40."""
    steps = step_time(base_ns=1_000, token_ns=0, context_ns=0, far_context_ns=0, prompt_ns=0, stages=4)
    found = simulate(requests([0], [1_280], [1]), alone(engine(steps=steps)), seed=0)
    assert found.first_token_ns_R[0] == 13_000


def test_what_can_never_fit_is_refused():
    found = simulate(requests([0, 0, 0], [100, 129, 100], [29, 1, 30]), alone(engine(blocks=8)), seed=0)
    assert found.reason_R.tolist() == [0, 1, 1]
    assert (found.last_token_ns_R < 0).tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["single", "pools", "split", "drafts", "window", "waits"])
@settings(max_examples=25, deadline=None)
@given(rows=_LOADS)
def test_conservation(name, rows):
    """Every request gets exactly its tokens, in order; blocks stay within memory; engines are busy while they step."""
    cluster = {"single": alone(engine(blocks=20)), "pools": alone(engine(blocks=20), count=3),
               "split": Cluster(serve=EnginePool(engine=engine(blocks=20), count=2), transfer=_WIRES,
                                prefill=EnginePool(engine=engine(blocks=20), count=3)),
               "drafts": alone(engine(blocks=20, acceptance=(0.8, 0.5))),
               "window": alone(engine(blocks=20, window_tokens=64)),
               "waits": alone(engine(blocks=20, prefill_wait_steps=5, prefill_wait_ratio=0.5))}[name]
    load = _load(rows)
    found = simulate(load, cluster, seed=3, keep_spans=True)
    served = found.reason_R == 0
    assert (found.last_token_ns_R[served] >= 0).all()
    first, last = found.first_token_ns_R[served], found.last_token_ns_R[served]
    assert (found.arrival_ns_R <= np.where(served, found.scheduled_ns_R, found.arrival_ns_R)).all()
    assert (found.scheduled_ns_R[served] < first).all()
    assert (last >= first).all()
    assert ((last > first) == (load.output_tokens_R[served] > 1)).all()
    assert (found.peak_blocks_E <= 20).all()
    busy_ns = np.zeros(len(found.busy_ns_E), dtype=np.int64)
    for number, begin_ns, end_ns, _, _, _ in found.spans:
        busy_ns[number] += end_ns - begin_ns
    assert (busy_ns == found.busy_ns_E).all()
    if not found.preemptions_R.any() and name != "drafts":
        assert found.tokens_E.sum() == (load.input_tokens_R + load.output_tokens_R - 1)[served].sum()


@settings(max_examples=40, deadline=None)
@given(rows=_LOADS, scale=st.integers(2, 5), mixed=st.booleans())
def test_time_rescales(rows, scale, mixed):
    """All steps and arrivals so many times as long: all times so many times as long."""
    load, steps = _load(rows), step_time()
    slow = replace(steps, **{name: getattr(steps, name) * scale for name in (
        "dense_s_T", "expert_s_T", "head_s_B", "draft_s_B", "decode_attention_s_BC", "prefill_attention_s_QC")})
    found, stretched = (simulate(replace(load, arrival_ns_R=load.arrival_ns_R * factor), alone(
        engine(blocks=20, steps=times, mixed_steps=mixed)), seed=0) for factor, times in ((1, steps), (scale, slow)))
    for name in ("scheduled_ns_R", "first_token_ns_R", "last_token_ns_R"):
        once, later = getattr(found, name), getattr(stretched, name)
        assert (later == np.where(once < 0, -1, once * scale)).all()


@pytest.mark.parametrize("router", ["round_robin", "least_loaded", "prefix"])
def test_a_seed_is_an_answer(router):
    random = np.random.default_rng(5)
    load = requests(np.cumsum(random.integers(0, 20_000, 200)).tolist(), random.integers(1, 200, 200).tolist(),
                    random.integers(1, 80, 200).tolist())
    cluster = alone(engine(blocks=60, acceptance=(0.7, 0.4)), count=3, router=router)
    one, same, other = (simulate(load, cluster, seed=seed) for seed in (1, 1, 2))
    for column in fields(one):
        assert np.array_equal(getattr(one, column.name), getattr(same, column.name))
    assert not np.array_equal(one.last_token_ns_R, other.last_token_ns_R)


def test_one_at_a_time_waits_as_pollaczek_and_khinchine_say():
    """One seat, equal services: an M/D/1 queue, whose mean wait is load x service / (2 (1 - load))."""
    service_ns, load, count = 100_000, 0.7, 40_000
    steps = step_time(base_ns=service_ns, token_ns=0, context_ns=0, far_context_ns=0, prompt_ns=0)
    arrival_ns = np.cumsum(np.random.default_rng(11).exponential(service_ns / load, count)).astype(np.int64)
    found = simulate(requests(arrival_ns, [16] * count, [1] * count), alone(engine(max_sequences=1, steps=steps)),
                     seed=0)
    wait_ns = float((found.scheduled_ns_R - found.arrival_ns_R).mean())
    assert wait_ns == pytest.approx(load * service_ns / (2 * (1 - load)), rel=0.06)


def test_a_closed_loop_keeps_littles_law():
    """Requests in flight = throughput x time in the system, at every concurrency."""
    for in_flight in (1, 4, 16):
        found = simulate(requests([0] * 400, [60] * 400, [30] * 400, in_flight=in_flight), alone(engine()), seed=0)
        stay_ns = found.last_token_ns_R - found.arrival_ns_R
        assert stay_ns.sum() / found.end_ns == pytest.approx(in_flight, rel=0.05)
        assert (stay_ns > 0).all()


def test_a_closed_loop_begins_when_each_of_its_clients_does():
    found = simulate(requests([900, 100, 0], [10, 10, 10], [1, 1, 1], think_ns_R=[0, 0, 70], in_flight=2),
                     alone(engine()), seed=0)
    assert found.arrival_ns_R.tolist() == [900, 100, found.last_token_ns_R[1] + 70]


def test_sessions_think_branch_and_find_their_past():
    """The second turn comes a thought after the first; both that follow it find its whole blocks."""
    load = requests([0, 0, 0, 0], [40, 80, 130, 140], [10, 20, 5, 5], previous_R=[-1, 0, 1, 1],
                    think_ns_R=[0, 1_000, 50, 9_000_000])
    found = simulate(load, alone(engine(prefix_caching=True)), seed=0)
    assert found.arrival_ns_R.tolist()[1:3] == [found.last_token_ns_R[0] + 1_000, found.last_token_ns_R[1] + 50]
    assert found.arrival_ns_R[3] == found.last_token_ns_R[1] + 9_000_000
    assert found.cached_tokens_R.tolist() == [0, 48, 96, 96]   # of 49 and 99 tokens with a cache


def test_a_split_pool_by_hand():
    """Prefill 1,000 ns, 3,200 bytes at 1 byte/ns, 2,000 ns of latency, then two steps of 1,000. The first token comes
    with the cache."""
    steps = step_time(base_ns=1_000, token_ns=0, context_ns=0, far_context_ns=0, prompt_ns=0)
    pool = EnginePool(engine=engine(steps=steps), count=1)
    split = Cluster(serve=pool, prefill=pool, transfer=_WIRES)
    found = simulate(requests([0], [32], [3]), split, seed=0)
    assert (found.first_token_ns_R[0], found.last_token_ns_R[0]) == (6_200, 6_200 + 2_000)
    pair = simulate(requests([0, 0], [32, 32], [3, 3]), replace(split, prefill=replace(pool, count=2)), seed=0)
    assert pair.first_token_ns_R.tolist() == [1_000 + 6_400 + 2_000 + 1_000 * late for late in (0, 1)]
    assert pair.last_token_ns_R.tolist() == [1_000 + 6_400 + 2_000 + 2_000 + 1_000 * late for late in (0, 1)]


def test_a_first_token_waits_for_a_seat_where_it_is_decoded():
    """The second of two requests hears nothing until the first has left the only seat."""
    steps = step_time(base_ns=1_000, token_ns=0, context_ns=0, far_context_ns=0, prompt_ns=0)
    pool = EnginePool(engine=engine(steps=steps), count=2)
    split = Cluster(serve=EnginePool(engine=engine(steps=steps, max_sequences=1), count=1), prefill=pool,
                    transfer=_WIRES)
    found = simulate(requests([0, 0], [32, 32], [3, 3]), split, seed=0)
    assert found.first_token_ns_R[1] == found.last_token_ns_R[0]


def test_a_prefill_engine_gives_the_only_token_itself():
    steps = step_time(base_ns=1_000, token_ns=0, context_ns=0, far_context_ns=0, prompt_ns=0)
    pool = EnginePool(engine=engine(steps=steps), count=1)
    found = simulate(requests([0], [32], [1]), Cluster(serve=pool, prefill=pool, transfer=_WIRES), seed=0)
    assert (found.first_token_ns_R[0], found.last_token_ns_R[0]) == (1_000, 1_000)


def test_prefill_keeps_its_blocks_until_they_are_sent():
    """With room for one prompt, the second begins when the first has left."""
    pool = EnginePool(engine=engine(blocks=2, steps=step_time(base_ns=1_000, token_ns=0, prompt_ns=0)), count=1)
    found = simulate(requests([0, 0], [32, 32], [2, 2]), Cluster(
        serve=replace(pool, engine=engine(blocks=50)), prefill=pool, transfer=_WIRES), seed=0)
    assert found.scheduled_ns_R.tolist() == [0, 1_000 + 3_200]


def test_a_decode_pool_as_large_as_one_request_serves_one_after_the_other():
    """Prompts that fill their last block need another one for the first decode: nobody starves over it."""
    pool = EnginePool(engine=engine(blocks=3), count=1)
    found = simulate(requests([0] * 5, [32] * 5, [17] * 5), Cluster(serve=pool, prefill=pool, transfer=_WIRES), seed=0)
    assert (found.last_token_ns_R > 0).all()


def test_drafts_make_as_many_tokens_a_step_as_they_say():
    found = simulate(requests([0] * 16, [16] * 16, [2_000] * 16),
                     alone(engine(blocks=5_000, acceptance=(0.8, 0.5))), seed=0)
    assert found.steps_E[0] == pytest.approx(2_000 / tokens_per_step((0.8, 0.5)), rel=0.05)


def test_the_host_hides_behind_the_device():
    """Ahead of the device the host costs what it needs beyond it; between steps it costs all."""
    def step_ns(host_s, **settings):
        steps = step_time(base_ns=1_000, token_ns=0, context_ns=0, far_context_ns=0, prompt_ns=0,
                          host_s_per_step=host_s)
        found = simulate(requests([0], [1], [11]), alone(engine(steps=steps, **settings)), seed=0)
        return found.last_token_ns_R[0] / 11

    assert [step_ns(host_s) for host_s in (400e-9, 3_000e-9)] == [1_000, 3_000]
    assert step_ns(400e-9, asynchronous=False) == 1_400


def test_graphs_pad_batches_and_spare_launches():
    """Three sequences run as the captured four; five are beyond the graphs and launch every kernel."""
    steps = step_time(base_ns=0, token_ns=1_000, context_ns=0, far_context_ns=0, prompt_ns=0, launches=10.0,
                      host_s_per_launch=1e-6)
    for count, expected_ns in ((2, 2_000), (3, 4_000), (5, 10_000)):
        found = simulate(requests([0] * count, [1] * count, [200] * count),
                         alone(engine(steps=steps, capture_sizes=(1, 2, 4))), seed=0)
        steady_ns = (found.last_token_ns_R[0] - found.first_token_ns_R[-1]) / 198
        assert steady_ns == pytest.approx(expected_ns, rel=0.02)


def test_prompts_launch_kernel_by_kernel_where_only_decode_steps_are_captured():
    """Ten launches of 1 us, beside one token of 1 us."""
    steps = step_time(base_ns=0, token_ns=1_000, context_ns=0, far_context_ns=0, prompt_ns=0, launches=10.0,
                      host_s_per_launch=1e-6)
    for captured, expected_ns in ((True, 1_000), (False, 10_000)):
        found = simulate(requests([0], [1], [3]),
                         alone(engine(steps=steps, capture_sizes=(1, 2, 4), captures_prompts=captured)), seed=0)
        assert found.first_token_ns_R[0] == expected_ns
        assert found.last_token_ns_R[0] - found.first_token_ns_R[0] == 2 * 1_000


def test_evicted_blocks_come_back_from_the_host():
    """The second prompt drives three of the first one's blocks out, the last ones first; they come back at a price."""
    def play(host_blocks):
        model = engine(blocks=6, host_blocks=host_blocks, host_block_s=1e-3, prefix_caching=True)
        return simulate(requests([0, 10**8, 2 * 10**8], [65, 65, 65], [2, 2, 2], hash_block_tokens=16,
                                 block_start_R=[0, 4, 8, 12], block_hash_H=[1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4]),
                        alone(model), seed=0)

    assert play(0).cached_tokens_R.tolist() == [0, 0, 16]
    found = play(8)
    assert found.cached_tokens_R.tolist() == [0, 0, 64]
    assert found.brought_ns_E[0] == 3 * 10**6


def test_an_interruption_leaves_what_has_ended():
    def interrupt(ended, count):
        raise KeyboardInterrupt

    load = requests(list(range(0, 2_000_000, 1_000)), [10] * 2_000, [5] * 2_000)
    found = simulate(load, alone(engine()), seed=0, progress=interrupt)
    ended = found.last_token_ns_R >= 0
    assert 256 <= ended.sum() < 2_000
    assert (found.last_token_ns_R[ended] == simulate(load, alone(engine()), seed=0).last_token_ns_R[ended]).all()


@pytest.mark.parametrize(("field", "load", "cluster"), [
    ("arrival_ns_R", requests([5, 0], [1, 1], [1, 1]), alone(engine())),
    ("output_tokens_R", requests([0], [1], [0]), alone(engine())),
    ("previous_R", requests([0, 0], [1, 1], [1, 1], previous_R=[1, -1], think_ns_R=[0, 0]), alone(engine())),
    ("block_start_R", requests([0], [64], [1], hash_block_tokens=16, block_start_R=[0, 9], block_hash_H=[1]),
     alone(engine())),
    ("token_budget", requests([0], [1], [1]), alone(engine(token_budget=0))),
    ("router", requests([0], [1], [1]), alone(engine(), router="nearest")),
    ("transfer", requests([0], [1], [1]), Cluster(serve=EnginePool(engine=engine(), count=1), transfer=_WIRES))])
def test_bad_input_is_named(field, load, cluster):
    with pytest.raises(BadInput) as caught:
        simulate(load, cluster, seed=0)
    assert caught.value.field == field
