"""The reconciler, step by step, in a world where only what the test does goes wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serried.control.amending import followed
from serried.control.charter import Charter, charter_from
from serried.control.history import Broken, check_history
from serried.control.ledger import MemoryLedger
from serried.control.reconciler import Cancel, Drain, Reconciler, Submit
from serried.control.records import CLOSED, EVENT, FAILED, RUNNING, Record
from serried.control.retrace import retrace
from serried.control.spec import Health, JobSpec, Terms
from serried.control.views import job_view, phase_of, usage_of
from serried.errors import BadInput, NoAnswer
from serried.fleet import JobStatus
from serried.runners import Beat, Node, Phase, RankSeen, TaskSeen
from tests.control.world import SECOND_NS, World, WorldEngine

BEGAN_NS = 1_700_000_000 * SECOND_NS


def nodes(count: int, chips: int = 4) -> tuple[Node, ...]:
    return tuple(Node(name=f"n{place}", kind="chip", chip_count=chips, switches={"switch": f"s{place // 4}"})
                 for place in range(count))


def spec_of(**more) -> JobSpec:
    life_s, fails = more.pop("life_s", 30.0), more.pop("fails", "")
    return JobSpec(**{"name": "job", "argv": ("work",), "environment": {"LIFE_S": str(life_s), "FAILS": fails},
                      "grace_s": 2.0, **more})


class Bench:
    """A reconciler in a calm world, and a hand on the clock."""

    def __init__(self, nodes, *, later=(), **charter):
        """later: nodes that are there and are not declared yet."""
        self.world = World(3, [*nodes, *later], trouble=0.0, now_ns=BEGAN_NS)
        self.ledger, self.charter = MemoryLedger(), Charter(nodes=nodes, **charter)
        self.terms = Terms(silence_ns=2 * SECOND_NS)
        self.begin()

    def begin(self):
        """A control plane begins, or begins again: nothing of its former life is left."""
        self.engine = WorldEngine(self.world, [node.name for node in self.charter.nodes
                                               if node.name not in self.charter.absent])
        self.one = Reconciler(self.ledger, self.engine, self.charter, self.terms, now_ns=self.world.now_ns)

    def declare(self, nodes, **changed):
        """Begin again with these nodes."""
        kept = charter_from(self.ledger.charters()[-1].fields())
        nodes, absent = followed(kept, nodes)
        before, self.charter = self.charter, replace(kept, nodes=nodes, absent=absent, **changed)
        try:
            self.begin()
        except BadInput:
            self.charter = before
            raise

    def run(self, seconds, *commands):
        """Steps of a tenth of a second; the answers to the commands."""
        answers = None
        for _ in range(round(seconds * 10)):
            self.world.advance(self.world.now_ns + SECOND_NS // 10)
            found = self.one.step(self.world.now_ns, commands if answers is None else ())
            answers = found if answers is None else answers
        return answers

    def records(self, kind):
        return [record for record in self.ledger.records if record.kind == kind]

    def events(self, kind):
        return [record for record in self.records(EVENT) if record.fields()["kind"] == kind]

    def nodes_of(self, job):
        return {rank.node for rank in job_view(self.one, job).ranks}


def test_several_failed_nodes_are_replaced_in_place():
    bench = Bench(nodes(8))
    bench.run(1, Submit(spec=spec_of(workers=4, chips_per_worker=4, life_s=200)))
    before = bench.nodes_of(0)
    first, second, *rest = sorted(before)
    bench.world.kill_agent(first, respawn_ns=500 * SECOND_NS)
    bench.world.kill_agent(second, respawn_ns=500 * SECOND_NS)
    bench.run(10)
    after = bench.nodes_of(0)
    assert after > set(rest), "those that did not fail stay"
    assert not after & {first, second}
    assert len(bench.events("FAIL")) == 1, "both fail in one event"
    assert len(bench.events("REPLACE")) == 1
    assert not bench.events("EVICT")
    assert job_view(bench.one, 0).phase == "running"
    assert job_view(bench.one, 0).retries_left == 3, "it is not the job's doing"


def test_a_silent_node_is_cut_off_within_the_bound_before_its_job_restarts():
    bench = Bench(nodes(2))
    bench.run(1, Submit(spec=spec_of(workers=4, life_s=100)))
    [node] = bench.nodes_of(0)
    bench.world.machines[node].frozen_until_ns = BEGAN_NS + 1000 * SECOND_NS
    silent_ns = bench.world.now_ns
    bench.run(8)
    asked_ns, failed_ns = bench.world.fence_asked[node], bench.events("FAIL")[0].time_ns
    assert asked_ns - silent_ns <= bench.terms.silence_ns + SECOND_NS // 4
    assert bench.events("REPLACE")[0].time_ns >= failed_ns > asked_ns
    assert bench.nodes_of(0) == {"n0", "n1"} - {node}


def test_retries_are_counted_and_wait_twice_as_long_each_time():
    bench = Bench(nodes(1))
    bench.run(60, Submit(spec=spec_of(workers=2, life_s=1, fails="always", retries=3, backoff_s=1.0)))
    waits_s = [round((record.fields()["not_before_ns"] - record.time_ns) / SECOND_NS, 3)
               for record in bench.records(FAILED)]
    assert waits_s == [1.0, 2.0, 4.0]
    view = job_view(bench.one, 0)
    assert (view.phase, view.restarts, view.retries_left) == ("failed", 3, 0)
    assert "exit code 1" in view.outcome


def test_a_control_plane_that_begins_again_adopts_what_runs():
    bench = Bench(nodes(2))
    bench.run(1, Submit(spec=spec_of(workers=4, life_s=20), key="k"))
    started = dict(bench.world.started)
    bench.begin()
    assert bench.run(1, Submit(spec=spec_of(workers=4, life_s=20), key="k")) == [0]
    bench.run(30)
    assert bench.world.started == started, "nothing was started again"
    assert job_view(bench.one, 0).phase == "succeeded"


def test_a_cancelled_job_gives_its_chips_back_only_when_its_ranks_are_gone():
    bench = Bench(nodes(1))
    bench.run(1, Submit(spec=spec_of(workers=4, life_s=100)))
    for task in bench.world.machines["n0"].tasks.values():
        task.stubborn_ns = 5 * SECOND_NS
    bench.run(0.5, Cancel(job=0), Submit(spec=spec_of(workers=4, life_s=1)))
    assert job_view(bench.one, 0).phase == "stopping"
    assert job_view(bench.one, 1).phase == "starting"
    assert usage_of(bench.one).jobs_by_phase == {"stopping": 1, "starting": 1}
    assert len(bench.world.started) == 1
    bench.run(10)
    assert [job_view(bench.one, job).phase for job in (0, 1)] == ["cancelled", "succeeded"]
    assert usage_of(bench.one).jobs_by_phase == {"cancelled": 1, "succeeded": 1}
    assert check_history(bench.ledger.records) == 2


def test_a_hanging_rank_ends_the_attempt():
    bench = Bench(nodes(1))
    bench.run(1, Submit(spec=spec_of(workers=2, life_s=500, health=Health(heartbeat_s=5.0, start_s=60.0))))
    tell = bench.world.tell

    def stale(name):
        incarnation, heard_ns, tasks = tell(name)
        return incarnation, heard_ns, tuple(_with_beat(task, BEGAN_NS + SECOND_NS) for task in tasks)
    bench.world.tell = stale
    bench.run(7)
    assert "it hangs" in bench.records(FAILED)[0].fields()["why"]


def _with_beat(task: TaskSeen, heard_ns: int, busy_s: float = 1.0, step: int = 1) -> TaskSeen:
    ranks = tuple(RankSeen(rank=rank.rank, exit_code=rank.exit_code, beat=Beat(
        step=step, heard_ns=heard_ns, busy_s=busy_s * (2 if rank.rank == 1 else 1))) for rank in task.ranks)
    return TaskSeen(attempt=task.attempt, node=task.node, incarnation=task.incarnation, phase=task.phase, ranks=ranks)


def test_a_straggler_is_named_once_and_only_after_several_steps():
    bench = Bench(nodes(1))
    bench.run(1, Submit(spec=spec_of(workers=4, life_s=500)))
    tell, step = bench.world.tell, [0]

    def slow(name):
        incarnation, heard_ns, tasks = tell(name)
        return incarnation, heard_ns, tuple(_with_beat(task, heard_ns, step=step[0]) for task in tasks)
    bench.world.tell = slow
    for step[0] in (1, 2):
        bench.run(1)
    assert not any(rank.straggles for rank in job_view(bench.one, 0).ranks)
    for step[0] in (3, 4):
        bench.run(1)
    assert [rank.rank for rank in job_view(bench.one, 0).ranks if rank.straggles] == [1]
    assert len(bench.records("note")) == 1


def test_a_command_that_does_not_exist_is_said():
    bench = Bench(nodes(1))
    tell = bench.world.tell

    def broken(name):
        incarnation, heard_ns, tasks = tell(name)
        return incarnation, heard_ns, tuple(TaskSeen(
            attempt=task.attempt, node=name, incarnation=incarnation, phase=Phase.EXITED, error="no such program: work",
        ) for task in tasks)
    bench.world.tell = broken
    bench.run(2, Submit(spec=spec_of(retries=0, life_s=0.01)))
    view = job_view(bench.one, 0)
    assert (view.phase, view.outcome) == ("failed", "on n0: no such program: work")


def test_a_drained_node_is_left_in_place():
    bench = Bench(nodes(3))
    bench.run(1, Submit(spec=spec_of(workers=4, life_s=100)))
    [node] = bench.nodes_of(0)
    bench.run(10, Drain(node=node, why="fan"))
    assert bench.nodes_of(0) <= {"n0", "n1", "n2"} - {node}
    assert job_view(bench.one, 0).phase == "running"


def test_a_damaged_ledger_is_refused_by_record():
    bench = Bench(nodes(2))
    bench.run(1, Submit(spec=spec_of()))
    last = bench.ledger.records[-1]
    for body in ('{"kind": "PLACE"}', "{", '{"kind": "FINISH", "job": 7, "time_ns": 1}'):
        bench.ledger.records[-1] = Record(seq=last.seq, time_ns=last.time_ns, kind=EVENT, body=body)
        with pytest.raises((BadInput, NoAnswer)):
            bench.begin()


def test_the_checker_of_histories_finds_chips_that_are_held_twice():
    bench = Bench(nodes(1))
    bench.run(1, Submit(spec=spec_of(workers=4, life_s=5)), Submit(spec=spec_of(workers=4, life_s=5)))
    bench.run(20)
    records = bench.ledger.records
    assert check_history(records) == 2
    without = [record for record in records if record.kind != CLOSED]
    renumbered = [Record(seq=seq, time_ns=record.time_ns, kind=record.kind, body=record.body.replace(
        f'"epoch": {records[4].seq}', f'"epoch": {records[4].seq}')) for seq, record in enumerate(without)]
    with pytest.raises(Broken):
        check_history(renumbered)


def test_a_decision_that_was_not_the_policys_is_found():
    bench = Bench(nodes(2))
    bench.run(5, Submit(spec=spec_of(workers=2, life_s=1)))
    assert retrace(bench.ledger.records) == 1
    for place, record in enumerate(bench.ledger.records):
        if record.kind == EVENT and record.fields()["kind"] == "PLACE":
            other = record.body.replace('"node_R": [0]', '"node_R": [1]')
            assert other != record.body
            bench.ledger.records[place] = Record(seq=record.seq, time_ns=record.time_ns, kind=EVENT, body=other)
    with pytest.raises(NoAnswer, match="differs"):
        retrace(bench.ledger.records)


def test_statuses_and_records_of_a_plain_life():
    bench = Bench(nodes(1))
    bench.run(5, Submit(spec=spec_of(workers=2, life_s=1)))
    assert bench.one.books.state.status_J[0] == JobStatus.DONE
    assert len(bench.records(RUNNING)) == len(bench.records(CLOSED)) == 1
    assert bench.one.books.attempts == {}


def test_the_fleet_at_a_glance_counts_every_job_once():
    bench = Bench(nodes(1))
    bench.run(0.5, *(Submit(spec=spec_of(workers=2, life_s=1 + 3 * place, fails="always" if place == 1 else "",
                                       retries=0)) for place in range(5)), Cancel(job=4))
    for _ in range(60):
        bench.run(0.5)
        counted: dict[str, int] = {}
        for number in range(5):
            phase = str(phase_of(bench.one, number))
            counted[phase] = counted.get(phase, 0) + 1
        assert usage_of(bench.one).jobs_by_phase == counted
    assert counted == {"succeeded": 3, "failed": 1, "cancelled": 1}
