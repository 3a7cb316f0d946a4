"""`serried up`: a control plane on this machine, with API, state and engine, and nothing to configure."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serried.cli.control_plane import AsJson, State, say, without_extra
from serried.display.terminal import console
from serried.errors import BadInput, NoAnswer

if TYPE_CHECKING:
    from serried.api.endpoint import Endpoint
    from serried.control.loop import ControlLoop

__all__ = ["command"]

_BEGIN_PATIENCE_S = 60.0


def command(
    engine: Annotated[str, typer.Option(help="what runs the jobs: local or slurm")] = "local",
    nodes: Annotated[Path | None, typer.Option(help="local engine: a file of nodes, perhaps with virtual chips; "
                                                    "default: this machine")] = None,
    partition: Annotated[str, typer.Option(help="Slurm engine: the partition that serried owns")] = "",
    tenants: Annotated[Path | None, typer.Option(help="a file of tenants; default: as before, at first one "
                                                      "for all")] = None,
    database: Annotated[str, typer.Option(help="postgresql://USER:PASSWORD@HOST/NAME or sqlite:///FILE; default: a "
                                               "file in the state directory")] = "",
    policy: Annotated[str, typer.Option(help="who goes first and where, as of serried fleet compare; default: as "
                                             "before, at first fair")] = "",
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="of what the policy draws; default: as before, "
                                                                        "at first 0")] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="port to listen on; 0 = any that is free")] = 0,
    expose: Annotated[bool, typer.Option("--expose", help="let others than this machine reach it: the token travels "
                                                          "in the clear")] = False,
    background: Annotated[bool, typer.Option("--background", help="return once it runs")] = False,
    state: State = None,
    as_json: AsJson = False,
) -> int:
    """Run the control plane until Ctrl-C or `serried down`. Ctrl-C leaves the jobs running: the next up adopts them."""
    from serried.api.endpoint import state_directory

    folder = state_directory(state)
    if background:
        return _in_background(folder, as_json=as_json)
    try:
        from serried.api.service import Order, run_service
    except ImportError as error:
        raise without_extra(error) from None
    order = Order(state=folder, engine=engine, database=database, nodes=nodes, tenants=tenants, policy=policy,
                  seed=seed, host=host, port=port, expose=expose, partition=partition)
    run_service(order, ready=lambda endpoint, loop: _tell(endpoint, loop, folder, state, as_json=as_json))
    if not as_json:
        console().print("the control plane has ended", markup=False)
    return 0


def _tell(endpoint: Endpoint, loop: ControlLoop, folder: Path, state: Path | None, *, as_json: bool) -> None:
    """Where it is, and what to do next."""
    usage = loop.usage().result()
    if as_json:
        say("up", url=endpoint.url, pid=endpoint.pid, state=str(folder), chip_count=usage.chip_count,
            engine=usage.engine, policy=usage.policy)
        sys.stdout.flush()
        return
    more = "" if state is None else f" --state {state}"
    console().print(
        f"serried is up at {endpoint.url}: {usage.chip_count} chips on the {usage.engine} engine, policy "
        f"{usage.policy}\n  state, token and log are in {folder}\n"
        f"  next: serried submit examples/job-train.toml{more} ; serried top{more}\n"
        f"  Ctrl-C ends the control plane and leaves jobs running; serried down{more} ends both", markup=False)


def _in_background(folder: Path, *, as_json: bool) -> int:
    """The same command in a session of its own; returns once it can be reached, or with what kept it from that."""
    from serried.api.endpoint import find_endpoint

    words = [word for word in sys.argv[1:] if word not in ("--background", "--json")]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = folder / "up.log"
    with said.open("wb") as output:
        child = subprocess.Popen([sys.executable, "-m", "serried.cli", *words], stdin=subprocess.DEVNULL,
                                 stdout=output, stderr=output, start_new_session=True, cwd=os.getcwd())
    until_s = time.monotonic() + _BEGIN_PATIENCE_S
    while time.monotonic() < until_s:
        if child.poll() is not None:
            text = said.read_text(encoding="utf-8", errors="replace").strip()
            raise BadInput(field="up", value=" ".join(words), expected="a control plane that begins",
                           remedy=f"It said: {text}")
        try:
            endpoint = find_endpoint(folder)
        except NoAnswer:
            endpoint = None
        if endpoint is not None and endpoint.pid == child.pid:
            if as_json:
                say("up", url=endpoint.url, pid=endpoint.pid, state=str(folder))
            else:
                console().print(f"serried is up at {endpoint.url}, process {endpoint.pid}; serried down ends it",
                                markup=False)
            return 0
        time.sleep(0.05)
    child.terminate()
    raise NoAnswer(f"The control plane did not begin within {_BEGIN_PATIENCE_S:.0f} s.", remedy=f"{said} says more.")
