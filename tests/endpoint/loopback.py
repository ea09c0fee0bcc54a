"""A loopback server in its own thread. It goes down and up on demand, and contains no HTTP."""

import asyncio
import concurrent.futures
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from waiting import until

from endpoint.messages import Line


class Loopback:
    """Listens at `port`; a subclass handles the connections in `_exchange`."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls
        self._faults: list[Exception] = []
        self._server: asyncio.Server | None = None
        self._held: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: set[Line] = set()
        self.connections = 0
        """The number of connections accepted so far."""

    @property
    def url(self) -> str:
        """The server's address, without /v1."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(ready)), name="endpoint", daemon=True
        )
        self._thread.start()
        ready.result(timeout=240)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=240)
        assert not self._thread.is_alive(), "the endpoint's thread hangs"
        if self._faults and error is None:
            raise self._faults[0]

    @property
    def is_down(self) -> bool:
        """Whether it refuses connections."""
        return self._held is not None

    def until(self, holds: Callable[[], bool]) -> None:
        """Block until the server has made this condition true."""
        until(holds)

    def down(self) -> None:
        """Refuse new connections and reset open ones. Blocks until done."""
        self._from_outside(self._go_down())

    def up(self) -> None:
        """Listen again on the same port. Blocks until done."""
        self._from_outside(self._go_up())

    async def _exchange(self, line: Line) -> bool:
        """Serve one request. Returns whether the connection stays open."""
        raise NotImplementedError

    def _started(self) -> None:
        """Called each time before the server starts to listen."""

    def _from_outside(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=240)

    async def _main(self, ready: concurrent.futures.Future[None]) -> None:
        self._loop, self._stop, self._turning = asyncio.get_running_loop(), asyncio.Event(), asyncio.Lock()
        try:
            await self._go_up()
        except OSError as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        await self._stop.wait()
        await self._go_down()
        if self._held is not None:
            self._held.close()
        for _ in range(5):  # connections in the middle of accept, and transports in the middle of close
            await asyncio.sleep(0.001)

    async def _go_up(self) -> None:
        async with self._turning:
            if self._server is not None:
                return
            if self._held is not None:
                self._held.close()
                self._held = None
            self._started()
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, backlog=1024, ssl=self._tls
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def _up_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._go_up()

    async def _go_down(self, farewell: bytes = b"") -> None:
        """Stop listening and end all connections; a pending request gets the farewell, or a reset."""
        async with self._turning:
            await self._stop_listening()
            for line in self._lines:
                if farewell and line.busy:
                    line.writer.write(farewell)
                    line.writer.close()
                else:
                    line.reset()
            others = self._tasks - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _go_deaf(self) -> None:
        """Stop listening and close idle connections; a pending request waits for ever."""
        async with self._turning:
            await self._stop_listening()
            for line in self._lines:
                if not line.busy:
                    line.writer.close()

    async def _stop_listening(self) -> None:
        """Close the port and stall all connections: no request gets a reply from the first moment on."""
        server, self._server = self._server, None
        for line in self._lines:
            line.stalled = True
        if server is None:
            return
        # asyncio leaves a connection open for ever if the server closes during its accept
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        # a bound socket that does not listen refuses connections, and no other process can take the port
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", self.port))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        if self._server is None:  # the loop accepted this connection before the server went down
            line.reset()
            return
        self._lines.add(line)
        self.connections += 1
        # a task that is cancelled before its first step never runs its own clean-up
        self._spawn(self._converse(line)).add_done_callback(lambda _: self._forget(line))

    def _forget(self, line: Line) -> None:
        line.reset()
        self._lines.discard(line)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _converse(self, line: Line) -> None:
        """Serve one connection until either side ends it."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(line):
                    pass
        except asyncio.CancelledError:
            line.reset()
            raise
        except Exception as fault:  # noqa: BLE001  # a wrong script or mode; raised again in the test's thread
            self._faults.append(fault)
        finally:
            line.writer.close()
