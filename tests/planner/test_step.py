from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.errors import BadInput
from serried.fabric import collective_time_s
from serried.planner import (
    TIME_CAUSES,
    assemble,
    concatenate_tables,
    estimate_training,
    kernel_table,
    layout_space,
    layouts_of,
)
from serried.planner.kernels import KernelBook, kernel_times, nodes_per_token, once_per_node_s
from serried.planner.space import layout_chunks
from serried.planner.spec import WORK
from serried.software import STACK_FACTS, STACK_PARAMETERS, perfect_stack, read_stack
from serried.workload import MlpSpec, model_flop
from tests.planner.cases import job, machine

PERFECT = {name: spec.perfect for name, spec in STACK_PARAMETERS.items()}
ROWS = [
    {"tp": 2, "pp": 2, "micro_batch": 2}, {"tp": 4, "sequence_parallel": True, "sharding": 1, "overlap_data": True},
    {"pp": 4, "virtual_stages": 2}, {"pp": 4, "schedule": "zero-bubble"}, {"sharding": 3, "overlap_data": True},
    {"cp": 2, "tp": 2, "recompute": "full"}, {"tp": 8, "pp": 2, "recompute": "selective", "overlap_tensor": True},
    {"number_format": "fp8", "sharding": 2, "recompute": "mlp"},
]


@pytest.fixture(scope="module")
def table():
    """The layouts on software that launches every kernel from the host."""
    eager = dataclasses.replace(perfect_stack(), facts={**STACK_FACTS, "overlap_pipeline": True})
    return kernel_table(job(), machine(stack=eager), layouts_of(ROWS))


def _stack(**values):
    return PERFECT | values


def test_causes_add_up_to_the_step(table):
    for stack in (PERFECT, read_stack("llm-foundry-fsdp", "hopper")):
        found = assemble(table, stack)
        assert set(found.time_by_cause_s) == set(TIME_CAUSES)
        assert sum(found.time_by_cause_s.values()) == pytest.approx(found.time_s)
        assert all((column >= 0).all() for column in found.time_by_cause_s.values())


def test_no_layout_beats_the_peak():
    space = layout_space(job(), machine(), number_format=["bf16"], micro_batch=[1, 4], sharding=[0, 3])
    found = estimate_training(job(), machine(), space)
    peak = machine().chip.matrix_peak_flop_per_s("bf16") * machine().chip_count
    assert (found.model_flop / found.time_s < peak).all()
    assert found.model_flop == model_flop(job())


@pytest.mark.parametrize(("parameter", "worse"), [
    ("gemm_rate_ratio", 0.5), ("attention_rate_ratio", 0.5), ("unfused_fraction", 1.0), ("host_s_per_operator", 1e-3),
    ("data_overlap", 0.0), ("tensor_overlap", 0.0), ("collective_rate_ratio", 0.5), ("jitter_per_doubling", 0.05)])
def test_a_worse_stack_is_never_faster(table, parameter, worse):
    good, bad = assemble(table, PERFECT).time_s, assemble(table, _stack(**{parameter: worse})).time_s
    assert (bad >= good * (1 - 1e-12)).all()
    assert (bad > good * (1 + 1e-6)).any()


def test_products_at_half_the_rate_take_twice_as_long(table):
    good, bad = (assemble(table, _stack(gemm_rate_ratio=ratio)).time_by_cause_s["gemm"] for ratio in (1.0, 0.5))
    assert bad == pytest.approx(2 * good)


