"""A whole control plane in one process: ledger, engine, loop, application, port; begun and ended in order.

What can be refused is refused before anything runs: the port and the state are taken first, then the ledger is read,
then the engine begins. Ending it lets the jobs go on; whoever asked for their end as well gets that first.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from serried.api.application import application
from serried.api.endpoint import Endpoint, remove_endpoint, write_endpoint
from serried.api.garbage import idle_collections
from serried.api.job_routes import FINAL
from serried.api.server import Server, listen, log_in
from serried.control.amending import check_follows, followed
from serried.control.books import Books
from serried.control.charter import Charter, charter_from
from serried.control.ledger import Ledger
from serried.control.ledger_sql import SqlLedger
from serried.control.loop import ControlLoop
from serried.control.ownership import FileLock
from serried.control.tenants import read_tenants
from serried.errors import BadInput, NoAnswer, SerriedError, nearest
from serried.fleet import Tenant
from serried.runners import Engine, Node

__all__ = ["ENGINES", "Order", "read_order", "run_service"]

ENGINES = ("local", "slurm")
_END_PATIENCE_S = 60.0
_ORDER = "order.json"
#: How long the loop's thread may keep the interpreter from the door's: a request needs it several times, and Python's
#: own 5 ms would be waited for each time.
_SWITCH_S = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to run. database: a URL, "" = a file in the state directory. nodes: a file, None = this
    machine as one node. tenants: a file; None, like policy "" and seed None, = as before: at first one tenant, "fair"
    and 0. expose: whether others than this machine may reach it. partition: of the Slurm cluster."""

    state: Path
    engine: str = "local"
    database: str = ""
    nodes: Path | None = None
    tenants: Path | None = None
    policy: str = ""
    seed: int | None = None
    host: str = "127.0.0.1"
    port: int = 0
    expose: bool = False
    partition: str = ""


def read_order(state: Path) -> Order:
    """What last ran on this state. Raises NoAnswer where nothing ever did."""
    try:
        said = json.loads((state / _ORDER).read_text(encoding="utf-8"))
        paths = {name: Path(said[name]) for name in ("nodes", "tenants") if said[name] is not None}
        return Order(**{**said, **paths, "state": state})
    except FileNotFoundError:
        raise NoAnswer(f"No control plane ever ran on {state}.", remedy="Start one: serried up") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(file=str(state / _ORDER), field="order", value=str(error), expected="what `serried up` wrote",
                       remedy="Run serried up as before, and then serried down.") from None


def _write_order(order: Order) -> None:
    """Keep it, so that `down` can end what a control plane left behind that was killed."""
    files = {name: None if path is None else str(path.absolute())
             for name, path in (("nodes", order.nodes), ("tenants", order.tenants))}
    draft = order.state / f".{_ORDER}.{os.getpid()}"
    draft.touch(mode=0o600)   # the database's password may be in it
    draft.write_text(json.dumps({**asdict(order), **files, "state": ""}), encoding="utf-8")
    draft.replace(order.state / _ORDER)


def run_service(order: Order, *, ready: Callable[[Endpoint, ControlLoop], None] | None = None,
                only_end: bool = False) -> None:
    """Run a control plane until a signal or a request ends it. ready: called once it can be reached. only_end: take the
    state up as it is, and end all of its jobs and whatever runs them at once.

    Raises BadInput for what cannot be (a port or state that is taken, a database that is not ours, another fleet), and
    LedgerLost when the database cannot be reached.
    """
    with ExitStack() as undo:
        listener = undo.enter_context(listen(order.host, order.port, everywhere=order.expose))
        _make_private(order.state)
        undo.callback(FileLock(order.state / "control.lock", str(order.state)).release)
        undo.enter_context(log_in(order.state / "control.log"))
        ledger = SqlLedger(order.database or f"sqlite:///{order.state.resolve() / 'ledger.db'}")
        undo.callback(ledger.close)
        engine, charter = _engine_of(order, ledger)
        ending = _Ending(engine)
        undo.callback(ending.close_engine)
        loop = ControlLoop(ledger, engine, charter)
        _listen_to(engine, loop)
        _write_order(order)
        token = _token(order.state)
        server = Server(application(loop, token, down=ending.ask), listener)
        ending.stops = server.stop
        loop.start()
        undo.callback(loop.stop)
        endpoint = Endpoint(url=server.url, token=token, pid=os.getpid())
        write_endpoint(order.state, endpoint)
        undo.callback(remove_endpoint, order.state)
        log = structlog.get_logger("serried.service")
        log.info("up", url=endpoint.url, engine=order.engine, database=ledger.place, policy=charter.policy)
        undo.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(_SWITCH_S)
        loop.on_idle = undo.enter_context(idle_collections())
        with _Signals(server.stop):
            if ready is not None:
                ready(endpoint, loop)
            if only_end:
                ending.ask(True)
            server.run()
        if ending.jobs_too:
            _end_jobs(loop)
        log.info("down", jobs_too=ending.jobs_too)


