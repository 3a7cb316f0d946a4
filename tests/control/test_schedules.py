"""The production reconciler under thousands of seeded schedules of crashes, delays, and nodes lost and added.

Each seed is one schedule (`schedule.Schedule`); a seed that fails is printed and runs again with

    python -m tests.control.run_seed SEED
"""

from __future__ import annotations

import pytest

from serried.control import reconciler as room
from serried.control.amending import Numbering
from serried.control.history import Broken
from serried.control.reconciler import Reconciler
from serried.control.sight import Sight
from serried.errors import NoAnswer, SerriedError
from serried.runners import Phase
from tests.control.schedule import Schedule
from tests.control.world import Violation

SCHEDULES, BATCH = 5_000, 100


@pytest.mark.parametrize("first", range(0, SCHEDULES, BATCH))
def test_no_schedule_breaks_a_promise(first):
    for seed in range(first, first + BATCH):
        try:
            Schedule(seed, trouble=0.3 if seed % 4 == 3 else 0.1).run()
        except (AssertionError, SerriedError) as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\n  python -m tests.control.run_seed {seed}")


def test_one_seed_is_one_history():
    first, second = Schedule(7), Schedule(7)
    assert first.run().digest() == second.run().digest()
    assert first.ledger.records == second.ledger.records
    assert first.lives == second.lives > 1


def _caught(count: int = 300) -> str:
    """What the first schedule that breaks a promise says; "" when none does."""
    for seed in range(count):
        try:
            Schedule(seed, trouble=0.2).run()
        except (Violation, Broken, NoAnswer) as error:
            return str(error)
    return ""


def _unknown_is_gone(self, attempt, node):
    task = self.tasks.get((attempt.id, node))
    return task is None or task.phase in (Phase.EXITED, Phase.GONE)


@pytest.mark.parametrize("mutant", [
    "chips are not waited for", "what is not seen is gone", "a silent node counts as fenced",
    "it acts before it has written", "keys are not kept", "a policy with a memory of its own",
    "numbers of nodes stay when others join", "news of rows are overlooked", "news of nodes are overlooked"])
def test_schedules_catch_a_reconciler_that_breaks_a_promise(mutant, monkeypatch):
    """The schedules can fail: each of these mistakes is found within the first few hundred."""
    if mutant == "chips are not waited for":
        monkeypatch.setattr(room, "occupied", lambda fleet, attempts: set())
    elif mutant == "what is not seen is gone":
        monkeypatch.setattr(Sight, "is_gone", _unknown_is_gone)
    elif mutant == "a silent node counts as fenced":
        monkeypatch.setattr(Sight, "is_gone", lambda self, attempt, node: not self.is_fresh(node) or (
            (attempt.id, node) in self.tasks and self.tasks[attempt.id, node].phase >= Phase.EXITED))
    elif mutant == "it acts before it has written":
        decide = Reconciler._decide
        monkeypatch.setattr(Reconciler, "_decide", lambda self: (decide(self), self._act()))
    elif mutant == "keys are not kept":
        monkeypatch.setattr(Reconciler, "_submit", _submit_again)
    elif mutant == "news of rows are overlooked":
        look = Sight.look
        monkeypatch.setattr(Sight, "look", lambda self, *seen: (look(self, *seen), self.stirred_tasks.clear()))
    elif mutant == "news of nodes are overlooked":
        look = Sight.look
        monkeypatch.setattr(Sight, "look", lambda self, *seen: (look(self, *seen), self.stirred_nodes.clear()))
    elif mutant == "numbers of nodes stay when others join":
        monkeypatch.setattr(Numbering, "event", lambda self, event: event)
    else:
        plan = room.decide
        asked = [0]

        def moody(state, policy, now_ns, carry_out):
            asked[0] += 1
            return plan(state, policy, now_ns, carry_out) if asked[0] % 3 else -1
        monkeypatch.setattr(room, "decide", moody)
    assert _caught()


def _submit_again(self, command):
    self.books.by_key.pop(command.key, None)
    return _submit(self, command)


_submit = Reconciler._submit
