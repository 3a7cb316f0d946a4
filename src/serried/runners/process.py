"""How an order becomes one process: a rank that is confined before it is its program, and that dies with its agent."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from serried.runners.containment import Cage
from serried.runners.spec import Limits

__all__ = ["Started", "prepare_to_start", "start_process", "why_not"]

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_RESOURCES = (("open_files", resource.RLIMIT_NOFILE), ("memory_bytes", resource.RLIMIT_DATA),
              ("core_bytes", resource.RLIMIT_CORE))   # data, not addresses: programs reserve far more than they use
_OPEN_FILES_GIVEN = resource.getrlimit(resource.RLIMIT_NOFILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process that is about to become its program. output: where its output is read. verdict: where it says why it
    could not; it closes without a word when it could."""

    pid: int
    output: int
    verdict: int


def prepare_to_start() -> None:
    """From now on descendants that lose their parent are children of this process, which so hears of their end, and it
    may hold open what so many ranks need; they themselves are given what this process was given."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    most = _OPEN_FILES_GIVEN[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _confine(limits: Limits, cores: Sequence[int], *, agent: int, cage: Cage) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != agent:   # it died before it could be noticed that it would
        os._exit(127)
    cage.enter()
    for name in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(name, signal.SIG_DFL)   # what Python ignores would stay ignored
    resource.setrlimit(resource.RLIMIT_NOFILE, _OPEN_FILES_GIVEN)
    for field, what in _RESOURCES:
        amount = getattr(limits, field)
        if amount:
            try:
                resource.setrlimit(what, (amount, amount))
            except (OSError, ValueError) as error:
                raise OSError(f"limit {field} = {amount}: {error}") from error
    if cores:
        with contextlib.suppress(OSError):   # a core that went offline costs speed, not the job
            os.sched_setaffinity(0, cores)


def _become(argv: Sequence[str], environment: Mapping[str, str], directory: str, limits: Limits,
            cores: Sequence[int], *, agent: int, cage: Cage, output: int, verdict: int) -> NoReturn:
    stage = "confine"
    try:
        os.setsid()
        _confine(limits, cores, agent=agent, cage=cage)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        stage = "directory"
        os.chdir(directory)
        stage = "program"
        os.execvpe(argv[0], list(argv), dict(environment))
    except BaseException as error:   # whatever it is, a copy of the agent must not go on
        text = getattr(error, "strerror", None) or str(error)
        os.write(verdict, json.dumps([stage, text]).encode())
    finally:
        os._exit(127)


def start_process(argv: Sequence[str], environment: Mapping[str, str], directory: str, limits: Limits,
                  cores: Sequence[int], *, cage: Cage) -> Started:
    """Fork a rank. It leads a session of its own, and is killed if this process dies. Raises OSError."""
    output, output_end = os.pipe()
    try:
        verdict, verdict_end = os.pipe()
    except OSError:
        os.close(output)
        os.close(output_end)
        raise
    agent = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _become(argv, environment, directory, limits, cores, agent=agent, cage=cage, output=output_end,
                    verdict=verdict_end)
    except OSError:
        os.close(output)
        os.close(verdict)
        raise
    finally:
        os.close(output_end)
        os.close(verdict_end)
    os.set_blocking(output, False)
    os.set_blocking(verdict, False)
    return Started(pid=pid, output=output, verdict=verdict)


def why_not(verdict: bytes, argv: Sequence[str], directory: str, path: str) -> str:
    """The sentence for what a rank said when it could not become its program."""
    try:
        stage, text = json.loads(verdict)
    except ValueError:
        stage, text = "program", verdict.decode(errors="replace")
    if stage == "directory":
        return (f"directory = {directory!r}: expected a directory that this machine has ({text}). Make it on every "
                f"node, or name another one.")
    if stage == "program":
        where = "" if "/" in argv[0] else f" on PATH = {path!r}"
        return (f"argv[0] = {argv[0]!r}: expected a program that can be run{where} ({text}). Check its name and that "
                f"it is executable on every node, or give its full path.")
    return f"the rank could not be confined: {text}. Ask for less in limits, or mend the node."
