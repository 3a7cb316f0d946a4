"""Jumps against steps, laws of conservation, and examples worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.engine import Cluster, EnginePool, KvTransfer, simulate, tokens_per_step
from serried.engine.speculation import decode_steps
from tests.engine.engines import engine, poisson_load, requests, step_time
from tests.engine.reference import play


def one(model, count=1, router="least_loaded"):
    return Cluster(serve=EnginePool(engine=model, count=count, router=router))


def ttft_s(log):
    return (log.first_token_ns_R - log.arrival_ns_R) * 1e-9


def test_three_requests_by_hand():
    """Steps take 10 ms and nothing else. A arrives at 0 and is prefilled until 10; B arrives at 5 and is prefilled in
    the step from 10 to 20, beside A's second token; C waits from 12 for the step from 20 to 30."""
    flat = step_time(base_s=0.010, token_s=0.0, sequence_s=0.0, context_s=0.0, pair_s=0.0)
    log = simulate(requests([0.0, 0.005, 0.012], [10, 10, 10], [4, 2, 1]), one(engine(times=flat)))
    assert np.allclose(log.first_token_ns_R * 1e-6, [10, 20, 30], atol=1e-2)
    assert np.allclose(log.last_token_ns_R * 1e-6, [40, 30, 30], atol=1e-2)
    assert log.busy_ns_E[0] == pytest.approx(40e6, rel=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_jumps_and_steps_agree(seed):
    """The closed form of a run of steps against one step at a time, with memory tight enough to preempt."""
    random = np.random.default_rng(seed)
    model = engine(kv_blocks=int(random.choice([60, 90, 5000])), max_sequences=int(random.choice([4, 32])),
                   token_budget=int(random.choice([64, 512])), asynchronous=bool(random.integers(2)),
                   mixed_steps=bool(random.integers(2)), capture_sizes=(1, 2, 4, 8, 16) if random.integers(2) else (),
                   times=step_time(host_s=float(random.choice([0.0, 0.01])), launches=float(random.choice([0, 1200]))))
    load = poisson_load(60, float(random.choice([5.0, 40.0])), seed)
    log = simulate(load, one(model))
    first_ns, last_ns, preempted = play(load, model)
    assert np.abs(log.first_token_ns_R - first_ns).max() <= 1e4   # a nanosecond a step, over thousands of steps
    assert np.abs(log.last_token_ns_R - last_ns).max() <= 1e4
    assert (log.preemptions_R == preempted).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), blocks=st.integers(45, 300), groups=st.integers(1, 3), stages=st.integers(1, 3),
       count=st.integers(1, 3), hold=st.sampled_from([0, 5]))
def test_nobody_is_lost_and_nothing_is_overdrawn(seed, blocks, groups, stages, count, hold):
    model = engine(kv_blocks=blocks, groups=groups, times=step_time(stages=stages), max_sequences=16,
                   prefill_wait_steps=hold, prefill_wait_ratio=0.5)
    load = poisson_load(80, 30.0, seed)
    log = simulate(load, one(model, count))
    assert (log.reason_R == 0).all()
    assert (log.arrival_ns_R <= log.scheduled_ns_R).all()
    assert (log.scheduled_ns_R < log.first_token_ns_R).all()
    later = load.output_tokens_R > 1
    assert (log.first_token_ns_R[later] < log.last_token_ns_R[later]).all()
    assert log.peak_blocks_E.max() <= blocks
    assert (log.busy_ns_E <= log.end_ns).all()
    assert (log.prefill_ns_E <= log.busy_ns_E).all()


def test_a_request_that_can_never_fit_is_refused():
    log = simulate(requests([0.0, 0.0], [2000, 10], [10, 3]), one(engine(kv_blocks=50)))
    assert log.reason_R.tolist() == [1, 0]
    assert log.last_token_ns_R[0] == -1


def test_same_seed_same_answer():
    load, model = poisson_load(200, 20.0, 3), engine(acceptance=(0.8, 0.5))
    first, again = (simulate(load, one(model, 2), seed=5) for _ in range(2))
    for name in first.__slots__:
        assert np.array_equal(getattr(first, name), getattr(again, name))
    other = simulate(load, one(model, 2), seed=6)
    assert not np.array_equal(first.last_token_ns_R, other.last_token_ns_R)


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_time_has_one_unit(scale):
    load = poisson_load(60, 20.0, 1)
    slower = requests(load.arrival_ns_R * 1e-9 * scale, load.input_tokens_R, load.output_tokens_R)
    plain, scaled = (simulate(one_load, one(engine(times=step_time(scale=factor))))
                     for one_load, factor in ((load, 1.0), (slower, scale)))
    assert np.allclose(scaled.last_token_ns_R, plain.last_token_ns_R * scale, rtol=1e-6)


