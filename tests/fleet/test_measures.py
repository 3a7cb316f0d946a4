"""Every rule of placement, worked out by hand on one or two nodes."""

from __future__ import annotations

import numpy as np
import pytest

from serried.fleet import Alternative, EventKind, Shape, State
from serried.fleet.assembly import fleet_of
from serried.fleet.demand import demands_of, feasible_NS
from serried.fleet.measures import BestFit, Clustering, DotProduct, Packing, Random, scramble
from serried.fleet.node_scores import NodeScores
from serried.fleet.policies import MEASURES
from tests.fleet.examples import gang, happen, on, share, small_fleet, submit

CPU_ONLY = Shape(alternatives=(Alternative(kinds=(0,), chips_per_worker=0),), cpu_milli=8000)


def two_nodes():
    """Node 0: 4 chips and 64 CPUs, of which a quarter chip and 16 CPUs are used. Node 1: 8 chips, 128 CPUs, idle."""
    fleet = fleet_of(kinds=["k"], kind_N=[0, 0], chip_count_N=[4, 8], cpu_milli_N=[64_000, 128_000],
                     memory_bytes_N=2**40)
    state = State(fleet)
    happen(state, EventKind.PLACE, submit(state, share(250, cpu_milli=16_000)), placement=on([0], 0b1))
    return fleet, state


def scores(measure, state, shapes):
    asked = demands_of(state.fleet, [(shape, 0) for shape in shapes])
    return measure.scores_NS(state.snapshot(), asked, np.arange(2, dtype=np.int32)).T.tolist()


def test_best_fit():
    """Half a chip and 8 CPUs: node 0 is left with 40 of 128 CPUs and 3.25 of 8 chips: 1 - (0.3125 + 0.40625) / 2."""
    fleet, state = two_nodes()
    asked = share(500, cpu_milli=8000)
    assert scores(BestFit(fleet), state, [asked, CPU_ONLY]) == [[64, 6], [60, 3]]


def test_dot_product():
    """Two chips and 32 CPUs: node 0 has 48/128 and 3.75/8 free; 1 - (0.25 x 0.375 + 0.25 x 0.46875) / 2 = 0.8945."""
    fleet, state = two_nodes()
    assert scores(DotProduct(fleet), state, [gang(1, 2, cpu_milli=32_000)]) == [[89, 75]]


def test_packing():
    """A half fits the used chip (0.75 free: 100 - 7); two whole chips break into two idle ones (50 - 2); an idle node
    gets 33 - 8. A whole chip is never shared; what asks for no chip scores nothing."""
    fleet, state = two_nodes()
    shapes = [share(500), gang(1, 2), gang(1, 1), share(800), CPU_ONLY]
    assert scores(Packing(fleet), state, shapes) == [[93, 25], [48, 25], [49, 25], [49, 25], [0, 0]]


def test_clustering():
    """Node 0 hosts shares only (tier 3; 4.25 of 8 chips are not free: 25 x 4.25 / 8 = 13); idle nodes are tier 1."""
    fleet, state = two_nodes()
    assert scores(Clustering(fleet), state, [share(500), gang(1, 1), CPU_ONLY]) == [[88, 25], [13, 25], [0, 0]]
    happen(state, EventKind.PLACE, submit(state, gang(1, 1)), placement=on([0], 0b10))
    assert scores(Clustering(fleet), state, [share(500), gang(1, 1)]) == [[66, 25], [66, 25]]


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "random"])
def test_one_node_alone_scores_as_among_others(name):
    fleet, state = two_nodes()
    shapes = [share(500), gang(1, 2), CPU_ONLY]
    measure = MEASURES[name](fleet, [state.jobs[0]], 1)
    asked = demands_of(fleet, [(shape, 0) for shape in shapes])
    both = measure.scores_NS(state.snapshot(), asked, np.arange(2, dtype=np.int32))
    for node in range(2):
        alone = measure.scores_NS(state.snapshot(), asked, np.array(node, dtype=np.int32))
        assert alone.tolist() == both[node].tolist()


def test_the_fullest_chip_that_fits_is_shared():
    fleet, state = two_nodes()
    happen(state, EventKind.PLACE, submit(state, share(600)), placement=on([0], 0b100))
    choose = BestFit(fleet).chips
    assert choose(state.snapshot(), 0, share(300), 0) == 0b100
    assert choose(state.snapshot(), 0, share(500), 0) == 0b1
    assert choose(state.snapshot(), 0, share(900), 0) == 0b10
    assert choose(state.snapshot(), 0, gang(1, 2), 0) == 0b1010


