"""The endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mars.serving.answers import EventStream, Writer
from mars.serving.desk import GoneError
from mars.serving.protocol import Chat, Completion, Form
from mars.serving.refusals import RefusedError
from mars.serving.service import Service
from mars.serving.text import Reply

GONE = Response(status_code=499)  # which nobody reads


def build_app(service: Service) -> Starlette:
    """The application, which begins and closes the desk."""
    desk = service.desk

    async def complete(call: Request, kind: type[Form]) -> Response:
        try:
            form, ticket = await service.take(call, kind)
        except RefusedError as refused:
            service.metrics.refused(refused.status)
            raise
        except ClientDisconnect:
            return GONE
        writer = Writer(form, ticket, Reply(service.text, form.stop))
        if form.stream:
            return EventStream(writer.pieces(), lambda receive: desk.attended(ticket, receive))
        async with desk.attended(ticket, call.receive):
            try:
                return JSONResponse(writer.whole(await ticket.answer()))
            except GoneError:
                return GONE

    async def chat(call: Request) -> Response:
        return await complete(call, Chat)

    async def completions(call: Request) -> Response:
        return await complete(call, Completion)

    async def models(call: Request) -> Response:
        service.check_key(call)
        entry = {
            "id": service.name,
            "object": "model",
            "created": service.began,
            "owned_by": "mars",
            "max_model_len": desk.facts.max_length,
            "block_size": desk.facts.block_size,
        }
        return JSONResponse({"object": "list", "data": [entry]})

    async def health(call: Request) -> Response:
        if desk.closing:
            return JSONResponse({"status": "ending"}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(call: Request) -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        desk.begin()
        yield
        await desk.close()

    endpoints: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/v1/models": models,
        "/health": health,
        "/metrics": metrics,
    }
    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            *(Route(path, endpoint) for path, endpoint in endpoints.items()),
        ],
        exception_handlers={RefusedError: _say, HTTPException: _say_http, Exception: _say_failure},
        lifespan=lifespan,
    )


async def _say(call: Request, error: Any) -> Response:
    return JSONResponse(error.body(), error.status, error.headers)


async def _say_http(call: Request, error: Any) -> Response:
    """No such address or method, in the same form."""
    message = f"{call.method} {call.url.path}: {error.detail.lower()}."
    return await _say(call, RefusedError(error.status_code, message, headers=error.headers))


async def _say_failure(call: Request, error: Exception) -> Response:
    return await _say(call, RefusedError(500, "The server has made a mistake: see its log."))