def test_one_at_a_time_is_a_queue_with_even_service():
    """One seat, one token: service is constant, so the mean wait is Pollaczek and Khinchine's for M/D/1."""
    flat = step_time(base_s=0.010, token_s=0.0, sequence_s=0.0, context_s=0.0, pair_s=0.0)
    random = np.random.default_rng(0)
    count, rate = 40_000, 70.0
    load = requests(np.cumsum(random.exponential(1 / rate, count)), np.full(count, 10), np.full(count, 1))
    log = simulate(load, one(engine(times=flat, max_sequences=1)))
    busy = rate * 0.010
    assert ttft_s(log).mean() == pytest.approx(0.010 * (1 + busy / (2 * (1 - busy))), rel=0.05)


def test_a_closed_loop_keeps_littles_law():
    count, in_flight = 600, 24
    load = requests(np.zeros(count), np.full(count, 100), np.full(count, 50), in_flight=in_flight)
    log = simulate(load, one(engine()))
    inside_s = (log.last_token_ns_R - log.arrival_ns_R).sum() * 1e-9
    assert inside_s / (log.end_ns * 1e-9) == pytest.approx(in_flight, rel=0.05)
    ends = np.sort(log.last_token_ns_R)
    assert np.array_equal(np.sort(log.arrival_ns_R)[in_flight:], ends[:count - in_flight])


def test_drafts_save_steps_and_never_tokens():
    load = requests([0.0], [100], [61])
    steps = [int(simulate(load, one(engine(acceptance=chances))).steps_E[0])
             for chances in ((), (0.0,), (1.0,), (1.0, 1.0))]
    assert steps == [61, 61, 31, 21]   # one prefill, then 60 tokens at 1, 1, 2 and 3 a step


def test_accepted_drafts_have_the_mean_of_their_chances():
    chances = (0.8, 0.5, 0.25)
    steps = decode_steps(np.full(4000, 400), chances, 1)
    assert 400 / steps.mean() == pytest.approx(tokens_per_step(chances), rel=0.01)
    assert tokens_per_step(chances) == pytest.approx(1 + 0.8 + 0.4 + 0.1)


def test_held_prompts_go_together():
    flat = step_time(base_s=0.010, token_s=0.0, sequence_s=0.0, context_s=0.0, pair_s=0.0)
    load = requests([0.0, 0.05, 0.09], [10, 10, 10], [100, 2, 2])
    log = simulate(load, one(engine(times=flat, prefill_wait_steps=10, prefill_wait_ratio=1.0)))
    assert log.first_token_ns_R[1] == log.first_token_ns_R[2]
    assert (log.first_token_ns_R[1] - log.arrival_ns_R[1]) * 1e-9 == pytest.approx(0.11, abs=0.011)


def hashed(prompts, *, gap_s=1.0, output=5):
    """Requests whose prompts are listed by the hashes of blocks of 32 tokens."""
    flat = [unit for prompt in prompts for unit in prompt]
    return requests(np.arange(len(prompts)) * gap_s, [32 * len(prompt) + 5 for prompt in prompts],
                    [output] * len(prompts), hash_block_tokens=32, block_hash_H=np.array(flat),
                    block_start_R=np.concatenate([[0], np.cumsum([len(prompt) for prompt in prompts])]))


def test_a_prompt_is_found_again_from_its_beginning():
    log = simulate(hashed([[1, 2, 3], [1, 2, 4], [5, 2, 3], [1, 2, 3]]), one(engine()))
    assert log.cached_tokens_R.tolist() == [0, 64, 0, 96]
    assert simulate(hashed([[1, 2], [1, 2]]), one(engine(prefix_caching=False))).cached_tokens_R.tolist() == [0, 0]


def test_a_whole_prompt_in_the_cache_still_computes_a_token():
    load = hashed([[1, 2], [1, 2]])
    load = requests(load.arrival_ns_R * 1e-9, [64, 64], [3, 3], hash_block_tokens=32,
                    block_hash_H=load.block_hash_H, block_start_R=load.block_start_R)
    assert simulate(load, one(engine())).cached_tokens_R.tolist() == [0, 32]


def test_the_cache_is_least_recently_used():
    """Against a plain list of units of two blocks each, longest unused first; a prompt has three and a last block."""
    random = np.random.default_rng(4)
    wanted = [[10 * kind, 10 * kind + 1, 10 * kind + 2] for kind in random.integers(0, 6, 80).tolist()]
    log = simulate(hashed(wanted, output=2), one(engine(kv_blocks=27)))
    idle, found = [], []
    for prompt in wanted:
        hit = next((place for place, unit in enumerate(prompt) if unit not in idle), 3)
        found.append(32 * hit)
        idle = [unit for unit in idle if unit not in prompt[:hit]]
        while 7 + 2 * len(idle) > 27:
            idle.pop(0)
        idle = [unit for unit in idle if unit not in prompt] + prompt[::-1]   # its end is the first to go
    assert log.cached_tokens_R.tolist() == found
    assert log.evicted_blocks_E[0] > 0


