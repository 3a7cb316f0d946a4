"""What the local engine adds to the contract: a driver that is killed, news at once, confinement, an orderly end."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from serried.runners import Limits, Phase, Row
from serried.runners.containment import process_start
from serried.runners.local_link import Link
from serried.runners.local_nodes import LocalNode
from tests.laws.source import ROOT
from tests.runners.contract import DAEMON, STAY, Driver, all_rows, living, pids_in, ranks_of, tasks_of
from tests.runners.local_bench import NODES, LocalBench

DRIVER = """
import sys, time
from pathlib import Path
from tests.runners.contract import STAY, Driver, all_rows
from tests.runners.local_bench import LocalBench
from serried.runners import Phase
bench = LocalBench(Path(sys.argv[1]))
driver = Driver(bench)
launch = driver.launch(STAY.format(file=bench.scratch / "pids"), ranks=(2, 2))
if sys.argv[2] == "half":
    driver.until(lambda seen: any(task.phase == Phase.RUNNING for task in seen.tasks),
                 order=lambda: bench.engine.start(launch, [launch.rows[0].node]))
else:
    driver.run(launch)
print("ready", flush=True)
time.sleep(1000)
"""


def wait_for(condition, what="", patience_s=60.0):
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.005)


@pytest.mark.parametrize("how_far", ["half", "whole"])
def test_a_killed_driver_leaves_its_gang_to_the_next_one(tmp_path, how_far):
    killed = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), how_far], stdout=subprocess.PIPE,
                              env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"})
    try:
        assert killed.stdout.readline() == b"ready\n"
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.stdout.close()
    bench = LocalBench(tmp_path)
    try:
        driver, file = Driver(bench), tmp_path / "scratch" / "pids"
        launch = driver.launch(STAY.format(file=file), ranks=(2, 2))   # the same numbers, the same attempt
        driver.run(launch)
        wait_for(lambda: len(pids_in(file)) == 4, "the whole gang")
        driver.start(launch)
        driver.barrier()
        assert len(pids_in(file)) == 4 == len(living(file))
        seen = driver.end(launch)
        assert set(ranks_of(seen, launch)) == {0, 1, 2, 3}
        assert not living(file)
    finally:
        bench.engine.shutdown(0)


WATCHER = """
import sys, time
from pathlib import Path
from tests.runners.contract import Driver
from tests.runners.local_bench import LocalBench
bench = LocalBench(Path(sys.argv[1]))
Driver(bench).incarnations()
print("ready", flush=True)
oldest_ns = 0
while True:
    now_ns = time.time_ns()
    oldest_ns = max([oldest_ns, *(now_ns - node.heard_ns for node in bench.engine.observe(now_ns).nodes)])
    print(oldest_ns, flush=True)
    time.sleep(0.001)
