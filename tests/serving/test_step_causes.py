"""Single causes of a step or a wait: narrow weights without an engine, steps given ahead, loops that think."""

from dataclasses import replace

import numpy as np
import pytest

from serried.engine import simulate
from serried.evidence.serving import machine_of
from serried.serving import deployment
from serried.serving.cluster import PoolPlan, cluster_of
from serried.serving.profile import read_engine
from serried.serving.steps import step_times
from serried.traffic import Requests
from serried.workload import read_model


@pytest.fixture(scope="module")
def experts():
    """Seconds of the experts of a mixture in four bits on a chip without an engine for these, over tokens."""
    model, machine = read_model("openai/gpt-oss-120b"), machine_of("h100", 1, "vllm")
    narrow, wide = (step_times(model, machine, deployment(tp=1, weight_format=name))[0] for name in ("nvfp4", "bf16"))
    return model, machine, narrow, wide


def test_narrow_weights_are_still_read(experts):
    """One token reads four experts of each layer: 4 x 3 matrices of 2880 x 2880 half-bytes, and no faster than HBM."""
    model, machine, narrow, _ = experts
    bytes_read = 0.5 * model.layer_count * 4 * 3 * 2880 * 2880
    assert narrow.expert_s_T[0] > bytes_read / machine.chip.need("hbm_bandwidth")


def test_narrow_weights_save_time_and_never_make_a_jump(experts):
    """Twice the tokens never take much more than twice the time, and narrow weights are never slower."""
    _, _, narrow, wide = experts
    assert (narrow.expert_s_T <= wide.expert_s_T * (1 + 1e-9)).all()
    doubled = np.interp(2 * narrow.tokens_T, narrow.tokens_T, narrow.expert_s_T)
    assert (doubled <= 2.2 * narrow.expert_s_T)[narrow.tokens_T <= 8192].all()


def loop(think_ns, first_ns):
    count = len(think_ns)
    return Requests(arrival_ns_R=np.array(first_ns), input_tokens_R=np.full(count, 100), think_ns_R=np.array(think_ns),
                    output_tokens_R=np.full(count, 20), class_R=np.zeros(count, dtype=np.int64), in_flight=2)


@pytest.fixture(scope="module")
def cluster():
    return cluster_of(read_model("meta-llama/Llama-3.1-8B"), PoolPlan(
        machine=machine_of("h100", 1, "vllm"), row=deployment(), profile=read_engine("vllm")))


def test_a_loop_that_thinks(cluster):
    """The first wave comes when it says, each later request so long after the end of another."""
    log = simulate(loop([0, 0, 5_000_000, 7_000_000], [0, 1_000_000, 0, 0]), cluster)
    assert log.arrival_ns_R[:2].tolist() == [0, 1_000_000]
    ends = np.sort(log.last_token_ns_R[:2])
    assert log.arrival_ns_R[2:].tolist() == [ends[0] + 5_000_000, ends[1] + 7_000_000]


def test_steps_given_ahead_hold_a_new_request(cluster):
    """A request that comes while others decode is computed one step later when one was given ahead."""
    def waited(ahead):
        pool = cluster.serve
        settings = replace(pool.engine.settings, ahead_steps=ahead)
        chosen = replace(cluster, serve=replace(pool, engine=replace(pool.engine, settings=settings)))
        requests = replace(loop([0, 0], [0, 60_000_000]), output_tokens_R=np.array([200, 20]))
        log = simulate(requests, chosen)
        return int(log.scheduled_ns_R[1] - log.arrival_ns_R[1]), int(log.last_token_ns_R[0] - log.first_token_ns_R[0])
    (none, whole), (one, _) = waited(0), waited(1)
    step_ns = whole / 199
    assert 0 <= none < 1.2 * step_ns
    assert one - none == pytest.approx(step_ns, rel=0.2)
