"""The search of deployments for a load in time."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.errors import BadInput, NoAnswer
from serried.serving import workers
from serried.serving.candidates import Space, candidates_of, engines_of
from serried.serving.pareto import pareto_front
from serried.serving.traffic_search import search_traffic
from tests.serving.search_cases import load, question


def _told(found):
    """As text, for what is unknown (not a number) equals itself there."""
    return [repr((trial.chips, trial.feasible, trial.on_front, dict(trial.figures),
             [(plan.row.row(0), plan.profile.settings) for plan in trial.plans])) for trial in (*found.best,
                                                                                               *found.others)]


def test_the_best_keeps_the_objectives_and_uses_few_chips():
    found = search_traffic(question(), top=4)
    assert all(trial.feasible and trial.figures["attainment"] >= 0.9 for trial in found.best)
    rates = [trial.figures["goodput_tokens_per_s_per_chip"] for trial in found.best]
    assert rates == sorted(rates, reverse=True)
    assert found.best[0].chips == 1   # 4 requests/s of an 8B model need no more
    assert found.simulated <= found.glimpsed < found.candidates
    assert any(trial.on_front for trial in found.best)


def test_the_answer_is_the_same_for_any_workers_and_twice():
    ask = question()
    one = search_traffic(ask, top=3)
    assert _told(search_traffic(ask, top=3)) == _told(one)
    assert _told(search_traffic(ask, top=3, workers=2)) == _told(one)


def test_the_ray_path_is_the_same_search(monkeypatch):
    """A stand-in for Ray: what the search asks of it is put, remote, get."""
    class Ray:
        is_initialized = staticmethod(lambda: True)
        put = staticmethod(lambda value: value)
        get = staticmethod(list)

        @staticmethod
        def remote(function):
            return type("Remote", (), {"remote": staticmethod(function)})
    monkeypatch.setattr(workers.importlib, "import_module", lambda name: Ray)
    ask = question()
    assert _told(search_traffic(ask, top=3, engine="ray")) == _told(search_traffic(ask, top=3))


def test_real_ray_gives_the_same_answer():
    pytest.importorskip("ray")
    ask = question()
    assert _told(search_traffic(ask, top=3, workers=2, engine="ray")) == _told(search_traffic(ask, top=3))


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise ImportError(name)
    monkeypatch.setattr(workers.importlib, "import_module", missing)
    with pytest.raises(BadInput, match="ray"):
        search_traffic(question(), engine="ray")


@pytest.mark.parametrize(("changes", "binding"), [
    ({"slo": "tpot=100us"}, "tpot"), ({"slo": "ttft=1ms"}, "ttft"),
    ({"fleet": "h20:1", "requests": load(400.0, 200)}, "capacity"),
    ({"fleet": "h20:1", "model": "Llama-3.1-405B"}, "memory"),
])
def test_an_infeasible_load_says_what_binds(changes, binding):
    with pytest.raises(NoAnswer) as error:
        search_traffic(question(**changes, space=Space(max_sequences=(0,), token_budgets=(0,))))
    assert error.value.binding == binding or (binding == "capacity" and error.value.binding in ("ttft", "tpot"))
    assert any(character.isdigit() for character in str(error.value))


def test_pools_may_stand_on_different_chips():
    ask = question("mixed-h20-zhenwu", space=Space(max_sequences=(0,), token_budgets=(0,)), glimpses=8)
    engines = engines_of(ask.model, ask.machines, ask.profile, ask.space)
    rows = candidates_of(engines, [4, 8], ask.space)
    apart = rows.prefill_C >= 0
    pools = engines.pool_E[rows.prefill_C[apart]], engines.pool_E[rows.serve_C[apart]]
    assert {(int(one), int(other)) for one, other in zip(*pools, strict=True)} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    used = np.stack([np.where(engines.pool_E[rows.serve_C] == pool, engines.chips_E[rows.serve_C]
                              * rows.serve_count_C, 0)
                     + np.where(apart & (engines.pool_E[rows.prefill_C] == pool),
                                engines.chips_E[rows.prefill_C] * rows.prefill_count_C, 0) for pool in (0, 1)])
    assert (used <= np.array([[4], [8]])).all()
    assert (used.sum(axis=0) == rows.chips_C).all()


def test_candidates_are_each_of_their_kind_once():
    ask = question()
    engines = engines_of(ask.model, ask.machines, ask.profile, ask.space)
    rows = candidates_of(engines, [4], ask.space)
    table = np.stack([getattr(rows, column.name) for column in fields(rows)], axis=1)
    assert len(np.unique(table, axis=0)) == len(rows)
    assert (rows.chips_C <= 4).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30))
def test_the_front_is_what_nothing_dominates(points):
    value = np.array(points, dtype=np.float64)
    front = pareto_front(value)
    for point, chosen in zip(value, front, strict=True):
        beaten = ((value >= point).all(axis=1) & (value > point).any(axis=1)).any()
        if chosen:
            assert not beaten
        else:
            assert beaten or (value[front] == point).all(axis=1).any()
    assert (pareto_front(value * 7.0) == front).all()