"""


def test_a_driver_that_was_stopped_for_a_while_does_not_take_its_nodes_for_silent(tmp_path):
    """As by Ctrl-Z: what the nodes said meanwhile lies there unread when it goes on."""
    watcher = subprocess.Popen([sys.executable, "-c", WATCHER, str(tmp_path)], stdout=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"})
    try:
        assert watcher.stdout.readline() == b"ready\n"
        before_ns = [int(watcher.stdout.readline()) for _ in range(50)][-1]
        watcher.send_signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        wait_for(lambda: time.monotonic() - stopped_s > 3 + before_ns / 1e9, "time to pass")
        watcher.send_signal(signal.SIGCONT)
        went_on_s = time.monotonic()
        while time.monotonic() - went_on_s < 0.5:
            oldest_ns = int(watcher.stdout.readline())
        assert oldest_ns < 3e9 + before_ns
    finally:
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()
        LocalBench(tmp_path).engine.shutdown(0)


def test_a_node_that_is_slow_to_come_up_is_not_kept_from_it(tmp_path):
    local = LocalBench(tmp_path)
    try:
        driver = Driver(local)
        driver.until(lambda seen: all(one.incarnation and not one.fenced for one in seen.nodes), order=lambda: [
            local.engine.fence(one.name) for one in driver.see().nodes if not one.incarnation])
    finally:
        local.engine.shutdown(0)


def test_ranks_die_with_their_agent_at_once_and_the_node_with_it(local):
    driver, file = Driver(local), local.scratch / "pids"
    launch = driver.launch(STAY.format(file=file), ranks=(2,))
    driver.run(launch)
    wait_for(lambda: len(pids_in(file)) == 2, "two ranks")
    local.kill("node-0")
    wait_for(lambda: not living(file), "the ranks' death")
    driver.until(lambda seen: driver.incarnations()["node-0"] != launch.rows[0].incarnation)
    other = driver.incarnations()["node-0"]
    task, = tasks_of(driver.see(), launch)
    assert (task.phase, task.incarnation) == (Phase.GONE, launch.rows[0].incarnation)
    again = replace(launch, rows=(replace(launch.rows[0], incarnation=other),))
    driver.start(again)   # an attempt is started once on a node, whatever became of it
    driver.barrier()
    assert len(pids_in(file)) == 2


def test_a_fence_that_was_given_holds_though_who_gave_it_hangs_up_at_once(local, monkeypatch):
    """On a busy machine the burial begins only when the engine is being closed; the agent is not its own child."""
    bury = Link._bury
    local.reopen()
    Driver(local).incarnations()
    monkeypatch.setattr(Link, "_bury", lambda link: (time.sleep(0.05), bury(link)))
    local.silence("node-1")
    local.engine.fence("node-1")
    local.reopen()
    Driver(local).incarnations()


def test_an_agent_that_fell_silent_before_we_came_is_fenced(local):
    driver, file = Driver(local), local.scratch / "pids"
    launch = driver.launch(STAY.format(file=file))
    driver.run(launch)
    wait_for(lambda: len(pids_in(file)) == 1, "the rank")
    local.silence("node-0")
    local.reopen()
    driver.until(lambda seen: seen.nodes[1].incarnation)
    assert driver.see().nodes[0].incarnation == ""
    assert living(file)
    driver.until(lambda seen: seen.nodes[0].incarnation not in ("", launch.rows[0].incarnation),
                 order=lambda: local.engine.fence("node-0") if living(file) else None)
    assert not living(file)


def test_another_ledgers_attempts_are_not_taken_for_ours(tmp_path):
    local = LocalBench(tmp_path, owner="first")
    driver, file = Driver(local), local.scratch / "pids"
    running, over = driver.launch(STAY.format(file=file)), driver.launch("exit 0", ranks=(1, 1))
    driver.run(running)
    driver.run(over, Phase.EXITED)
    wait_for(lambda: len(pids_in(file)) == 1, "the rank")
    local.reopen()
    assert driver.incarnations()["node-0"] == running.rows[0].incarnation
    assert len(living(file)) == 1
    local.options["owner"] = "second"
    local.reopen()
    try:
        assert not living(file)
        assert driver.incarnations()["node-0"] != running.rows[0].incarnation
        assert not driver.see().tasks
    finally:
        local.engine.shutdown(0)


def test_what_ended_outlives_its_agent(local):
    driver = Driver(local)
    launch = driver.launch("exit 5")
    driver.run(launch, Phase.EXITED)
    local.kill("node-0")
    driver.until(lambda seen: driver.incarnations()["node-0"] != launch.rows[0].incarnation)
    local.reopen()
    driver.incarnations()
    assert ranks_of(driver.see(), launch) == {0: 5}
    driver.until(lambda seen: not tasks_of(seen, launch), order=lambda: local.engine.forget(launch.attempt))


def test_forgetting_reaches_an_agent_that_is_away(local):
    driver = Driver(local)
    launch = driver.launch("exit 5")
    driver.run(launch, Phase.EXITED)
    local.kill("node-0")
    driver.until(lambda seen: seen.nodes[0].fenced or seen.nodes[0].incarnation != launch.rows[0].incarnation)
    local.engine.forget(launch.attempt)
    driver.barrier()
    wait_for(lambda: not list(local.files("node-0").read_ended()) or len(list(local.files("node-0").read_ended())) == 1)
    assert launch.attempt not in [task.attempt for task in local.files("node-0").read_ended()]


def test_news_are_told_as_they_come(tmp_path):
    news = threading.Event()
    local = LocalBench(tmp_path, on_change=news.set)
    try:
        driver, file = Driver(local), local.scratch / "pids"
        launch = driver.launch(STAY.format(file=file), ranks=(2, 2))
        driver.run(launch)
        wait_for(lambda: len(pids_in(file)) == 4, "the gang")
        driver.barrier()
        news.clear()
        victim = next(rank.pid for task in tasks_of(driver.see(), launch) for rank in task.ranks if rank.rank == 2)
        os.kill(victim, signal.SIGKILL)
        assert news.wait(60)
        driver.until(lambda seen: ranks_of(seen, launch)[2] == -9)
        assert ranks_of(driver.see(), launch) == {0: None, 1: None, 2: -9, 3: None}
    finally:
        local.engine.shutdown(0)


def test_a_listener_that_fails_keeps_nobody_from_hearing(tmp_path):
    def fail():
        raise ValueError("the listener's own fault")

    local = LocalBench(tmp_path, on_change=fail)
    try:
        Driver(local).barrier()
    finally:
        local.engine.shutdown(0)


def test_stopping_gives_the_grace_that_was_asked_for(local):
    driver, file = Driver(local), local.scratch / "said"
    launch = driver.launch(f"trap 'echo saved > {file}; exit 0' TERM; echo up > {file}; while :; do sleep 0.01; done")
    driver.run(launch)
    wait_for(lambda: file.exists() and file.read_text() == "up\n", "the trap")
    seen = driver.end(launch, grace_ns=60_000_000_000)
    assert file.read_text() == "saved\n"
    assert tasks_of(seen, launch)[0].phase == Phase.GONE
    deaf = driver.launch(f"trap '' TERM; echo deaf > {file}; while :; do sleep 0.01; done")
    driver.run(deaf)
    wait_for(lambda: file.read_text() == "deaf\n", "the other trap")
    local.engine.stop(deaf.attempt, ["node-0"], 600_000_000_000)
    assert not all_rows(driver.see(), deaf, lambda task: task.phase == Phase.GONE)
    assert ranks_of(driver.end(deaf, grace_ns=1), deaf) == {0: -9}   # a second order can shorten it


def test_a_row_starts_whole_or_not_at_all(local):
    """The second rank cannot have its limit, so the first one, whose program runs, goes with it."""
    driver, file = Driver(local), local.scratch / "pids"
    program = local.scratch / "program"
    program.write_text(f"#!/bin/sh\necho $$ >> {file}\nexec sleep 1000\n")
    program.chmod(0o700)
    launch = driver.launch("", argv=("program",), ranks=(2,), environment={"PATH": f"{local.scratch}:/usr/bin:/bin"})
    driver.run(launch)
    driver.end(launch)
    program.write_text("no program\n")   # neither binary nor script
    broken = driver.launch("", argv=(str(program),), ranks=(2,))
    task, = tasks_of(driver.run(broken, Phase.EXITED), broken)
    assert str(program) in task.error
    assert "format" in task.error
    assert not living(file)


def test_limits_and_cores_confine_a_rank(tmp_path):
    core = min(os.sched_getaffinity(0))
    nodes = (LocalNode(node=NODES[0].node, cores=(core,) * 4), NODES[1])
    local = LocalBench(tmp_path, nodes=nodes)
    try:
        driver, file = Driver(local), local.scratch / "limits"
        launch = driver.launch(f"ulimit -n > {file}; ulimit -c >> {file}; ulimit -d >> {file}; "
                               f"grep Cpus_allowed_list /proc/self/status >> {file}",
                               limits=Limits(open_files=123, core_bytes=512 * 1024, memory_bytes=2**30))
        driver.run(launch, Phase.EXITED)
        files, cores, data, allowed = file.read_text().splitlines()
        assert (files, data, allowed.split()[1]) == ("123", str(2**20), str(core))
        assert int(cores) in (512, 1024)   # shells count in blocks of their own
        free = driver.launch("ulimit -n > " + str(file))
        driver.run(free, Phase.EXITED)
        assert int(file.read_text()) == int(subprocess.check_output(["/bin/sh", "-c", "ulimit -n"]))
    finally:
        local.engine.shutdown(0)


def test_a_rank_that_wants_more_than_the_machine_gives_says_so(local):
    driver = Driver(local)
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    launch = driver.launch("true", limits=Limits(open_files=most + 1))
    task, = tasks_of(driver.run(launch, Phase.EXITED), launch)
    assert "open_files" in task.error


def test_an_order_that_no_process_can_be_made_of_is_answered(local):
    driver = Driver(local)
    launch = driver.launch("true", environment={"A=B": "c"})
    task, = tasks_of(driver.run(launch, Phase.EXITED), launch)
    assert "A=B" in task.error
    huge = driver.launch("true", environment={f"V{place}": "x" * 100_000 for place in range(100)})
    task, = tasks_of(driver.run(huge, Phase.EXITED), huge)
    assert "Argument list too long" in task.error
    endless = driver.launch("true", environment={f"V{place}": "x" * 100_000 for place in range(200)})
    task, = tasks_of(driver.run(endless, Phase.EXITED), endless)
    assert "in a file" in task.error
    driver.barrier()


def test_secrets_of_the_control_plane_are_not_handed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SERRIED_TOKEN", "not for others")
    monkeypatch.setenv("PYTHONPATH", "as/it/was")
    local = LocalBench(tmp_path)
    try:
        driver, file = Driver(local), local.scratch / "environment"
        driver.run(driver.launch(f"env > {file}"), Phase.EXITED)
        assert "not for others" not in file.read_text()
        assert "PYTHONPATH=as/it/was\n" in file.read_text()
    finally:
        local.engine.shutdown(0)


def test_a_node_that_is_declared_no_more_runs_nothing(tmp_path):
    local = LocalBench(tmp_path)
    driver, file = Driver(local), local.scratch / "pids"
    driver.run(driver.launch(DAEMON.format(file=file) + STAY.format(file=file)))
    wait_for(lambda: len(pids_in(file)) == 2, "the rank and its child")
    local.engine.close()
    assert len(living(file)) == 2
    local.nodes = NODES[1:]
    local.engine = local.open()
    try:
        wait_for(lambda: not living(file), "their end")
        assert [node.name for node in driver.see().nodes] == ["node-1"]
    finally:
        local.engine.shutdown(0)


def test_two_drivers_on_one_state_are_one_to_the_agents(local):
    driver, file = Driver(local), local.scratch / "pids"
    launch = driver.launch(STAY.format(file=file), ranks=(2, 2))
    other = local.open()
    try:
        nodes = [row.node for row in launch.rows]

        def order():
            other.start(launch, nodes)
            driver.start(launch)

        for engine in (local.engine, other):
            driver.until(lambda _, engine=engine: all_rows(engine.observe(0), launch,
                                                           lambda task: task.phase == Phase.RUNNING), order=order)
        wait_for(lambda: len(pids_in(file)) == 4, "the gang")
        driver.until(lambda _: not other.stop(launch.attempt, nodes, 0) and all_rows(
            driver.see(), launch, lambda task: task.phase == Phase.GONE))
        driver.start(launch)
        driver.barrier()
        assert len(pids_in(file)) == 4
    finally:
        other.close()


@pytest.mark.parametrize("cgroups", [True, False])
def test_a_child_that_lost_every_mark_does_not_survive_its_row(tmp_path, cgroups):
    """It left the session, the parent and the environment; the agent, who reaps orphans, still knows it for one."""
    local = LocalBench(tmp_path, cgroups=cgroups)
    try:
        driver, file = Driver(local), local.scratch / "pids"
        other = driver.launch(STAY.format(file=f"{file}.other"), ranks=(2,))
        driver.run(other)
        wait_for(lambda: len(pids_in(Path(f"{file}.other"))) == 2, "another row on the same node")
        launch = driver.launch(f"(env -i setsid /bin/sh -c 'echo $$ >> {file}; exec /bin/sleep 1000' "
                               f"</dev/null >/dev/null 2>&1 &); while ! [ -s {file} ]; do sleep 0.01; done")
        driver.run(launch, Phase.EXITED)
        assert pids_in(file)
        assert not living(file)
        assert len(living(Path(f"{file}.other"))) == 2
    finally:
        local.engine.shutdown(0)


def test_shutdown_ends_agents_and_ranks(local):
    driver, file = Driver(local), local.scratch / "pids"
    driver.run(driver.launch(DAEMON.format(file=file) + STAY.format(file=file), ranks=(1, 1)))
    wait_for(lambda: len(pids_in(file)) == 4, "ranks and children")
    agents = [local.agent(name) for name in ("node-0", "node-1")]
    local.engine.shutdown(10_000_000)
    assert not living(file)
    assert not any(process_start(pid) for pid in agents)


def test_a_launch_on_an_unknown_node_starts_nowhere(local):
    driver, file = Driver(local), local.scratch / "pids"
    launch = driver.launch(STAY.format(file=file))
    odd = Row(node="elsewhere", incarnation="x", chips=(0,), first_rank=1, rank_count=1)
    local.engine.start(type(launch)(attempt=launch.attempt, name="", argv=launch.argv, rows=(*launch.rows, odd)),
                       ["node-0", "elsewhere"])
    local.engine.stop(launch.attempt, ["elsewhere"], 0)
    local.engine.fence("elsewhere")
    driver.barrier()
    assert not file.exists()