class _Ending:
    """How it is to end, asked for over HTTP. stops: makes the server return."""

    def __init__(self, engine: Engine) -> None:
        self.jobs_too = False
        self.stops: Callable[[], None] = lambda: None
        self._engine = engine

    def ask(self, jobs_too: bool) -> None:
        """End soon."""
        self.jobs_too = self.jobs_too or jobs_too
        self.stops()

    def close_engine(self) -> None:
        """Let go of the engine; with the jobs' end asked for, end whatever it keeps running for them as well."""
        shutdown = getattr(self._engine, "shutdown", None)
        if self.jobs_too and shutdown is not None:
            shutdown()
        else:
            self._engine.close()


def _end_jobs(loop: ControlLoop) -> None:
    """Cancel every job that is not over, and wait until none of their processes is left, a minute at most."""
    log = structlog.get_logger("serried.service")
    try:
        after, waiting = -1, []
        while page := loop.jobs(after=after, limit=1000).result(_END_PATIENCE_S):
            waiting += [loop.cancel(job.number) for job in page if job.phase not in FINAL]
            after = page[-1].number
        numbers = [future.result(_END_PATIENCE_S).number for future in waiting]
        until_s = time.monotonic() + _END_PATIENCE_S
        while numbers and time.monotonic() < until_s:
            numbers = [number for number in numbers if loop.job(number).result(_END_PATIENCE_S).phase not in FINAL]
            time.sleep(0.05)
        if numbers:
            log.warning("jobs are still ending", jobs=numbers)
    except (SerriedError, TimeoutError) as error:
        log.error("jobs were not ended", why=str(error))