@given(factor=st.floats(0.01, 100.0))
@settings(max_examples=20, deadline=None)
def test_seconds_scale_as_seconds(factor):
    table = kernel_table(job(), machine(), layouts_of(ROWS[:3]))
    seconds = set(WORK) - {"kernels", "fusible_kernels"}
    scale = np.array([factor if name in seconds else 1.0 for name in WORK])[None, None, :, None]
    scaled = dataclasses.replace(table, work_RPCL=table.work_RPCL * scale, behind_RCL=table.behind_RCL * scale[0], **{
        name: getattr(table, name) * factor for name in (
            "weight_gemm_s_RL", "gather_s_RL", "backward_gather_s_RL", "reduce_s_RL", "once_reduce_s_L",
            "once_gather_s_L", "optimizer_s_L", "send_s_L")})
    stack = _stack(host_s_per_operator=2e-6, unfused_fraction=0.5)
    later = stack | {"host_s_per_operator": 2e-6 * factor}
    assert assemble(scaled, later).time_s == pytest.approx(factor * assemble(table, stack).time_s)


def test_the_bubble_of_equal_stages_is_p_minus_1_over_m():
    """4 stages, 64/4/1... 16 chips: dp 4, 16 micro-batches: bubble / work = 3 / 16 when the ends weigh nothing."""
    light = job(vocab=64)
    found = estimate_training(light, machine(), layouts_of([{"pp": 4}]))
    causes = {name: float(column[0]) for name, column in found.time_by_cause_s.items()}
    working = sum(causes[name] for name in ("gemm", "attention", "memory_bound"))
    assert causes["pipeline_bubble"] / working == pytest.approx(3 / 16, rel=0.03)


def test_recompute_adds_a_forward():
    rows = layouts_of([{"recompute": "none"}, {"recompute": "full"}])
    found = estimate_training(job(vocab=64), machine(), rows)
    assert found.time_by_cause_s["recompute"][0] == 0
    compute = found.time_by_cause_s["gemm"][1] + found.time_by_cause_s["attention"][1]
    assert found.time_by_cause_s["recompute"][1] == pytest.approx(compute / 3, rel=0.15)


def test_tables_of_different_jobs_are_assembled_in_one_call():
    dense = kernel_table(job(), machine(), layouts_of(ROWS))
    mixed = kernel_table(job(experts=8), machine(), layouts_of([{"ep": 4, "tp": 2}, {"ep": 8}]))
    together = assemble(concatenate_tables([dense, mixed]), _stack(unfused_fraction=0.4)).time_s
    apart = [assemble(part, _stack(unfused_fraction=0.4)).time_s for part in (dense, mixed)]
    assert together == pytest.approx(np.concatenate(apart))


def test_parameters_may_be_columns(table):
    ratios = np.linspace(0.5, 1.0, len(table))
    found = assemble(table, PERFECT | {"gemm_rate_ratio": ratios}).time_s
    for row, ratio in enumerate(ratios):
        assert found[row] == pytest.approx(assemble(table, PERFECT | {"gemm_rate_ratio": ratio}).time_s[row])


