"""Runs the app with uvicorn: sockets, signals, and connections that send too slowly."""

import asyncio
import errno
import json
import logging
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from vlmbatch.config import RunConfig
from vlmbatch.config.service import ServiceOptions
from vlmbatch.errors import ConfigError
from vlmbatch.observers.format import clean
from vlmbatch.service.call import request_id_of
from vlmbatch.service.log import ServiceLog
from vlmbatch.service.problems import Problem, error_body
from vlmbatch.service.service import Service

HEAD_S = 10.0
"""The head of a request must arrive within this many seconds."""
LARGEST_HEAD = 65_536
"""The most bytes of the head of a request."""
UNREAD_S = 30.0
"""A client may leave the written part of its reply unread for this many seconds."""
IDLE_S = 75
"""A connection without a request is closed after this many seconds; load balancers close theirs after 60."""
GRACE_S = 5.0
"""After the drain, requests have this many seconds to receive the reply that the service stops."""
BACKLOG = 2048
"""The most connections that wait to be accepted."""


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also closes connections that are too slow, and keeps little of each one."""

    _head_bytes = 0
    _timer: TimerHandle | None = None
    _unread: TimerHandle | None = None
    _is_last = False
    """Whether the connection ends with the reply to the request in work."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._begin_head()

    def data_received(self, data: bytes) -> None:
        """Some bytes have arrived."""
        if self._is_last:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._head_bytes > LARGEST_HEAD:
            self._end_head()
            self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request has arrived."""
        super().on_message_begin()
        if self._timer is None and not self._is_last:
            self._begin_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has arrived. Those after the body are dropped: they change nothing, and may be endless."""
        if self._timer is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The whole head has arrived.

        A request that comes before the reply to another one is complete is dropped, and the connection ends
        after that reply: the client sends its request again. While it waited, no closing would be seen.
        """
        self._end_head()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            self._is_last = True
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        if not self._is_last:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request has arrived."""
        if not self._is_last:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not read its reply as fast as it is written."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read most of what was written."""
        super().resume_writing()
        self._end_unread()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or has an address that is too long, in the form of all other failures."""
        problem = Problem("bad_request", "the request is not valid HTTP; send it with an HTTP client")
        request_id = request_id_of(None)
        body = error_body(problem, request_id, (self.url or b"").decode("latin-1"))
        content = json.dumps(body).encode("ascii")
        fields = {
            "content-type": "application/json",
            "content-length": len(content),
            "x-request-id": request_id,
            "connection": "close",
        }
        head = "\r\n".join(f"{name}: {value}" for name, value in fields.items())
        self.transport.write(STATUS_LINE[400] + head.encode("ascii") + b"\r\n\r\n" + content)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._end_head()
        self._end_unread()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a request for a WebSocket or for HTTP/2 gets the reply of its route in HTTP/1.1."""

    def _begin_head(self) -> None:
        self._head_bytes = 0
        self._timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _end_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals."""
        yield


async def serve(app: FastAPI, config: RunConfig, sockets: list[socket.socket], log: ServiceLog) -> None:
    """Serve until this task is cancelled; then finish the requests in progress, for at most --drain seconds.

    The service of the app is open.
    """
    service: Service = app.state.service
    _send_log_of_uvicorn(log)
    options = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=ceil(config.run.drain + GRACE_S),
        proxy_headers=bool(config.service.trusted_proxy),
        forwarded_allow_ips=list(config.service.trusted_proxy),
    )
    server = Server(options)
    serving = asyncio.ensure_future(server.serve(sockets))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        service.stop()
        server.should_exit = True
        abort = asyncio.get_running_loop().call_later(config.run.drain, service.abort)
        await serving
        abort.cancel()


def bound_sockets(options: ServiceOptions) -> list[socket.socket]:
    """The socket for requests, and that of --metrics-port if there is one.

    Raises:
        ConfigError: a port is in use, or the address is not one of this machine.
    """
    ports = {"--port": options.port, "--metrics-port": options.metrics_port}
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(_bound(options.host, port, flag))
            for flag, port in ports.items()
            if port is not None
        ]
        stack.pop_all()
    return sockets


def _bound(host: str, port: int, flag: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small writes at once only if the protocol is set, as all its own sockets have it
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)  # else two sockets that do not listen yet may have the same port
    except OSError as error:
        listening.close()
        raise ConfigError(_not_bound(error, host, port, flag)) from error
    listening.set_inheritable(True)
    return listening


def _not_bound(error: OSError, host: str, port: int, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{flag} {port} is in use at {host}; choose another one, for example {flag} {port + 1}"
    if error.errno == errno.EACCES:
        return f"{flag} {port} needs more rights, as all ports below 1024; choose for example {flag} 8000"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return (
            f"--host {host} is not an address of this machine; write 127.0.0.1, or 0.0.0.0 for all addresses"
        )
    return f"--host {host} and {flag} {port} cannot be used: {error.strerror or error}; choose others"


class _Handler(logging.Handler):
    """Writes the warnings of uvicorn as notices."""

    def __init__(self, log: ServiceLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        self._log.say(clean(record.getMessage()))


def _send_log_of_uvicorn(log: ServiceLog) -> None:
    logger: Any = logging.getLogger("uvicorn")
    logger.handlers = [_Handler(log)]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
