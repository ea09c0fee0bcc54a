"""The way in: every request passes it before the app, and every reply after it."""

import asyncio
import json

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlmbatch.service.admission import Place
from vlmbatch.service.body import Body
from vlmbatch.service.call import Call, request_id_of, route_of
from vlmbatch.service.problems import Problem, error_body
from vlmbatch.service.service import Service

DISCARD_S = 2.0
"""How long the rest of a refused body is read, so that the client can read the reply."""


class Gate:
    """Gives each request its id, lets it in or refuses it, and tells the log and the metrics how it ended."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` gets the requests that may enter."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service: Service = scope["app"].state.service
        headers = Headers(scope=scope)
        call = Call(
            request_id=request_id_of(headers.get("x-request-id")),
            method=scope["method"],
            path=scope["path"],
            address=(scope.get("client") or ("", 0))[0],
            deadline_s=service.config.service.deadline,
        )
        call.put_into(scope)
        service.metrics.began()
        try:
            with service.traced(call, scope, headers):
                await self._answer(service, scope, receive, Reply(send, call))
        finally:
            service.metrics.ended(call, route_of(scope))
            service.log.request(call)

    async def _answer(self, service: Service, scope: Scope, receive: Receive, reply: "Reply") -> None:
        headers = Headers(scope=scope)
        body = Body(receive, reply.call, most=service.config.service.max_body, room=service.room)
        try:
            has_own_port = service.is_metrics_port((scope.get("server") or ("", None))[1])
            await service.admission.check(reply.call, headers, has_own_port=has_own_port)
            body.check_head(headers)
            reply.place = service.admission.enter(reply.call)
            await self._run(service, scope, body, reply)
        except Problem as problem:
            await reply.refuse(problem, body)
        finally:
            reply.free_place()
            body.close()

    async def _run(self, service: Service, scope: Scope, body: Body, reply: "Reply") -> None:
        """Run the app until it ends, the client has gone, or the service ends all its work.

        Raises:
            Problem: the app did not send a reply.
        """
        working = asyncio.ensure_future(self._app(scope, body, reply))
        gone = asyncio.ensure_future(body.gone())
        service.working.add(working)
        try:
            await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
            if not reply.is_complete:
                if gone.done():
                    working.cancel()
                await asyncio.wait((working,))
        finally:
            service.working.discard(working)
            gone.cancel()
            working.cancel()  # the reply is complete, or this task itself was cancelled
        await asyncio.wait((working,))
        if body.is_gone and not reply.is_complete:
            reply.call.left()
        elif working.cancelled():
            raise Problem("stopping", "the service is stopping; send the request again later")
        elif isinstance(error := working.exception(), Problem):
            raise error
        elif isinstance(error, Exception):
            service.bugs.caught(error, f"{reply.call.method} {reply.call.path}")
            raise Problem(
                "internal",
                "vlmbatch has a bug; report it with its traceback, which is in the log of the service",
            )


class Reply:
    """Passes the messages of a reply on to the client, as ASGI's `send`."""

    def __init__(self, send: Send, call: Call) -> None:
        """`call` learns the status."""
        self._send = send
        self.call = call
        self.place: Place | None = None
        """Its place is free before the last byte is sent, since the client may send its next request then."""
        self.has_begun = False
        self.is_complete = False

    async def __call__(self, message: Message) -> None:
        """Pass on the next message."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            self.call.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.call.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last:
            self.free_place()
        await self._send(message)
        self.is_complete = self.is_complete or is_last

    def free_place(self) -> None:
        """Let another request take the place."""
        if self.place is not None:
            self.place.free()

    async def refuse(self, problem: Problem, body: Body) -> None:
        """Send the problem, and read what the client is still sending."""
        self.call.failed(problem)
        if self.has_begun:  # some lines of a batch have arrived, and the connection ends without the others
            return
        told = error_body(problem, self.call.request_id, self.call.path)
        content = json.dumps(told).encode("ascii")
        fields = {"content-type": "application/json", "content-length": str(len(content))}
        if not body.is_complete:
            fields["connection"] = "close"
        fields |= {name.lower(): text for name, text in (problem.headers or {}).items()}
        headers = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in fields.items()]
        await self({"type": "http.response.start", "status": problem.status_code, "headers": headers})
        await self({"type": "http.response.body", "body": content, "more_body": True})
        await body.discard(DISCARD_S)
        await self({"type": "http.response.body", "body": b"", "more_body": False})
