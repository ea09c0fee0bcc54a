"""The app factory: a FastAPI app that any ASGI server can run."""

import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from importlib import metadata
from typing import Unpack

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from vlmbatch.config import RunConfig, given_config
from vlmbatch.config.keywords import ServiceKeywords
from vlmbatch.service import analyze, chat, jobs, operations
from vlmbatch.service.batch_api import batch_routes, file_routes
from vlmbatch.service.call import route_of
from vlmbatch.service.gate import Gate
from vlmbatch.service.log import ServiceLog
from vlmbatch.service.openapi import described
from vlmbatch.service.problems import Problem
from vlmbatch.service.service import Service, opened

DESCRIPTION = "Ask a vision model about images. docs/service.md has examples."


def create_app(config: RunConfig | None = None, **options: Unpack[ServiceKeywords]) -> FastAPI:
    """An app with all routes, for any ASGI server; its lifespan opens the sessions.

    ::

        app = create_app(model="qwen2.5vl")  # in app.py, for: uvicorn app:app

    Args:
        config: all options as one value, instead of `options`.
        options: the options of ``vlmbatch serve --help`` by their names with underscores.

    Raises:
        ConfigError: an option is unknown, out of range, or only for a run, such as `output`.
    """
    config = given_config(config, RunConfig.of_service, None, options)
    log = ServiceLog(sys.stderr, as_json=config.display.log_json, only_failures=config.display.quiet)
    return app_of(config, lambda: opened(config, log))


def app_of(config: RunConfig, opening: Callable[[], AbstractAsyncContextManager[Service]]) -> FastAPI:
    """An app whose lifespan opens this service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opening() as app.state.service:
            yield

    app = FastAPI(
        title="vlmbatch",
        version=metadata.version("vlmbatch"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these pages would load scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
    )
    routers = (
        analyze.router,
        jobs.router,
        chat.router,
        file_routes.router,
        batch_routes.router,
        operations.router,
    )
    for router in routers:
        app.include_router(router)
    document = cache(lambda: described(app, routers, has_keys=config.service.has_keys))
    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's documentation says
    app.add_exception_handler(HTTPException, _problem_raiser(routers))
    app.add_middleware(Gate)
    if config.service.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.service.cors_origin,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After", "Location"],
        )
    return app


def _problem_raiser(routers: Iterable[APIRouter]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """A handler that lets the gate send all errors, so that each of them has one form."""
    methods: dict[str, set[str]] = defaultdict(set)
    for route in (route for router in routers for route in router.routes if isinstance(route, APIRoute)):
        methods[route.path] |= route.methods or set()

    async def raise_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "registered for this class"
        allowed = methods.get(route_of(request.scope))
        if error.status_code == 405 and allowed:  # the framework names one route, and a path may have two
            error.headers = {"Allow": ", ".join(sorted(allowed))}
        raise Problem.of(error)

    return raise_problem
