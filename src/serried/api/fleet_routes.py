"""Routes about nodes, the fleet and its ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import FastAPI, Path, Query, Response

from serried.api.answers import ask, respond
from serried.api.job_routes import After, Limit, errors_of
from serried.api.spec import Control, NodeAnswer, NodesAnswer, RecordsAnswer, UsageAnswer
from serried.errors import NoAnswer

__all__ = ["fleet_routes"]

Name = Annotated[str, Path(min_length=1, max_length=200, description="name of the node")]


def fleet_routes(routes: FastAPI, control: Control, down: Callable[[bool], None] | None) -> None:
    """Look at the nodes, take one out, put it back; figures; lines of the ledger; the end of it all."""
    @routes.get("/v1/nodes", summary="Every node", responses={200: {"model": NodesAnswer}, **errors_of()})
    async def nodes() -> Response:
        return respond("nodes", nodes=await ask(control.nodes()))

    @routes.post("/v1/nodes/{name}/drain", summary="Let nothing new start there",
                 responses={200: {"model": NodeAnswer}, **errors_of(404, 409)})
    async def drain(name: Name, why: Annotated[str, Query(max_length=500, description="for the books")] = "",
                    ) -> Response:
        return respond("node", node=await ask(control.drain(name, why)))

    @routes.post("/v1/nodes/{name}/open", summary="Let it take work again",
                 responses={200: {"model": NodeAnswer}, **errors_of(404, 409)})
    async def reopen(name: Name) -> Response:
        return respond("node", node=await ask(control.open(name)))

    @routes.get("/v1/usage", summary="The fleet at a glance", responses={200: {"model": UsageAnswer}, **errors_of()})
    async def usage() -> Response:
        return respond("usage", usage=await ask(control.usage()))

    @routes.get("/v1/records", summary="Lines of the ledger", responses={200: {"model": RecordsAnswer}, **errors_of()})
    async def records(after: After = -1, limit: Limit = 1000) -> Response:
        found = await ask(control.records(after, limit))
        return respond("records", records=found, next_after=after + len(found) if len(found) == limit else None)

    @routes.post("/v1/down", status_code=202, summary="End the control plane", responses={
        202: {"model": UsageAnswer, "description": "It is ending; this is how things stood."}, **errors_of(409)})
    async def end(jobs: Annotated[bool, Query(description="end the jobs as well")] = False) -> Response:
        if down is None:
            raise NoAnswer("This control plane is ended by whoever started it.", remedy="Send it SIGTERM.")
        standing = await ask(control.usage())
        down(jobs)
        return respond("usage", 202, usage=standing)
