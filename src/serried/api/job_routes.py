"""Routes about jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Header, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from serried.api.answers import ask, respond
from serried.api.log_reader import LogReader
from serried.api.spec import (
    Control,
    ErrorAnswer,
    HistoryAnswer,
    JobAnswer,
    JobsAnswer,
    SubmittedAnswer,
    WhyAnswer,
)
from serried.control.job_form import JobForm, read_form, spec_of
from serried.control.spec import JobPhase, JobView
from serried.errors import NoAnswer

__all__ = ["FINAL", "errors_of", "job_routes"]

FINAL = frozenset({JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED})
_POLL_S = 0.2
_MOST_NUMBER = 2**53   # what every JSON reader can hold

Number = Annotated[int, Path(ge=0, le=_MOST_NUMBER, description="number of the job")]
After = Annotated[int, Query(ge=-1, le=_MOST_NUMBER, description="only numbers above this")]
Limit = Annotated[int, Query(ge=1, le=1000, description="at most so many")]


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides: errors of the schema serried/error/1, the general ones among them."""
    return {status: {"model": ErrorAnswer, "description": _MEANING[status]} for status in (*statuses, 401, 413, 422,
                                                                                            500, 503)}


_MEANING = {401: "The token is missing or wrong.", 404: "No such job or node.", 409: "There is no answer.",
            413: "The body is too long.", 422: "Bad input: field, value, expectation, remedy.", 500: "Our mistake.",
            503: "The ledger is away for now; ask again with the same key."}


def job_routes(routes: FastAPI, control: Control) -> None:
    """Submit, look at, cancel, explain."""
    _submitting(routes, control)
    _looking(routes, control)
    _reading(routes, control)


def _submitting(routes: FastAPI, control: Control) -> None:
    told = _Told()

    @routes.post("/v1/jobs", status_code=201, summary="Submit a job", responses={
        201: {"model": SubmittedAnswer, "description": "It is on the disk."},
        200: {"model": SubmittedAnswer, "description": "It was already: the same key came before."}, **errors_of()},
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {
            "schema": {"$ref": "#/components/schemas/JobForm"}}}}})
    async def submit(request: Request, idempotency_key: Annotated[str, Header(
            max_length=200, pattern=r"^[!-~]*$", description="the same key again is the same job")] = "") -> Response:
        form = read_form(await request.body())
        if form.workload is not None:   # it plans: half the house is loaded for it, and it takes its time
            form = await asyncio.to_thread(_written, form)
        if not told.begun:
            await told.begin(control)
        number = await ask(control.submit(spec_of(form), idempotency_key))
        return respond("submitted", 201 if told.first(number) else 200, job=number)

    @routes.post("/v1/jobs/{number}/cancel", summary="End a job",
                 responses={200: {"model": JobAnswer}, **errors_of(404, 409)})
    async def cancel(number: Number) -> Response:
        return respond("job", job=await ask(control.cancel(number)))


def _looking(routes: FastAPI, control: Control) -> None:
    @routes.get("/v1/jobs", summary="Jobs, by number", responses={200: {"model": JobsAnswer}, **errors_of()})
    async def jobs(phase: Annotated[JobPhase | None, Query(description="only of this phase")] = None,
                   tenant: Annotated[str, Query(max_length=200, description="only of this tenant")] = "",
                   after: After = -1, limit: Limit = 100) -> Response:
        found = await ask(control.jobs(phase="" if phase is None else phase.value, tenant=tenant, after=after,
                                       limit=limit))
        return respond("jobs", jobs=found, next_after=found[-1].number if len(found) == limit else None)

    @routes.get("/v1/jobs/{number}", summary="A job", responses={200: {"model": JobAnswer}, **errors_of(404)})
    async def job(number: Number) -> Response:
        return respond("job", job=await ask(control.job(number)))

    @routes.get("/v1/jobs/{number}/why", summary="Why it waits",
                responses={200: {"model": WhyAnswer}, **errors_of(404, 409)})
    async def why(number: Number) -> Response:
        return respond("why", why=await ask(control.why(number)))

    @routes.get("/v1/jobs/{number}/history", summary="What happened to it",
                responses={200: {"model": HistoryAnswer}, **errors_of(404)})
    async def history(number: Number) -> Response:
        return respond("history", history=await ask(control.history(number)))


def _reading(routes: FastAPI, control: Control) -> None:
    @routes.get("/v1/jobs/{number}/logs", summary="Output of a rank", response_class=StreamingResponse, responses={
        200: {"description": "Its bytes, as they were written.", "content": {"application/octet-stream": {
            "schema": {"type": "string", "format": "binary"}}}}, **errors_of(404, 409)})
    async def logs(number: Number, rank: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
                   epoch: Annotated[int | None, Query(ge=0, le=_MOST_NUMBER, description="of that attempt")] = None,
                   tail: Annotated[int, Query(ge=-1, le=100_000, description="last lines; -1 = all")] = -1,
                   follow: Annotated[bool, Query(description="go on until the job ends")] = False) -> Response:
        view = await ask(control.job(number))
        path = ""
        if epoch is not None or view.epoch >= 0:
            path = await ask(control.log_path(number, rank, epoch))
        elif not follow:
            raise NoAnswer(f"Job {number} has not started yet.", remedy="Follow it, or ask why it waits.")
        return StreamingResponse(_output(control, view, rank, epoch, path, tail, follow=follow),
                                 media_type="application/octet-stream")


def _written(form: JobForm) -> JobForm:
    from serried.control.managed import written

    return written(form)


class _Told:
    """Which numbers somebody was told, so that a repeated submission is answered 200."""

    def __init__(self) -> None:
        self.begun = False
        self._below = 0              # all numbers below were told
        self._above: set[int] = set()

    async def begin(self, control: Control) -> None:
        """Jobs of an earlier life of the control plane count as told."""
        usage = await ask(control.usage())
        if not self.begun:
            self._below, self.begun = sum(usage.jobs_by_phase.values()), True

    def first(self, number: int) -> bool:
        """Whether this is the first time, which it is not any more after asking."""
        if number < self._below or number in self._above:
            return False
        self._above.add(number)
        while self._below in self._above:
            self._above.remove(self._below)
            self._below += 1
        return True


async def _output(control: Control, view: JobView, rank: int, epoch: int | None, path: str, tail: int, *,
                  follow: bool) -> AsyncIterator[bytes]:
    """What a rank wrote, across rotation; with `follow` also across attempts, until the job is over."""
    reader = LogReader(path, tail=tail)
    try:
        while True:
            while path and (found := await asyncio.to_thread(reader.read)):
                yield found
            over = view.phase in FINAL   # seen before the last reading, so that nothing comes after it
            if not follow or (epoch is not None and view.epoch != epoch) or over:
                return
            await asyncio.sleep(_POLL_S)
            before, view = view.epoch, await ask(control.job(view.number))
            if epoch is None and view.epoch >= 0 and (view.epoch != before or not path):
                while path and (found := await asyncio.to_thread(reader.read)):
                    yield found
                reader.close()
                path = await ask(control.log_path(view.number, rank, None))
                reader = LogReader(path)
    finally:
        reader.close()
