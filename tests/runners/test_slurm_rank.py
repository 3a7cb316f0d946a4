"""The launcher by itself: one claim, a lease, and what it says."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

from serried.runners import AttemptId, Launch, Node, Phase, Row
from serried.runners.slurm_commands import NodeHeld, Refused
from serried.runners.slurm_fences import Fences, Terms
from serried.runners.slurm_files import StateFiles
from serried.runners.slurm_view import Answer, View, phase_of
from tests.runners.slurm_cluster import wait_until

NODE = Node(name="far", kind="virtual", chip_count=4)


@pytest.fixture
def files(tmp_path):
    state = StateFiles(tmp_path / "state")
    return state.attempt(AttemptId(1, 2))


def order(files, *argv: str, ranks: int = 1, lease_s: float = 1.0) -> None:
    row = Row(node="far", incarnation="1", chips=tuple(range(ranks)), first_rank=0, rank_count=ranks)
    launch = Launch(attempt=files.attempt, name="one", argv=argv, rows=(row,))
    files.order(launch, [row], {"far": NODE}, {"lease_s": lease_s, "beat_s": 0.1})


def launcher(files) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-I", str(files.state.launcher), str(files.path)],
                            env={**os.environ, "SLURMD_NODENAME": "far", "SERRIED_IDENTITY": files.state.identity})


def word(files) -> dict:
    with contextlib.suppress(FileNotFoundError):
        return json.loads((files.path / "far.seen").read_text())
    return {}


def pid_of(files) -> int:
    return wait_until(lambda: word(files).get("ranks"), "a rank")[0][1]


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_many_launchers_run_a_row_once(files, tmp_path):
    order(files, "sh", "-c", f"echo ran >> {tmp_path}/runs")
    for one in [launcher(files) for _ in range(4)]:
        assert one.wait(20) == 0
    assert (tmp_path / "runs").read_text().split() == ["ran"]
    assert word(files)["ended"]


def test_a_tombstone_comes_first_or_not_at_all(files, tmp_path):
    order(files, "touch", str(tmp_path / "ran"))
    assert files.bar("far", "")
    assert launcher(files).wait(20) == 0
    assert not (tmp_path / "ran").exists()


def test_a_raised_incarnation_keeps_a_late_launcher_from_running(files, tmp_path):
    order(files, "touch", str(tmp_path / "ran"))
    files.state.begin_life("far")
    assert launcher(files).wait(20) == 0
    assert not (tmp_path / "ran").exists()
    assert (word(files)["ended"], word(files)["stopped"]) == (True, True)


def test_a_fence_ends_what_can_read_it(files):
    order(files, "sleep", "60")
    running, pid = launcher(files), pid_of(files)
    files.state.begin_life("far")
    assert running.wait(5) == 0
    assert not lives(pid)
    assert word(files)["stopped"]


def test_a_launcher_that_cannot_reach_the_directory_kills_its_ranks_within_its_lease(files, tmp_path):
    order(files, "sh", "-c", "trap '' TERM; sleep 60 & wait", lease_s=1.0)
    running, pid = launcher(files), pid_of(files)
    away_s = time.monotonic()
    nodes = files.state.root / "nodes"
    (nodes / "far.incarnation").mkdir()   # what cannot be read stands for a directory that is away
    wait_until(lambda: not lives(pid), "the rank is dead", 4)
    assert time.monotonic() - away_s < 2.5
    (nodes / "far.incarnation").rmdir()
    assert running.wait(5) == 0
    assert word(files)["ended"]


def test_ranks_die_with_their_launcher(files):
    order(files, "sleep", "60")
    running, pid = launcher(files), pid_of(files)
    running.kill()
    running.wait()
    wait_until(lambda: not lives(pid), "the rank is dead", 2)


class FarSlurm:
    """A Slurm whose one node is on another machine. down: it was told so."""

    def __init__(self) -> None:
        self.down, self.resumed = False, False

    def set_down(self, node, reason):
        self.down = True

    def resume(self, node):
        if not self.down:
            raise Refused("not down")
        self.down, self.resumed = False, True

    def answer(self, *, responds: bool = False, start: str = "noon") -> Answer:
        flags = {"DOWN"} if self.down else {"IDLE"}
        return Answer(began_s=time.monotonic(), nodes=[NodeHeld(
            name="far", address="192.0.2.1", host="elsewhere", reason="serried-fence [root@now]", slurmd_start=start,
            flags=frozenset(flags if responds else flags | {"NOT_RESPONDING"}))])


def fenced_after(files, terms: Terms, within_s: float, answers) -> float:
    slurm, view, began_s = FarSlurm(), View(kills_all=False), time.monotonic()
    view.take(slurm.answer(**answers))
    fences = Fences(files.state, slurm, ["far"], {files.attempt: files}, terms)
    fences.begin("far", 0.0)

    def running() -> dict:
        return {"far": [files]} if files.runs("far") else {}

    def stands() -> bool:
        files.read()
        fences.advance(view, running())
        view.take(slurm.answer(**answers))
        return files.state.life("far").fenced == 1
    wait_until(stands, "fenced", within_s)
    assert slurm.down
    view.take(slurm.answer(responds=True, start="later"))
    wait_until(lambda: (fences.advance(view, running()), view.take(slurm.answer(responds=True, start="later")))
               and files.state.life("far").returned == 2, "back", 5)
    assert slurm.resumed
    return time.monotonic() - began_s


def test_a_far_node_with_nothing_on_it_is_fenced_at_once(files):
    order(files, "true")
    assert fenced_after(files, Terms(lease_s=50.0), 1.0, {}) < 1.0
    assert phase_of(files, "far", View(kills_all=False), fenced=True)[0] == Phase.GONE
    assert launcher(files).wait(20) == 0
    assert not word(files)   # barred before it claimed


def test_a_far_node_that_may_run_something_is_fenced_when_its_lease_has_passed(files):
    order(files, "true")
    (files.path / "far.claim").write_text("run 1")   # a launcher of which nothing more is heard
    files.read()
    assert fenced_after(files, Terms(lease_s=0.8, margin_s=0.2), 5.0, {}) > 1.0


def test_a_far_node_is_fenced_as_soon_as_its_launcher_has_obeyed(files):
    order(files, "sleep", "60", lease_s=30.0)
    running, pid = launcher(files), pid_of(files)
    files.read()
    assert fenced_after(files, Terms(lease_s=50.0), 5.0, {"responds": True}) < 5.0
    assert not lives(pid)
    running.wait(5)


def test_a_sites_own_command_is_believed_when_it_ends_well(files, tmp_path):
    order(files, "true")
    (files.path / "far.claim").write_text("run 1")
    files.read()
    script = f"echo {{node}} >> {tmp_path}/cut; [ $(wc -l < {tmp_path}/cut) -ge 3 ]"
    fenced_after(files, Terms(lease_s=50.0, fence_command=("sh", "-c", script)), 5.0, {})
    assert (tmp_path / "cut").read_text().split() == ["far"] * 3


def test_a_driver_that_dies_while_it_fences_goes_on_with_it(files):
    order(files, "true")
    (files.path / "far.claim").write_text("run 1")
    Fences(files.state, FarSlurm(), ["far"], {files.attempt: files}, Terms()).begin("far", 0.0)
    state = StateFiles(files.state.root)
    again, slurm, view = state.attempt(files.attempt), FarSlurm(), View(kills_all=False)
    fences = Fences(state, slurm, ["far"], {again.attempt: again}, Terms(lease_s=0.3, margin_s=0.1))
    began_s = time.monotonic()

    def stands() -> bool:
        view.take(slurm.answer())
        fences.advance(view, {"far": [again]} if again.runs("far") else {})
        return state.life("far").fenced == 1
    wait_until(stands, "fenced", 5)
    assert time.monotonic() - began_s > 0.4   # nobody knows how long it has been: the lease ran anew
