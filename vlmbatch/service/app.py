"""The app factory: a FastAPI app that any ASGI server can run."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from importlib import metadata
from typing import Unpack

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from vlmbatch.config import RunConfig, given_config
from vlmbatch.config.keywords import ServiceKeywords
from vlmbatch.service import analyze, chat, operations
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
    routers = (analyze.router, chat.router, operations.router)
    for router in routers:
        app.include_router(router)
    document = cache(lambda: described(app, routers, has_keys=config.service.has_keys))
    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's documentation says
    app.add_exception_handler(HTTPException, _raise_problem)
    app.add_middleware(Gate)
    if config.service.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.service.cors_origin,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    return app


async def _raise_problem(_request: Request, error: Exception) -> Response:
    """Let the gate send all errors, so that each of them has one form."""
    assert isinstance(error, HTTPException), "registered for this class"
    raise Problem.of(error)
