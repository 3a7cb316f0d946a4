"""Drafts, held prompts, prefix caches, routers and wires on engines with smooth step times."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.engine import Cluster, EnginePool, KvTransfer, simulate, tokens_per_step
from serried.engine.speculation import decode_steps
from tests.engine.engines import engine, poisson_load, requests, step_time


def one(model, count=1, router="least_loaded"):
    return Cluster(serve=EnginePool(engine=model, count=count, router=router))


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
    assert (alone.last_token_ns_R[0] - 1_000_000) * 1e-9 == pytest.approx(1.001, rel=1e-3)   # after the prompt
    assert ((both.last_token_ns_R - 1_000_000) * 1e-9 == pytest.approx([2.001, 2.001], rel=1e-3))


def test_what_a_preempted_request_had_is_found_again_until_it_is_taken():
    """The same pushing out, with less to compute again; with nothing pushed out, nothing changes."""
    load = poisson_load(80, 60.0, 3)
    lost, kept = (simulate(load, one(engine(kv_blocks=60, max_sequences=16, prefix_caching=True,
                                            keeps_preempted=keeps))) for keeps in (False, True))
    assert lost.preemptions_R.sum() > 0
    assert kept.prefill_ns_E.sum() < lost.prefill_ns_E.sum()
    assert (kept.reason_R == 0).all()
    roomy = [simulate(load, one(engine(kv_blocks=10_000, keeps_preempted=keeps))) for keeps in (False, True)]
    assert (roomy[0].last_token_ns_R == roomy[1].last_token_ns_R).all()