def _make_private(state: Path) -> None:
    """The state directory, for its owner alone: it holds the token, and everybody's commands."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(state, os.W_OK | os.X_OK):
            raise PermissionError(13, "we may not write there")
    except OSError as error:
        raise BadInput(field="--state", value=str(state), expected="a directory that we may write",
                       remedy=f"{error.strerror}: name another one.") from None


def _token(state: Path) -> str:
    """The token of this state, the same one after every restart: who waits for an answer can ask again."""
    path = state / "token"
    if not path.exists():
        draft = state / f".token.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
        draft.replace(path)
    found = path.read_text(encoding="ascii").strip()
    if len(found) < 16:
        raise BadInput(file=str(path), field="token", value=f"{len(found)} characters", expected="16 or more",
                       remedy="Remove the file; another token is made.")
    return found


def _engine_of(order: Order, ledger: SqlLedger) -> tuple[Any, Charter]:
    """The engine of that name, and the fleet that it offers. Its room is loaded only now: nobody pays for the others.

    A fleet that cannot follow the ledger's is refused before an engine begins: the local one ends what runs on nodes
    that are declared no more.
    """
    if order.engine == "local" and not order.partition:
        declared = importlib.import_module("serried.runners.local_nodes")
        nodes = declared.this_machine() if order.nodes is None else declared.read_local_nodes(order.nodes)
        charter = _charter_of(order, ledger, [one.node for one in nodes])
        room = importlib.import_module("serried.runners.local")
        return room.LocalEngine(order.state / "local", nodes, owner=_identity(ledger)), charter
    if order.engine == "slurm" and order.nodes is None:
        room = importlib.import_module("serried.runners.slurm")
        _refuse_another_ledger(order.state / "slurm", _identity(ledger))
        engine = room.SlurmEngine(order.state / "slurm", partition=order.partition)
        try:
            return engine, _charter_of(order, ledger, engine.nodes())
        except SerriedError:
            engine.close()
            raise
    if order.engine == "slurm":
        raise BadInput(field="--nodes", value=str(order.nodes), expected="nothing, with Slurm",
                       remedy="Slurm says which nodes there are; --partition chooses among them.")
    if order.engine == "local":
        raise BadInput(field="--partition", value=order.partition, expected="nothing, with the local engine",
                       remedy="Say --engine slurm.")
    near = nearest(order.engine, ENGINES, count=1)
    raise BadInput(field="--engine", value=order.engine, expected=f"one of {', '.join(ENGINES)}",
                   remedy=f"Perhaps {near[0]!r} is meant." if near else "Choose one of them.")


def _identity(ledger: SqlLedger) -> str:
    """What tells this ledger from any other: attempts are numbered alike in all of them, and an engine must not take
    what another ledger ordered for what this one did."""
    found = ledger.get("identity")
    if not found:
        found = secrets.token_hex(8)
        ledger.put("identity", found)
    return found


def _refuse_another_ledger(folder: Path, identity: str) -> None:
    """A shared directory is one ledger's: what runs on a cluster cannot be ended in passing, as local jobs can."""
    said = folder / "owner"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not said.exists():
        said.write_text(identity, encoding="ascii")
    if said.read_text(encoding="ascii") != identity:
        raise BadInput(field="--database", value=str(folder), expected="the ledger that ordered what is in this "
                       "directory", remedy="Name that database, or another state directory (--state).")


def _charter_of(order: Order, ledger: Ledger, declared: Sequence[Node]) -> Charter:
    """What the ledger is to be about from now on. Raises BadInput for tenants and a policy that cannot be, and for what
    does not follow from its charter so far."""
    last = ledger.charters()[-1:]
    kept = charter_from(last[0].fields()) if last else None
    nodes, absent = followed(kept, declared)
    before = kept or Charter(nodes=nodes)
    kinds = tuple(dict.fromkeys(node.kind for node in nodes))
    tenants = read_tenants(order.tenants, kinds) if order.tenants else tuple(
        _with_quotas(tenant, len(kinds)) for tenant in before.tenants)
    charter = Charter(nodes=nodes, tenants=tenants, policy=order.policy or before.policy, absent=absent,
                      seed=before.seed if order.seed is None else order.seed)
    charter.scheduler(charter.fleet())
    if kept is not None and kept != charter:
        books = Books.read(ledger)
        assert books is not None, "it has a charter"
        check_follows(books, charter)
        _say_what_changes(kept, charter)
    return charter


def _with_quotas(tenant: Tenant, kind_count: int) -> Tenant:
    """A tenant of before has no right to kinds that came later."""
    quotas = tenant.quota_chips_K
    return replace(tenant, quota_chips_K=quotas + (0,) * (kind_count - len(quotas))) if quotas else tenant


def _say_what_changes(kept: Charter, charter: Charter) -> None:
    """Into the log, so that whoever asks later why a job went elsewhere finds the day."""
    was, now = ({node.name for node in one.nodes} - set(one.absent) for one in (kept, charter))
    structlog.get_logger("serried.service").info(
        "the fleet changes", joined=sorted(now - was), left=sorted(was - now), policy=charter.policy,
        tenants=[tenant.name for tenant in charter.tenants])


def _listen_to(engine: Any, loop: ControlLoop) -> None:
    """News of the engine wakes the loop, which else looks once a tick."""
    if hasattr(engine, "on_change"):
        engine.on_change = loop.wake


class _Signals:
    """SIGINT and SIGTERM end the server; everything else is put back afterwards."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._heard)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self._stop()