def test_what_was_evicted_comes_back_from_the_host():
    load = hashed([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 2, 3]], output=2)
    tight = simulate(load, one(engine(kv_blocks=14)))
    tiered = simulate(load, one(engine(kv_blocks=14, host_blocks=100)))
    assert tight.cached_tokens_R[3] == 0
    assert tiered.cached_tokens_R[3] == 96
    assert tiered.brought_ns_E[0] > 0


def test_turns_of_a_session_follow_and_find_their_past():
    load = requests([0.0, 0.0, 0.0], [50, 120, 200], [20, 30, 10], previous_R=np.array([-1, 0, 1]),
                    think_ns_R=np.array([0, 10**9, 0]))
    log = simulate(load, one(engine()))
    assert log.arrival_ns_R[1] == log.last_token_ns_R[0] + 10**9
    assert log.arrival_ns_R[2] == log.last_token_ns_R[1]
    assert log.cached_tokens_R[0] == 0
    assert 64 <= log.cached_tokens_R[1] <= 80
    assert 112 <= log.cached_tokens_R[2] <= 160


@pytest.mark.parametrize("router", ["round_robin", "least_loaded", "prefix"])
def test_routers_use_every_engine(router):
    log = simulate(poisson_load(200, 60.0, 5), one(engine(), 4, router))
    assert set(log.engine_R.tolist()) == {0, 1, 2, 3}


def test_the_prefix_router_sends_a_prompt_to_its_past():
    load = hashed([[1, 2, 3], [4, 5, 6]] * 10)
    by_prefix, round_robin = (simulate(load, one(engine(), 3, router)) for router in ("prefix", "round_robin"))
    assert by_prefix.cached_tokens_R.sum() == 18 * 96
    assert round_robin.cached_tokens_R.sum() < by_prefix.cached_tokens_R.sum()


WIRES = KvTransfer(bytes_per_token=1e5, bytes_per_request=0.0, send_bytes_per_s=1e10, receive_bytes_per_s=1e10,
                   total_bytes_per_s=1e11, latency_s=1e-3)


def test_prefill_and_decode_apart():
    load = poisson_load(150, 20.0, 6)
    model = engine()
    log = simulate(load, Cluster(serve=EnginePool(engine=model, count=2),
                                 prefill=EnginePool(engine=model, count=2), transfer=WIRES))
    assert (log.reason_R == 0).all()
    later = load.output_tokens_R > 1
    sent_s = 1e-3 + load.input_tokens_R * 1e5 / 1e10
    gap_s = (log.last_token_ns_R - log.first_token_ns_R) * 1e-9
    assert (gap_s[later] >= sent_s[later]).all()
    assert set(log.engine_R[later].tolist()) <= {2, 3}
    together = simulate(load, one(model, 4))
    tpot = [np.median((one_log.last_token_ns_R - one_log.first_token_ns_R)[later] / (load.output_tokens_R - 1)[later])
            for one_log in (log, together)]
    assert tpot[0] < 1.2 * tpot[1]


def test_transfers_share_a_wire_fairly():
    """Two caches of the same size set out together through one sender: each takes twice as long as alone."""
    flat = step_time(base_s=0.001, token_s=0.0, sequence_s=0.0, context_s=0.0, pair_s=0.0)
    slow = KvTransfer(bytes_per_token=1e7, bytes_per_request=0.0, send_bytes_per_s=1e9, receive_bytes_per_s=1e10,
                      total_bytes_per_s=1e11, latency_s=0.0)
    pools = {"serve": EnginePool(engine=engine(times=flat), count=1),
             "prefill": EnginePool(engine=engine(times=flat), count=1), "transfer": slow}
    alone = simulate(requests([0.0], [100], [2]), Cluster(**pools))
    both = simulate(requests([0.0, 0.0], [100, 100], [2, 2]), Cluster(**pools))
    assert (alone.last_token_ns_R[0] - alone.first_token_ns_R[0]) * 1e-9 == pytest.approx(1.001, rel=1e-3)
    assert ((both.last_token_ns_R - both.first_token_ns_R) * 1e-9 == pytest.approx([2.001, 2.001], rel=1e-3))


def test_an_interrupt_keeps_what_has_ended():
    def stop(done, total):
        raise KeyboardInterrupt
    log = simulate(poisson_load(2000, 20.0, 7), one(engine()), progress=stop)
    assert 0 < (log.last_token_ns_R >= 0).sum() < 2000
