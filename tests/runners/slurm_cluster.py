"""A real Slurm cluster on this machine: several slurmd on loopback, in a directory of its own, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from serried.runners.slurm_commands import Slurm

_CONFIG = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CredType=cred/munge
StateSaveLocation={root}/controller
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/controller.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/controller.log
SlurmdLogFile={root}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
GresTypes=chip
TopologyPlugin=topology/tree
SlurmdTimeout={timeout_s}
SlurmctldTimeout=6
KillWait=2
MessageTimeout=3
TCPTimeout=1
ReturnToService=1
PartitionName=large Nodes=n[1-2] MaxTime=INFINITE State=UP
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
#: name -> chips; the last one is smaller than the others, and under another switch
CHIPS = {"n1": 4, "n2": 4, "n3": 2, "n4": 2}
_TOPOLOGY = "SwitchName=s1 Nodes=n[1-2]\nSwitchName=s2 Nodes=n[3-4]\nSwitchName=top Switches=s[1-2]\n"


def why_not() -> str:
    """Why there can be no cluster here; "" = there can."""
    missing = [tool for tool in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)"
    return "" if os.getuid() == 0 else "a cluster on loopback needs root"


class Cluster:
    """The daemons, each in a session of its own. `slurm` talks to them."""

    def __init__(self, root: Path, timeout_s: int = 5) -> None:
        self.root, self.daemons = root, {}
        self.devices = root / "devices"
        for name in ("keys", "munge", "controller", "devices"):
            (root / name).mkdir()
        root.chmod(0o755)   # munge wants its socket where everybody may go
        (root / "keys").chmod(0o700)
        (root / "keys" / "key").write_bytes(os.urandom(1024))
        (root / "keys" / "key").chmod(0o400)
        self.ports = _free_ports(len(CHIPS) + 1)
        self._write_config(timeout_s)
        self.slurm = Slurm(environment={"SLURM_CONF": str(root / "slurm.conf"), "PATH": os.environ["PATH"]})

    def _write_config(self, timeout_s: int) -> None:
        lines = [_CONFIG.format(root=self.root, port=self.ports[0], timeout_s=timeout_s).strip()]
        gres = []
        for (name, count), port in zip(CHIPS.items(), self.ports[1:], strict=True):
            lines.append(f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=8 "
                         f"RealMemory=1000 Gres=chip:virtual:{count}")
            devices = [self.devices / f"{name}.{chip}" for chip in range(count)]
            for number, device in enumerate(devices):
                os.mknod(device, 0o600 | 0o020000, os.makedev(1, 3 if number % 2 else 5))   # as null and zero are
            gres += [f"NodeName={name} Name=chip Type=virtual File={device}" for device in devices]
        (self.root / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.root / "gres.conf").write_text("\n".join(gres) + "\n")
        (self.root / "topology.conf").write_text(_TOPOLOGY)

    def up(self) -> None:
        """Start everything, and wait until every node may work."""
        munge = self.root / "munge"
        self._spawn("munged", ["munged", "--foreground", f"--key-file={self.root}/keys/key", f"--socket={munge}/socket",
                               f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed"])
        wait_until(lambda: (munge / "socket").exists(), "munged", 10)
        self.start_controller()
        for name in CHIPS:
            self.start_node(name)
        wait_until(lambda: all(node.responds for node in self.nodes().values()) and self.nodes(), "the nodes", 30)

    def start_controller(self) -> None:
        self._spawn("slurmctld", ["slurmctld", "-D", "-f", str(self.root / "slurm.conf")])

    def start_node(self, name: str) -> None:
        self._spawn(name, ["slurmd", "-D", "-N", name, "-f", str(self.root / "slurm.conf")])

    def nodes(self) -> dict:
        """The nodes as Slurm has them; nothing while it does not answer."""
        try:
            return {node.name: node for node in self.slurm.nodes()}
        except Exception:
            return {}

    def scontrol(self, *words: str) -> str:
        return self.slurm.run(["scontrol", *words])

    def kill(self, name: str) -> None:
        """kill -9 of one daemon."""
        self.daemons[name].kill()
        self.daemons.pop(name).wait()

    def stop(self, name: str) -> None:
        """An orderly end of one daemon: a controller that is killed within seconds of an allocation forgets it, runs
        the job again, and drains the node for it."""
        self.daemons[name].terminate()
        self.daemons.pop(name).wait()

    def kill_node(self, name: str) -> None:
        """What a lost machine looks like from outside: its daemon and all that Slurm started there die at once."""
        self.kill(name)
        for pid, words in environments():
            if f"SLURMD_NODENAME={name}".encode() in words or _is_step_of(pid, name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def down(self) -> None:
        """End every daemon, and whatever of their steps is left."""
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        own = f"SLURM_CONF={self.root}/slurm.conf".encode()
        for pid, words in environments():
            if own in words and pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _spawn(self, name: str, argv: list[str]) -> None:
        with (self.root / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.root,
                                                  env=self.slurm.environment, start_new_session=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def environments():
    """Process number and environment of everything that runs here."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), set((entry / "environ").read_bytes().split(b"\0"))


def _is_step_of(pid: int, node: str) -> bool:
    """A slurmstepd names its step in its command line, and its node by its slurmd's spool directory alone."""
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text().strip() == "slurmstepd":
            return any(f"spool.{node}" in os.readlink(entry) or f"slurmd.{node}.log" in os.readlink(entry)
                       for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False


def wait_until(holds, what: str, within_s: float = 15.0):
    """Ask until it is true; what it answered."""
    deadline_s = time.monotonic() + within_s
    while not (answer := holds()):
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)
    return answer


@pytest.fixture(scope="session")
def cluster():
    """One cluster for all tests of a worker."""
    reason = why_not()
    if reason:
        if os.environ.get("SERRIED_SERVERS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="serried-slurm-", ignore_cleanup_errors=True) as root:
        made = Cluster(Path(root))
        try:
            made.up()
            yield made
        finally:
            made.down()
