"""The routes for people and programs that run the service: health, readiness, metrics and the page."""

from functools import cache
from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import Response

from vlmbatch.service.answers import json_reply
from vlmbatch.service.fields import Health, NotReady, Ready
from vlmbatch.service.metrics import CONTENT_TYPE
from vlmbatch.service.models import reason, states
from vlmbatch.service.openapi import failures
from vlmbatch.service.problems import AGAIN_S
from vlmbatch.service.service import Service

router = APIRouter(tags=["operations"])

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from other places, and no other page may show it in a frame."""
_TYPES = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


@router.get("/health", response_model=Health, responses=failures(statuses=(400, 405)))
async def health() -> Response:
    """Whether the service is alive."""
    return json_reply({"status": "ok"})


@router.get(
    "/ready",
    response_model=Ready,
    responses={503: {"model": NotReady}, **failures(statuses=(400, 405))},
)
async def ready(request: Request) -> Response:
    """Whether the first model answers: its endpoint is up, and a test picture has shown that it sees.

    `queue` has the state of the job queue, if there is one; without it the service is ready, too.
    """
    service = Service.of(request)
    queue = await service.queue_facts()
    state = {} if queue is None else {"queue": queue.reason or "up"}
    why = "the service is stopping" if service.admission.stopping else reason(service.models.default)
    shows_reasons = not service.config.service.has_keys  # they name servers inside the house
    if why is None:
        return json_reply(
            {"status": "ready", **({"models": states(service.models)} if shows_reasons else {}), **state}
        )
    told = why if shows_reasons else "the endpoint of the first model takes no requests"
    return json_reply(
        {"status": "not ready", "reason": told, **state}, 503, {"Retry-After": str(AGAIN_S[503])}
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **failures()},
)
async def metrics(request: Request) -> Response:
    """The metrics in the format of Prometheus."""
    service = Service.of(request)
    queue = await service.queue_facts()
    return Response(service.metrics.text(service.models, queue), media_type=CONTENT_TYPE)


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """A page to upload an image and to read the answer."""
    return _file("index.html")


@router.get("/page.css", include_in_schema=False)
async def style() -> Response:
    """The style of the page."""
    return _file("page.css")


@router.get("/page.js", include_in_schema=False)
async def script() -> Response:
    """The script of the page."""
    return _file("page.js")


def _file(name: str) -> Response:
    headers = {"Content-Security-Policy": CSP, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
    return Response(_content(name), headers=headers, media_type=_TYPES[name])


@cache
def _content(name: str) -> bytes:
    """The content of a file of the page, which is read from the disk once."""
    return (resources.files("vlmbatch.service") / "page" / name).read_bytes()
