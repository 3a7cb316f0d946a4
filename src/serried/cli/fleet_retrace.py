"""`serried fleet retrace`: a live fleet's ledger, decided again by the simulator; was any chip held twice?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serried.cli.control_plane import AsJson, State, reach, say, without_extra
from serried.display.terminal import console
from serried.errors import BadInput, NoAnswer

if TYPE_CHECKING:   # an extra
    from serried.control.records import Record

__all__ = ["command"]

_PAGE = 1000


def command(
    file: Annotated[Path | None, typer.Argument(help="lines as `GET /v1/records` gives them; default: ask the control "
                                                     "plane, or read its database when none runs")] = None,
    database: Annotated[str, typer.Option(help="read this database, of a control plane that does not run")] = "",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Decide a live run again in the simulator: every decision must be the same, byte for byte."""
    try:
        from serried.control.history import check_history
        from serried.control.retrace import retrace
    except ImportError as error:
        raise without_extra(error) from None
    records = _of_file(file) if file is not None else _of_database(database) if database else _of_state(state)
    began_s = time.perf_counter()
    attempts, decisions = check_history(records), retrace(records)
    if as_json:
        say("fleet-retrace", records=len(records), attempts=attempts, decisions=decisions, same=True,
            timing={"items": len(records), "unit": "records", "wall_s": time.perf_counter() - began_s})
        return
    console().print(f"records: {len(records)}, decisions: {decisions}; the simulator decides every one of them in the "
                    f"same way\nattempts that ran: {attempts}; no chip was ever held twice", markup=False)


def _of_file(path: Path) -> list[Record]:
    from serried.control.records import record_from
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field="file", value=str(path), expected="a file of records", remedy=f"{error}.") from None
    found: list[Record] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(record_from(line))
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(file=str(path), field=f"line {number}", value=line[:80], expected="a record as JSON",
                           remedy=f"{type(error).__name__}: {error}.") from None
    return found


def _of_database(url: str) -> list[Record]:
    from serried.control.ledger_sql import SqlLedger
    ledger = SqlLedger(url)
    try:
        return list(ledger.read())
    finally:
        ledger.close()


def _of_state(state: Path | None) -> list[Record]:
    """Of the control plane that runs there, or of the file that it left."""
    from serried.api.endpoint import state_directory
    from serried.control.records import record_from
    try:
        with reach(state) as client:
            found: list[Record] = []
            while page := client.records(after=len(found) - 1, limit=_PAGE):
                found += map(record_from, page)
            return found
    except NoAnswer:
        path = state_directory(state) / "ledger.db"
        if not path.exists():
            raise
        return _of_database(f"sqlite:///{path.resolve()}")
