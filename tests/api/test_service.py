"""The whole control plane in a process of its own, with real ranks: client, verbs, refusals, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from serried.api.client import Client
from serried.api.endpoint import Endpoint, find_endpoint, remove_endpoint, state_directory, write_endpoint
from serried.cli import main
from serried.control.spec import JobPhase, JobSpec
from serried.errors import BadInput, NoAnswer
from tests.cli.test_json_documented import _documented as documented_keys

NODES = '[[node]]\nname = "n{n}"\ncount = 2\nkind = "virtual"\nchips = 4\n'
TENANTS = '[[tenant]]\nname = "research"\nweight = 2.0\n[[tenant]]\nname = "product"\nquota = {virtual = 4}\n'


def serried(*words: object, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "serried.cli", *map(str, words)], capture_output=True, text=True,
                          timeout=timeout_s, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("live")
    (found / "nodes.toml").write_text(NODES)
    (found / "tenants.toml").write_text(TENANTS)
    return found


@pytest.fixture(scope="module")
def state(folder) -> Path:
    """A control plane that runs for all tests of this file."""
    found = folder / "state"
    begun = serried("up", "--background", "--state", found, "--nodes", folder / "nodes.toml", "--tenants",
                    folder / "tenants.toml", "--json")
    assert begun.returncode == 0, begun.stderr
    yield found
    ended = serried("down", "--state", found, "--json")
    assert ended.returncode == 0, ended.stderr
    assert not (found / "endpoint.json").exists()


@pytest.fixture
def client(state):
    with Client(state=state) as found:
        yield found


def until(client: Client, number: int, *phases: JobPhase) -> None:
    deadline_s = time.monotonic() + 40
    while client.job(number).phase not in phases:
        assert time.monotonic() < deadline_s, client.job(number)
        time.sleep(0.05)


def verb(capsys, state: Path, *words: object) -> dict:
    capsys.readouterr()
    assert main([*map(str, words), "--state", str(state), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) - {"schema"} == documented_keys()[found["schema"]]
    return found


def test_a_gang_from_file_to_its_last_line(state, tmp_path, capsys):
    path = tmp_path / "gang.toml"
    path.write_text('command = ["sh", "-c", "echo rank $RANK of $WORLD_SIZE; sleep 0.2; echo bye"]\nworkers = 2\n'
                    'tenant = "research"\n')
    number = verb(capsys, state, "submit", path, "--key", "a gang".replace(" ", "-"))["job"]
    assert verb(capsys, state, "submit", path, "--key", "a-gang")["job"] == number
    capsys.readouterr()
    assert main(["logs", str(number), "-f", "--rank", "1", "--state", str(state)]) is not None
    assert capsys.readouterr().out.splitlines()[0] == "rank 1 of 2"
    assert verb(capsys, state, "logs", number, "--tail", "1")["line"] == "bye"
    assert main(["submit", str(path), "--wait", "--state", str(state)]) == 0
    found = verb(capsys, state, "job", number)
    assert found["schema"] == "serried/job-history/1"
    assert (found["job"]["phase"], found["job"]["name"]) == ("succeeded", "gang")
    assert found["history"][0]["kind"] == "SUBMIT"
    assert number in [job["number"] for job in verb(capsys, state, "jobs", "--phase", "succeeded")["jobs"]]


def test_verbs_for_people_and_for_programs(state, client, capsys):
    number = client.submit(JobSpec(name="sleeper", argv=("sleep", "600"), workers=9, tenant="research"))
    assert "9" in verb(capsys, state, "why", number)["why"]["sentence"]
    assert verb(capsys, state, "drain", "n1", "--why", "fan")["nodes"][0]["state"] == "draining"
    top = verb(capsys, state, "top")
    assert (top["usage"]["chip_count"], {node["name"] for node in top["nodes"]}) == (8, {"n0", "n1"})
    assert number in [job["number"] for job in top["jobs"]]
    for words in (["top", "--once"], ["jobs"], ["job", str(number)], ["why", str(number)]):
        assert main([*words, "--state", str(state)]) in (0, None)
    assert "draining" in capsys.readouterr().out
    assert verb(capsys, state, "open", "n1")["nodes"][0]["state"] == "up"
    assert verb(capsys, state, "cancel", number)["jobs"][0]["phase"] == "cancelled"


def test_errors_of_the_control_plane_are_those_of_the_client(client, tmp_path, state, capsys):
    with pytest.raises(BadInput, match="serried jobs"):
        client.job(10**6)
    with pytest.raises(BadInput, match="tenant"):
        client.submit({"command": ["true"], "tenant": "nobody"})
    with pytest.raises(BadInput, match="command"):
        client.submit({"comand": ["true"]})
    with pytest.raises(BadInput, match="node"):
        client.drain("a/b?c")
    with pytest.raises(BadInput, match="phase"):
        client.jobs(phase="asleep")
    waiting = client.submit({"command": ["true"], "workers": 9})
    with pytest.raises(NoAnswer, match="not started"):
        list(client.logs(waiting))
    client.cancel(waiting)
    path = tmp_path / "wrong.toml"
    path.write_text('command = ["no-such-program-anywhere"]\nretries = 0\n')
    assert main(["submit", str(path), "--wait", "--state", str(state), "--json"]) == 1
    assert "no-such-program-anywhere" in json.loads(capsys.readouterr().out)["job"]["outcome"]


def test_a_wrong_token_and_a_wrong_place(state):
    endpoint = find_endpoint(state)
    with Client(endpoint.url, "wrong") as client, pytest.raises(BadInput, match=r"endpoint\.json"):
        client.usage()
    with Client("http://127.0.0.1:1", "x", patience_s=0) as client, pytest.raises(NoAnswer, match="Nobody answers"):
        client.usage()
    assert oct((state / "endpoint.json").stat().st_mode)[-3:] == "600"
    assert oct((state / "token").stat().st_mode)[-3:] == "600"
    assert oct(state.stat().st_mode)[-3:] == "700"


def test_pages_are_put_together(client):
    numbers = [client.submit({"command": ["true"], "workers": 9}) for _ in range(5)]
    assert [job.number for job in client.jobs(after=numbers[0] - 1, limit=5)] == numbers
    assert [job.number for job in client.jobs(after=numbers[0] - 1, limit=3)] == numbers[:3]
    for number in numbers:
        client.cancel(number)
    assert json.loads(client.records(limit=1)[0])["kind"] == "charter"
    assert "serried_chips" in client.metrics()


def test_what_cannot_be_is_refused_before_anything_runs(folder, state, tmp_path, capsys):
    new, nodes = str(tmp_path / "new"), str(folder / "nodes.toml")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["up", "--state", new, "--port", str(taken.getsockname()[1])]) == 2
    assert "free" in capsys.readouterr().err
    assert not Path(new).exists()
    (tmp_path / "tenants.toml").write_text(TENANTS + '[[tenant]]\nname = "x"\nparent = "reserch"\n')
    for words, what in (
            (("--state", str(state), "--nodes", nodes), "holds this"),
            (("--state", new, "--engine", "lokal"), "'local'"),
            (("--state", new, "--policy", "fare"), "fair"),
            (("--state", new, "--host", "0.0.0.0"), "loopback"),
            (("--state", new, "--host", "no.such.host.invalid"), "this machine"),
            (("--state", new, "--nodes", str(tmp_path / "none.toml")), "none.toml"),
            (("--state", new, "--nodes", nodes, "--tenants", str(tmp_path / "tenants.toml")), "'research'"),
            (("--state", new, "--partition", "gpu"), "slurm"),
            (("--state", new, "--database", "mysql://a/b"), "postgresql"),
            (("--state", "/proc/nowhere"), "--state")):
        assert main(["up", *words]) == 2, words
        assert what in capsys.readouterr().err
    assert not list(Path(new).glob("local/nodes/*")), "no agent was started"
    (Path(new) / "ledger.db").write_bytes(b"no database" * 1000)
    found = serried("up", "--state", new)
    assert (found.returncode, "Restore a copy" in found.stderr, "Traceback" in found.stderr) == (2, True, False)


def test_without_a_control_plane_the_remedy_is_named(tmp_path, capsys):
    for words in (["jobs"], ["why", "0"], ["top"], ["down"], ["logs", "0"], ["cancel", "0"], ["drain", "a"]):
        assert main([*words, "--state", str(tmp_path)]) == 1
        assert "serried up" in capsys.readouterr().err


def test_killed_and_taken_up_again_then_ended_without_it(folder, tmp_path):
    """Jobs outlive the control plane, another fleet is refused, a larger one adopts them; `down` ends what is left."""
    found, words = tmp_path / "state", ("--nodes", folder / "nodes.toml")
    assert serried("up", "--background", "--state", found, *words).returncode == 0
    before = find_endpoint(found)
    with Client(state=found) as client:
        number = client.submit(JobSpec(name="sleeper", argv=("sleep", "600"), workers=2), "once")
        until(client, number, JobPhase.RUNNING)
        pids = [rank.pid for rank in client.job(number).ranks]
        os.kill(before.pid, signal.SIGKILL)
        other = tmp_path / "other.toml"
        other.write_text(NODES.replace('name = "n', 'name = "another'))
        while _lives(before.pid):
            time.sleep(0.02)
        refused = serried("up", "--state", found, "--nodes", other)
        assert (refused.returncode, "--nodes" in refused.stderr) == (2, True)
        assert all(map(_lives, pids))
        more = tmp_path / "more.toml"
        more.write_text(NODES.replace("count = 2", "count = 3"))
        again = serried("up", "--background", "--state", found, "--nodes", more, "--policy", "strict")
        assert again.returncode == 0, again.stderr
        assert find_endpoint(found).token == before.token
    with Client(state=found) as client:
        assert (len(client.nodes()), client.usage().policy) == (3, "strict")
        assert client.submit(JobSpec(name="sleeper", argv=("sleep", "600"), workers=2), "once") == number
        until(client, number, JobPhase.RUNNING)
        assert [rank.pid for rank in client.job(number).ranks] == pids
    os.kill(find_endpoint(found).pid, signal.SIGKILL)
    ended = serried("down", "--state", found)
    assert (ended.returncode, "1 jobs were ended" in ended.stdout) == (0, True), ended
    assert not any(map(_lives, pids))


def test_interrupting_it_leaves_the_jobs(folder, tmp_path):
    found = tmp_path / "state"
    process = subprocess.Popen([sys.executable, "-m", "serried.cli", "up", "--state", str(found), "--nodes",
                                str(folder / "nodes.toml")], stdout=subprocess.PIPE, text=True)
    assert "serried is up" in process.stdout.readline()
    with Client(state=found) as client:
        number = client.submit(JobSpec(name="sleeper", argv=("sleep", "600")))
        until(client, number, JobPhase.RUNNING)
        pid = client.job(number).ranks[0].pid
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert _lives(pid)
    assert not (found / "endpoint.json").exists()
    assert serried("down", "--state", found).returncode == 0
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_following_a_log_across_a_restart(client, tmp_path):
    number = client.submit({
        "command": ["sh", "-c", f"echo attempt; test -e {tmp_path}/second && exit 0; touch {tmp_path}/second; exit 3"],
        "backoff": "0.1 s"})
    assert b"".join(client.logs(number, follow=True)) == b"attempt\nattempt\n"
    assert client.job(number).phase == JobPhase.SUCCEEDED


def test_the_endpoint_file(tmp_path, monkeypatch):
    endpoint = Endpoint(url="http://127.0.0.1:1", token="secret", pid=1)
    write_endpoint(tmp_path, endpoint)
    assert find_endpoint(tmp_path) == endpoint
    remove_endpoint(tmp_path)   # another process's stays
    assert find_endpoint(tmp_path) == endpoint
    for text in ("", "{}", "[]", '{"url": 1}', "\xff"):
        (tmp_path / "endpoint.json").write_text(text, encoding="latin-1")
        with pytest.raises(BadInput, match=r"endpoint\.json"):
            find_endpoint(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_directory() == tmp_path / "serried"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_directory() == Path.home() / ".local" / "state" / "serried"


def test_a_client_asks_again_under_the_same_key(monkeypatch):
    """An answer that is lost, and a ledger that is away, do not become two jobs."""
    keys, answers = [], iter([httpx.ConnectError("gone"), httpx.ReadError("cut"), httpx.Response(503, json={
        "schema": "serried/error/1", "error": "unavailable", "message": "away", "binding": ""}),
        httpx.Response(201, json={"schema": "serried/submitted/1", "job": 7})])

    def handle(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = Client("http://serried", "token")
    client._http = httpx.Client(base_url="http://serried", transport=httpx.MockTransport(handle))
    monkeypatch.setattr("serried.api.client._FIRST_PAUSE_S", 0.001)
    assert client.submit({"command": ["true"]}) == 7
    assert len(keys) == 4
    assert len(set(keys)) == 1
