"""The application: what may be asked over HTTP, and by whom.

Nothing is decided here. A request is checked, asked of the control loop and answered; all that it changes it changes
there, and an answer that says so is given only once it is on the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp

from serried.api.answers import ask, error_response, refusal
from serried.api.door import BodyTooLong, Door, request_times, too_long
from serried.api.fleet_routes import fleet_routes
from serried.api.job_routes import errors_of, job_routes
from serried.api.metrics import exposition
from serried.api.spec import Control
from serried.control.job_form import JobForm
from serried.errors import BadInput, SerriedError, nearest

__all__ = ["application"]

#: A job with thousands of words and variables; nothing else has a body.
MOST_BODY_BYTES = 1_000_000


def application(control: Control, token: str, *, down: Callable[[bool], None] | None = None,
                most_body_bytes: int = MOST_BODY_BYTES) -> ASGIApp:
    """An ASGI application that speaks for `control` to whoever bears the token.

    down: called with whether the jobs are to end as well when somebody asks for the end of it all; None = nobody may.
    """
    app = FastAPI(title="serried", version="1", docs_url=None, redoc_url=None, openapi_url=None,
                  dependencies=[Depends(_refuse_unknown)],
                  description="The live control plane of a fleet. Every answer names its schema.")
    registry = CollectorRegistry()
    job_routes(app, control)
    fleet_routes(app, control, down)

    @app.get("/metrics", response_class=Response, summary="Figures for Prometheus",
             responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors_of()})
    async def metrics() -> Response:
        counters, usage = await ask(control.counters()), await ask(control.usage())
        return Response(exposition(registry, counters, usage), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/healthz", response_class=Response, summary="Does it live?",
             responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    document = _document(app)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        return document

    _explain_errors(app)
    return Door(app, token=token, most_bytes=most_body_bytes, times=request_times(registry))


def _explain_errors(app: FastAPI) -> None:
    """Every error, ours and the framework's, is answered in one form."""
    @app.exception_handler(SerriedError)
    async def ours(request: Request, error: SerriedError) -> Response:
        return error_response(error, in_path=bool(request.path_params))

    @app.exception_handler(RequestValidationError)
    async def parameters(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return refusal(422, "bad input", f"{field}: {first['msg']}", field=field, value=repr(first.get("input"))[:200],
                       expected=str(first["msg"]), remedy="Correct the value.")

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        remedy = {404: "/openapi.json lists what may be asked.", 405: "/openapi.json lists the methods."}
        return refusal(error.status_code, "bad input", f"{request.method} {request.url.path}: {error.detail}",
                       field="path", value=request.url.path, expected="a path and method of this service",
                       remedy=remedy.get(error.status_code, ""), headers=_allowed(request, error))

    @app.exception_handler(BodyTooLong)
    async def body(_: Request, error: BodyTooLong) -> Response:
        return too_long(error.most_bytes)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        structlog.get_logger("serried.api").error("fault", path=request.url.path, exc_info=error)
        return refusal(500, "fault", "serried made a mistake; its log says which.",
                       remedy="Nothing that was acknowledged is lost. Please report it.")


async def _refuse_unknown(request: Request) -> None:
    """A misspelt filter must not be a filter that is not there."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            near = nearest(name, known, count=1)
            raise BadInput(field=name[:100], value=request.query_params[name][:100], expected=f"a query of "
                           f"{', '.join(sorted(known)) or 'no words'}",
                           remedy=f"Perhaps {near[0]!r} is meant." if near else "Leave it out.")


def _allowed(request: Request, error: HTTPException) -> dict[str, str]:
    """The headers of an error; of a wrong method, all that are right there, which several routes share."""
    headers = dict(error.headers or {})
    if error.status_code == 405:
        methods = {method for route in request.app.routes for method in getattr(route, "methods", None) or ()
                   if route.matches({**request.scope, "method": method})[0] == Match.FULL}
        headers["Allow"] = ", ".join(sorted(methods))
    return headers


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with what the framework cannot know: the body of a submission, errors, the token."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    form = JobForm.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(form.pop("$defs"))
    schemas["JobForm"] = form
    for unused in ("HTTPValidationError", "ValidationError"):   # 422 is ours
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path != "/healthz":
                operation["security"] = [{"token": []}]
    return document
