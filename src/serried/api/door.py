"""What stands before every request: the token, the most bytes of a body, a count, a line in the log."""

from __future__ import annotations

import hmac
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Histogram
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serried.api.answers import refusal

__all__ = ["BodyTooLong", "Door", "request_times", "too_long"]

#: What anybody may see: whether we live, and which questions there are.
OPEN_PATHS = frozenset({"/healthz", "/openapi.json"})
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


def request_times(registry: CollectorRegistry) -> Histogram:
    """Seconds a request takes, by route, method and status."""
    return Histogram("serried_http_request_seconds", "Seconds from a request's first byte to its answer's last.",
                     ("route", "method", "status"), buckets=_BUCKETS_S, registry=registry)


class Door:
    """An ASGI application around another. token: what a request must bear; most_bytes: of its body."""

    def __init__(self, inner: ASGIApp, *, token: str, most_bytes: int, times: Histogram) -> None:
        self._inner, self._most_bytes, self._times = inner, most_bytes, times
        self._expected = b"Bearer " + token.encode()
        self._log = structlog.get_logger("serried.api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on and count."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        if scope["type"] != "http":
            return   # no web sockets here
        began_s, status = time.perf_counter(), 500

        async def count(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = self._refused(scope)
            if refused is not None:
                await refused(scope, receive, count)
            else:
                await self._inner(scope, _bounded(receive, self._most_bytes), count)
        finally:
            self._note(scope, status, time.perf_counter() - began_s)

    def _refused(self, scope: Scope) -> ASGIApp | None:
        headers = dict(scope["headers"])
        if scope["path"] not in OPEN_PATHS and not hmac.compare_digest(headers.get(b"authorization", b""),
                                                                       self._expected):
            return refusal(401, "unauthorized", "The token is missing or wrong.", field="Authorization",
                           expected="Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"},
                           remedy="`serried up` writes the token into endpoint.json of its state directory.")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most_bytes:
            return too_long(self._most_bytes)
        return None

    def _note(self, scope: MutableMapping[str, Any], status: int, took_s: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._times.labels(route, scope["method"] if route != "none" else "any", status).observe(took_s)
        # submissions that were taken stand in the ledger; what else changes something, or could not, is told here
        if status >= 400 or (scope["method"] != "GET" and status != 201 and route != "/v1/jobs"):
            self._log.info("request", method=scope["method"], path=scope["path"], status=status,
                           took_s=round(took_s, 6))


class BodyTooLong(Exception):
    """A body without a length turned out to be too long."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        super().__init__()


def too_long(most_bytes: int) -> Response:
    """The answer to a body that is too long."""
    return refusal(413, "bad input", f"The body is longer than {most_bytes:,} bytes.", field="body",
                   expected=f"at most {most_bytes:,} bytes", remedy="Leave data in files of its own.")


def _bounded(receive: Receive, most_bytes: int) -> Receive:
    """The same body, up to the limit: a length need not be said, and may be wrong."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > most_bytes:
            raise BodyTooLong(most_bytes)
        return message

    return counted
