"""Where a control plane can be reached, written down for those who may: a file beside its state."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from serried.errors import BadInput, NoAnswer

__all__ = ["Endpoint", "find_endpoint", "remove_endpoint", "state_directory", "write_endpoint"]

_NAME = "endpoint.json"
_SCHEMA = "serried/endpoint/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A running control plane. token: whoever has it may do everything."""

    url: str
    token: str
    pid: int = 0


def state_directory(given: Path | None = None) -> Path:
    """Where a control plane keeps its state: what is given, or $XDG_STATE_HOME/serried, or ~/.local/state/serried."""
    if given is not None:
        return given
    home = os.environ.get("XDG_STATE_HOME", "")
    return Path(home) / "serried" if os.path.isabs(home) else Path.home() / ".local" / "state" / "serried"


def write_endpoint(state: Path, endpoint: Endpoint) -> None:
    """Write it for the owner's eyes alone; whoever reads sees the old file or the new one, never a half."""
    draft = state / f".{_NAME}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)   # the file may have been there with other rights
        json.dump({"schema": _SCHEMA, **asdict(endpoint)}, file)
    draft.replace(state / _NAME)


def remove_endpoint(state: Path) -> None:
    """The control plane of this process is gone. Another's file stays."""
    try:
        if find_endpoint(state).pid == os.getpid():
            (state / _NAME).unlink()
    except (NoAnswer, BadInput, FileNotFoundError):
        return


def find_endpoint(state: Path) -> Endpoint:
    """The control plane of a state directory, which may have died since. Raises NoAnswer when there is none."""
    path = state / _NAME
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return Endpoint(url=str(said["url"]), token=str(said["token"]), pid=int(said["pid"]))
    except FileNotFoundError:
        raise NoAnswer(f"No control plane runs on {state}.", binding="control plane", remedy="Start one: serried up"
                       f"{'' if state == state_directory() else f' --state {state}'}") from None
    except OSError as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a file that we may read",
                       remedy=str(error)) from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(file=str(path), field="file", value=path.name, expected="what `serried up` wrote",
                       remedy="End the control plane (serried down) and start it again.") from None
