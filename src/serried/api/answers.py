"""Answers as bytes of JSON, errors among them."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from typing import Any, TypeVar

from pydantic import TypeAdapter
from starlette.responses import Response

from serried.control.ledger import LedgerLost
from serried.errors import BadInput, NoAnswer, SerriedError

__all__ = ["ask", "error_response", "refusal", "respond"]

T = TypeVar("T")
_PATIENCE_S = 30.0
_RETRY_S = 1
_FIELDS = ("file", "field", "value", "expected", "remedy", "binding")
#: Fields of BadInput that stand in the path of a request: what is not there is "not found".
_IN_PATH = ("job", "node", "number", "name", "rank", "epoch")
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


async def ask(future: Future[T]) -> T:
    """What the control loop answers, without holding up other requests.

    Shielded: a client that hangs up must not cancel what the loop is about to write.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await asyncio.shield(asyncio.wrap_future(future))
    except TimeoutError:
        raise LedgerLost(f"The control loop has not answered for {_PATIENCE_S:.0f} s.",
                         remedy="Ask again, with the same key.") from None


def respond(schema: str, status: int = 200, **fields: Any) -> Response:
    """One answer; dataclasses are written as their fields."""
    return Response(_ANY.dump_json({"schema": f"serried/{schema}/1", **fields}), status, media_type="application/json")


def error_response(error: SerriedError, *, in_path: bool = False) -> Response:
    """An error as people see it on the command line, with the status that fits.

    in_path: the request names a job or node in its path, so that one which is not known is not found.
    """
    headers = None
    if isinstance(error, LedgerLost):
        status, kind, headers = 503, "unavailable", {"Retry-After": str(_RETRY_S)}
    elif isinstance(error, NoAnswer):
        status, kind = 409, "no answer"
    else:
        missing = in_path and isinstance(error, BadInput) and error.field in _IN_PATH
        status, kind = (404 if missing else 422), "bad input"
    return refusal(status, kind, str(error), headers=headers,
                   **{name: str(getattr(error, name)) for name in _FIELDS if hasattr(error, name)})


def refusal(status: int, kind: str, message: str, *, headers: dict[str, str] | None = None, **fields: str) -> Response:
    """An answer of the schema serried/error/1."""
    said = {"schema": "serried/error/1", "error": kind, "message": message, **dict.fromkeys(_FIELDS, ""), **fields}
    return Response(json.dumps(said), status, headers, media_type="application/json")
