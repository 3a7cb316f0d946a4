"""The agent of a node against everything that is not its engine: strange bytes, a second agent, no directory."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serried.runners import AttemptId, Phase
from serried.runners.containment import process_start
from serried.runners.node_files import NodeFiles
from serried.runners.orders import BadOrder, read_order, read_task
from tests.laws.source import ROOT
from tests.runners.contract import STAY, Driver, living, pids_in
from tests.runners.local_bench import LocalBench
from tests.runners.test_local import wait_for

START = {"order": "start", "attempt": [1, 2], "incarnation": "x", "argv": ["true"], "directory": "",
         "environment": {}, "limits": {"open_files": 0, "memory_bytes": 0, "core_bytes": 0}, "log_limit_bytes": 1000,
         "log_kept_parts": 1, "ranks": [{"rank": 0, "environment": {}}]}


def hang_up_after(files: NodeFiles, data: bytes) -> bytes:
    """What is said back until the other side hangs up."""
    with files.connect() as speaker:
        speaker.settimeout(60)
        heard = b""
        try:
            speaker.sendall(data)
            speaker.shutdown(socket.SHUT_WR)
            while chunk := speaker.recv(65536):
                heard += chunk
        except OSError:   # it hung up while we were speaking
            pass
        return heard


def test_strange_bytes_harm_nobody(local):
    driver, file = Driver(local), local.scratch / "pids"
    launch = driver.launch(STAY.format(file=file))
    driver.run(launch)
    wait_for(lambda: len(pids_in(file)) == 1, "the rank")
    agent, files, chance = local.agent("node-0"), local.files("node-0"), random.Random(7)
    hostile = [b"\n", b"\0" * 1000 + b"\n", b"{}\n", b"[]\n", b"null\n", b'"start"\n', b"{" * 100_000 + b"\n",
               b"[" * 100_000 + b"\n", b'{"order":"start"}\n', b'{"order":"stop","attempt":[1,1e400]}\n',
               b'{"order":"end","grace_ns":-1}\n', b'{"order":"end","grace_ns":true}\n', b'{"order":"end"}\n',
               b'{"order":"forget","attempt":[1,' + b"9" * 5000 + b"]}\n", b"\xff\xfe\n",
               *(bytes(chance.randrange(256) for _ in range(500)) + b"\n" for _ in range(50))]
    for data in hostile:
        assert b"refused" in hang_up_after(files, data), data[:50]
    hang_up_after(files, b"x" * (17 * 2**20))
    assert local.agent("node-0") == agent
    assert living(file) == pids_in(file)
    driver.barrier()


@pytest.mark.parametrize("change", [
    {"attempt": [1]}, {"attempt": [True, 1]}, {"attempt": [-1, 1]}, {"attempt": "1.2"}, {"argv": []}, {"argv": [""]},
    {"argv": "true"}, {"argv": ["true", 1]}, {"argv": ["a\0b"]}, {"argv": ["\ud800"]}, {"directory": None},
    {"environment": {"A": 1}}, {"environment": {"": "x"}}, {"environment": {"A=": "x"}}, {"environment": []},
    {"limits": None}, {"limits": {"open_files": -1}}, {"ranks": []}, {"ranks": [1]}, {"ranks": [{"rank": 0}]},
    {"ranks": [{"rank": 0, "environment": {}, "cores": [-1]}]}, {"log_limit_bytes": 0.5}, {"incarnation": 5}])
def test_a_start_is_checked_in_every_part(change):
    assert read_order(json.dumps(START).encode()).attempt == AttemptId(1, 2)
    with pytest.raises(BadOrder):
        read_order(json.dumps({**START, **change}).encode())


@pytest.mark.parametrize("words", [None, [], {}, {"attempt": [1, 2]}, {
    "attempt": [1, 2], "node": "n", "incarnation": "i", "phase": 9, "error": "", "ranks": []}, {
    "attempt": [1, 2], "node": "n", "incarnation": "i", "phase": 1, "error": "", "ranks": [[0]]}])
def test_a_task_is_checked_too(words):
    with pytest.raises(BadOrder):
        read_task(words)


def test_a_node_has_one_agent(local):
    Driver(local).incarnations()
    agent = local.agent("node-0")
    second = subprocess.run([sys.executable, "-m", "serried.runners.agent", str(local.state), "node-0"],
                            env={**os.environ, "PYTHONPATH": f"{ROOT}/src"}, timeout=60, check=False)
    assert second.returncode == 3
    assert local.agent("node-0") == agent
    assert process_start(agent)


def test_an_agent_whose_directory_was_taken_away_ends_with_all_it_runs(tmp_path):
    local = LocalBench(tmp_path, spawns=True)
    driver, file = Driver(local), local.scratch / "pids"
    driver.run(driver.launch(STAY.format(file=file), ranks=(1, 1)))
    wait_for(lambda: len(pids_in(file)) == 2, "two ranks")
    agents = [local.agent(name) for name in ("node-0", "node-1")]
    local.engine.close()
    shutil.rmtree(local.state)
    wait_for(lambda: not living(file) and not any(process_start(pid) for pid in agents), "the agents' end")


def test_sigterm_ends_an_agent_in_order(local):
    driver, file = Driver(local), local.scratch / "pids"
    launch = driver.launch(STAY.format(file=file))
    driver.run(launch)
    wait_for(lambda: len(pids_in(file)) == 1, "the rank")
    os.kill(local.agent("node-0"), signal.SIGTERM)
    driver.until(lambda seen: driver.incarnations()["node-0"] != launch.rows[0].incarnation)
    assert not living(file)
    assert [task.phase for task in driver.see().tasks if task.attempt == launch.attempt] == [Phase.GONE]


def test_a_long_path_is_no_obstacle(tmp_path):
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    local = LocalBench(deep)
    try:
        Driver(local).barrier()
    finally:
        local.engine.shutdown(0)


def test_the_directory_is_its_owners_alone(local):
    Driver(local).incarnations()
    for path in (local.state / "nodes", local.state / "nodes" / "node-0", local.state / "logs"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (local.state / "nodes" / "node-0" / "socket").stat().st_mode & 0o777 == 0o600


def test_an_agent_starts_without_the_heavy_libraries(local):
    Driver(local).incarnations()
    maps = Path(f"/proc/{local.agent('node-0')}/maps").read_text()
    assert not [name for name in ("numpy", "polars", "pydantic", "scipy") if name in maps]