def test_a_layout_estimated_alone_equals_itself_among_others():
    chunk = next(iter(layout_chunks(job(), machine(), choices={"number_format": ["bf16"]}, chunk_layouts=900)))
    together = estimate_training(job(), machine(), chunk).time_s
    for row in (0, len(chunk) // 2, len(chunk) - 1):
        alone = estimate_training(job(), machine(), chunk.take(np.array([row]))).time_s[0]
        assert alone == together[row]


def test_a_batch_twice_as_large_takes_less_than_twice_as_long():
    rows = layouts_of([{"pp": 4, "tp": 2, "sharding": 1}])
    one, two = (estimate_training(job(batch=batch), machine(), rows).time_s[0] for batch in (64, 128))
    assert one < two < 2 * one


EIGHT_OF_256 = MlpSpec(width=2048, gated=True, experts=256, experts_per_token=8)


def test_groups_of_experts_bound_the_nodes_that_a_token_needs():
    """Chances by hand: 8 groups, of which a token takes 4."""
    grouped = dataclasses.replace(EIGHT_OF_256, route_groups=8, groups_per_token=4)
    assert nodes_per_token(8.0, EIGHT_OF_256) == pytest.approx(8 * (1 - (7 / 8) ** 8))
    assert nodes_per_token(8.0, grouped) == pytest.approx(4 * (1 - 0.75 ** 8))
    # two groups a node: none chosen 15 of 70, one 40 of 70, both 15 of 70
    missed = (15 + 40 * 0.75 ** 8 + 15 * 0.5 ** 8) / 70
    assert nodes_per_token(4.0, grouped) == pytest.approx(4 * (1 - missed))
    assert nodes_per_token(16.0, grouped) == pytest.approx(8 * (1 - (7 / 8) ** 8))
    assert nodes_per_token(1.0, grouped) == pytest.approx(1.0)


def test_a_token_sent_once_a_node_travels_less():
    fabric = machine("h100:64").fabric
    payload, degree, stride = np.array([4e8]), np.array([32.0]), np.array([1.0])
    plain = collective_time_s("all_to_all", payload, degree, stride, fabric=fabric)
    once = once_per_node_s(payload, degree, stride, EIGHT_OF_256, fabric=fabric)
    # 4 nodes, 8 experts: 4 (1 - 0.75^8) = 3.6 copies instead of 8
    assert once[0] / plain[0] == pytest.approx(3.6 / 8, rel=0.25)
    inside = once_per_node_s(payload, np.array([8.0]), stride, EIGHT_OF_256, fabric=fabric)
    assert inside == pytest.approx(collective_time_s("all_to_all", payload, np.array([8.0]), stride, fabric=fabric))


def test_an_impossible_layout_is_refused_before_it_is_timed():
    with pytest.raises(BadInput, match="batch divides"):
        estimate_training(job(), machine(), layouts_of([{"micro_batch": 48}]))


def test_the_book_of_kernels_remembers_what_is_true():
    points = layouts_of([{"tp": tp, "micro_batch": micro_batch} for tp in (1, 2, 4) for micro_batch in (1, 2)])
    book, whole = KernelBook(job(), machine()), kernel_times(job(), machine(), points)
    for rows in ([4, 1], [0, 1, 5], [3, 2, 1, 0]):
        found = book.times(points.take(np.array(rows)))
        assert np.array_equal(found.work_RGCS, whole.work_RGCS[..., rows])
        assert np.array_equal(found.weight_gemm_s_RS, whole.weight_gemm_s_RS[:, rows])


def _on_stack(experts, facts, row, **values):
    stack = dataclasses.replace(perfect_stack(), facts={**STACK_FACTS, **facts},
                                parameters=dict(perfect_stack().parameters) | values)
    mixed = machine("h100:64", stack=stack)
    return assemble(kernel_table(job(experts=experts, batch=256), mixed, layouts_of([row])), mixed.stack)


def test_a_host_that_waits_for_the_counts_cannot_make_up_behind_the_experts():
    """Somewhere between a host that hides all and one that hides nothing the counts cost time, and never save any."""
    steps = [[_on_stack(16, {"synced_dispatch": synced, "grouped_kernel": False}, {"ep": 1}, host_s_per_operator=host_s)
              for synced in (True, False)] for host_s in np.geomspace(1e-6, 1e-3, 13)]
    later = np.array([waits.time_s[0] / ahead.time_s[0] for waits, ahead in steps])
    assert (later >= 1).all()
    assert later[0] == later[-1] == 1
    assert later.max() > 1.01
    dense = [_on_stack(0, {"synced_dispatch": synced}, {}, host_s_per_operator=1e-4).time_s[0]
             for synced in (True, False)]
    assert dense[0] == dense[1]


@pytest.mark.parametrize(("when", "within", "across"), [("never", False, False), ("across_nodes", False, True)])
def test_expert_traffic_hides_where_the_recipe_overlaps_it(when, within, across):
    for ep, hides in ((8, within), (16, across)):
        plain, overlapped = (_on_stack(16, {"overlap_expert": fact}, {"ep": ep}, tensor_overlap=1.0)
                             .time_by_cause_s["expert_exposed"][0] for fact in ("with_tensor", when))
        assert (overlapped < plain) == hides