def test_random_is_uniform_over_what_fits_and_repeats_itself():
    fleet = fleet_of(kinds=["k"], kind_N=np.zeros(8, dtype=int), chip_count_N=np.ones(8, dtype=int))
    score_N = np.array([-1, 0, 0, -1, 0, -1, -1, 0])
    drawn = []
    state = State(fleet)
    for _ in range(4000):
        drawn.append(Random(7).pick(state.snapshot(), score_N))
        state.log.append(state.log[0] if state.log else None)   # only the version matters
    counts = np.bincount(drawn, minlength=8)
    assert counts[[0, 3, 5, 6]].sum() == 0
    assert counts[[1, 2, 4, 7]].min() > 880   # 1000 +- 27
    assert Random(7).pick(State(fleet).snapshot(), score_N) == drawn[0]
    assert Random(7).pick(State(fleet).snapshot(), np.full(8, -1)) == -1


def test_scramble_depends_on_every_word():
    assert len({scramble(seed, version, draw) for seed in range(5) for version in range(5) for draw in range(5)}) == 125
    assert 0 <= scramble(2**63, 2**40) < 2**64


def test_feasible_is_what_the_state_would_accept():
    fleet, state = two_nodes()
    shapes = [share(750), share(751), gang(1, 4), gang(1, 5), share(100, cpu_milli=49_000),
              share(100, memory_bytes=2**41), CPU_ONLY]
    fits = feasible_NS(demands_of(fleet, [(shape, 0) for shape in shapes]), fleet, state.columns,
                       np.arange(2, dtype=np.int32))
    assert fits.T.tolist() == [[True, True], [True, True], [False, True], [False, True], [False, True],
                               [False, False], [True, True]]
    happen(state, EventKind.DRAIN, nodes=(1,))
    fits = feasible_NS(demands_of(fleet, [(CPU_ONLY, 0)]), fleet, state.columns, np.arange(2, dtype=np.int32))
    assert fits[:, 0].tolist() == [True, False]


def test_remembered_scores_are_those_of_a_fresh_memory():
    fleet, state = two_nodes()
    measure, shapes = BestFit(fleet), [share(500), gang(1, 2), CPU_ONLY]
    kept = NodeScores(fleet, measure)
    for turn in range(30):
        shape = shapes[turn % 3]
        job = submit(state, shape)
        found, fresh = (memory.spot(state.snapshot(), shape, 0) for memory in (kept, NodeScores(fleet, measure)))
        assert (found is None) == (fresh is None)
        if found is not None:
            assert (found.node_R[0], found.chips_R[0]) == (fresh.node_R[0], fresh.chips_R[0])
            happen(state, EventKind.PLACE, job, placement=found)
        if turn % 7 == 6:
            happen(state, EventKind.FINISH, next(iter(state.running)))


@pytest.mark.parametrize("name", ["best-fit", "dot-product", "packing", "random"])
def test_nodes_that_stand_alike_score_alike(name):
    """Scores looked up by how a node stands are those that are taken afresh, whatever happens to it."""
    fleet = small_fleet(12, kinds=2)
    shapes = [share(500), share(200), *(gang(1, chips, kinds=kinds) for chips in (1, 3, 4) for kinds in ((0,), (0, 1)))]
    state, measure = State(fleet), MEASURES[name](fleet, (), 7)
    kept, random = NodeScores(fleet, measure), np.random.default_rng(3)
    kept.learn(state.snapshot(), shapes)
    for turn in range(300):
        what, node, shape = random.integers(8), int(random.integers(12)), shapes[random.integers(len(shapes))]
        if what < 4 and (found := kept.spot(state.snapshot(), shape, 0)) is not None:
            happen(state, EventKind.PLACE, submit(state, shape), placement=found)
        elif what == 4 and state.running:
            happen(state, EventKind.FINISH, next(iter(state.running)))
        elif what >= 5:
            kind = (EventKind.DRAIN, EventKind.OPEN, EventKind.FAIL, EventKind.REPAIR)[turn % 4]
            happen(state, kind, nodes=(node,), chips=1 << node % 4 if turn % 4 >= 2 and what == 5 else 0)
        fresh = NodeScores(fleet, measure)
        fresh.learn(state.snapshot(), shapes)
        kept.spot(state.snapshot(), shape, 0)   # it catches up when it is asked
        assert (kept._score_SN == fresh._score_SN).all()
