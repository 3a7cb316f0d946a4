"""The control plane from Python: the same questions as over HTTP, with answers as nouns and errors as exceptions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from serried.api.endpoint import find_endpoint, state_directory
from serried.control.job_form import form_of
from serried.control.ledger import LedgerLost
from serried.control.spec import JobSpec, JobView, NodeView, Usage
from serried.errors import BadInput, NoAnswer, SerriedError
from serried.fleet import Why

__all__ = ["Client"]

T = TypeVar("T")
_JOB, _JOBS = TypeAdapter(JobView), TypeAdapter(list[JobView])
_NODE, _NODES = TypeAdapter(NodeView), TypeAdapter(list[NodeView])
_USAGE, _WHY = TypeAdapter(Usage), TypeAdapter(Why)
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.1, 2.0


class Client:
    """A control plane at `url` that takes `token`; by default that of the state directory.

    patience_s: for so long a request is repeated while nobody answers or the ledger is away; submissions are repeated
    under the same key, so that none becomes two jobs. Raises BadInput and NoAnswer as the control plane does, and
    NoAnswer when it cannot be reached.
    """

    def __init__(self, url: str = "", token: str = "", *, state: Path | None = None, patience_s: float = 10.0) -> None:
        if not url:
            found = find_endpoint(state_directory(state))
            url, token = found.url, found.token
        self.url, self._patience_s = url, patience_s
        # the environment's proxies and certificates are for other places
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60.0,
                                  trust_env=False)

    def __enter__(self) -> Self:
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def submit(self, job: JobSpec | Mapping[str, Any], key: str = "") -> int:
        """The number of a job, once it is on the disk. job: a spec, or a form as of docs/job-file.md; key: the same one
        again is the same job (without one, every call is a new job)."""
        form = form_of(job) if isinstance(job, JobSpec) else dict(job)
        answer = self._ask("POST", "/v1/jobs", json=form, headers={"Idempotency-Key": key or secrets.token_hex(16)})
        return int(answer["job"])

    def job(self, number: int) -> JobView:
        """A job as it stands."""
        return _JOB.validate_python(self._ask("GET", f"/v1/jobs/{number}")["job"])

    def jobs(self, *, phase: str = "", tenant: str = "", after: int = -1, limit: int = 100) -> list[JobView]:
        """At most `limit` jobs of a number above `after`, in order."""
        filters = {name: value for name, value in (("phase", phase), ("tenant", tenant)) if value}
        found: list[JobView] = []
        while len(found) < limit:
            page = self._ask("GET", "/v1/jobs", params={**filters, "after": after,
                                                        "limit": min(limit - len(found), 1000)})
            found += _JOBS.validate_python(page["jobs"])
            if page["next_after"] is None:
                break
            after = page["next_after"]
        return found

    def cancel(self, number: int) -> JobView:
        """End a job."""
        return _JOB.validate_python(self._ask("POST", f"/v1/jobs/{number}/cancel")["job"])

    def why(self, number: int) -> Why:
        """Why a job waits."""
        return _WHY.validate_python(self._ask("GET", f"/v1/jobs/{number}/why")["why"])

    def history(self, number: int) -> list[dict[str, Any]]:
        """What happened to a job, oldest first."""
        found: list[dict[str, Any]] = self._ask("GET", f"/v1/jobs/{number}/history")["history"]
        return found

    def logs(self, number: int, *, rank: int = 0, tail: int = -1, follow: bool = False, epoch: int | None = None,
             ) -> Iterator[bytes]:
        """What a rank wrote, in pieces; with `follow` until the job ends."""
        words = {"rank": rank, "tail": tail, "follow": follow, **({} if epoch is None else {"epoch": epoch})}
        with self._reaching(), self._http.stream("GET", f"/v1/jobs/{number}/logs", params=words,
                                                 timeout=httpx.Timeout(60.0, read=None)) as answer:
            if answer.status_code != 200:
                answer.read()
                raise _error_of(answer)
            yield from answer.iter_raw()

    def nodes(self) -> list[NodeView]:
        """Every node."""
        return _NODES.validate_python(self._ask("GET", "/v1/nodes")["nodes"])

    def drain(self, node: str, why: str = "") -> NodeView:
        """Let nothing new start on a node."""
        return _NODE.validate_python(self._ask("POST", f"/v1/nodes/{_path(node)}/drain", params={"why": why})["node"])

    def open(self, node: str) -> NodeView:
        """Let a drained node take work again."""
        return _NODE.validate_python(self._ask("POST", f"/v1/nodes/{_path(node)}/open")["node"])

    def usage(self) -> Usage:
        """The fleet at a glance."""
        return _USAGE.validate_python(self._ask("GET", "/v1/usage")["usage"])

    def records(self, after: int = -1, limit: int = 1000) -> list[str]:
        """Lines of the ledger."""
        found: list[str] = self._ask("GET", "/v1/records", params={"after": after, "limit": limit})["records"]
        return found

    def metrics(self) -> str:
        """Figures as Prometheus reads them."""
        with self._reaching():
            return self._http.get("/metrics").raise_for_status().text

    def down(self, *, jobs: bool = False) -> Usage:
        """End the control plane, and its jobs too; tells how things stood."""
        return _USAGE.validate_python(self._ask("POST", "/v1/down", params={"jobs": jobs})["usage"])

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """One question, repeated while it cannot be answered; every one of them may be asked twice."""
        until_s, pause_s = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            try:
                with self._reaching():
                    answer = self._http.request(method, path, **more)
                if answer.status_code < 300:
                    found: dict[str, Any] = answer.json()
                    return found
                raise _error_of(answer)
            except (LedgerLost, _Unreachable):
                if time.monotonic() + pause_s > until_s:
                    raise
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, _MOST_PAUSE_S)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise _Unreachable(f"Nobody answers at {self.url} ({error}).", binding="control plane",
                               remedy="It may have ended: start it with serried up; what it runs goes on.") from None
        except httpx.HTTPError as error:
            raise NoAnswer(f"{self.url} answers strangely: {error}.") from None


class _Unreachable(NoAnswer):
    """The request may or may not have arrived."""


def _path(name: str) -> str:
    return quote(name, safe="")


def _error_of(answer: httpx.Response) -> SerriedError:
    """The exception that the control plane raised."""
    try:
        said = answer.json()
        if said["schema"] != "serried/error/1":
            raise KeyError
    except (ValueError, KeyError, TypeError):
        return NoAnswer(f"{answer.url} answered {answer.status_code}, which is not serried's way.",
                        remedy="Is something else listening there?")
    message = str(said["message"])
    if answer.status_code == 503:
        return LedgerLost(message, binding=said["binding"])
    if said["error"] in ("no answer", "fault"):
        return NoAnswer(message, binding=said["binding"])
    return BadInput(file=said["file"], field=said["field"], value=said["value"], expected=said["expected"],
                    remedy=said["remedy"])
