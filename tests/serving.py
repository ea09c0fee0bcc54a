"""Runs the service for tests: in a thread of this process, or as the real command."""

import asyncio
import base64
import io
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from command import start
from endpoint import Endpoint
from PIL import Image
from waiting import until

from vlmbatch.config import RunConfig
from vlmbatch.service.app import app_of
from vlmbatch.service.log import ServiceLog
from vlmbatch.service.server import bound_sockets, serve
from vlmbatch.service.service import Service, opened

KEY = "test-key-of-sixteen-characters"
BEARER = {"Authorization": f"Bearer {KEY}"}


def picture(number: int = 0, size: tuple[int, int] = (64, 48), kind: str = "JPEG") -> bytes:
    """A small picture; each number gives another one."""
    colour = (number * 7 % 256, number * 31 % 256, number * 101 % 256)
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind, **({"comment": str(number)} if kind == "JPEG" else {}))
    return file.getvalue()


def in_base64(data: bytes) -> str:
    """These bytes in base64."""
    return base64.b64encode(data).decode()


def data_url(data: bytes) -> str:
    """These bytes in a data URL."""
    return f"data:image/jpeg;base64,{in_base64(data)}"


class Served:
    """The service in a thread, with real sockets; ``with`` ends it."""

    def __init__(self, endpoint: Endpoint | None = None, **options: Any) -> None:
        """`options` are those of create_app(); without `endpoint` they name one."""
        at = (
            {}
            if endpoint is None
            else {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision"}
        )
        self._config = RunConfig.of_service(**{"port": 0, "drain": 5, **at, **options})
        self._log = io.StringIO()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)
        self.service: Service
        self.port = self.metrics_port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(240), "the service did not start"
        if self._error is not None:
            raise self._error
        self.client = httpx.Client(base_url=self.url, timeout=240, trust_env=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.stop()
        self._thread.join(240)
        assert not self._thread.is_alive(), "the service hangs"
        if self._error is not None and error is None:
            raise self._error

    @property
    def url(self) -> str:
        """The address of the service."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> list[str]:
        """The lines of the log so far."""
        return self._log.getvalue().splitlines()

    def logged(self, text: str) -> str:
        """The first line of the log with this text, once it is there."""
        until(lambda: any(text in line for line in self.log))
        return next(line for line in self.log if text in line)

    def stop(self) -> None:
        """Begin the drain, as the first signal does."""
        if self._thread.is_alive() and not self._stopped:
            self._stopped = True
            self._loop.call_soon_threadsafe(self._serving.cancel)

    def metrics(self, **headers: str) -> dict[str, float]:
        """The metrics now, by name and labels."""
        text = self.client.get("/metrics", headers=headers).raise_for_status().text
        rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    def upload(
        self, data: bytes | None = None, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """The reply to an upload of a picture."""
        files = {"file": ("photo.jpg", picture() if data is None else data)}
        return self.client.post("/analyze/upload", files=files, data=fields, headers=headers)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  # the test gets it
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        sockets = bound_sockets(self._config.service)
        log = ServiceLog(self._log, as_json=self._config.display.log_json)
        app = app_of(self._config, lambda: opened(self._config, log))
        async with app.router.lifespan_context(app):
            self.service = app.state.service
            self.port = sockets[0].getsockname()[1]
            if len(sockets) > 1:
                self.service.metrics_port = self.metrics_port = sockets[1].getsockname()[1]
            self._serving = asyncio.ensure_future(serve(app, self._config, sockets, log))
            self._ready.set()
            await asyncio.wait((self._serving,))
            if not self._serving.cancelled():
                self._serving.result()


@contextmanager
def command_serving(
    endpoint: Endpoint, *args: str, folder: Path, **variables: str
) -> Iterator[tuple[str, "subprocess.Popen[str]", Path]]:
    """`vlmbatch serve` as a process of its own: its address, the process, and the file of standard error."""
    log = folder / "serve.log"
    at = ("--backend", "ollama", "--base-url", endpoint.url, "--model", "tiny-vision")
    with log.open("w") as stderr:
        process = start("serve", "--port", "0", *at, *args, variables=variables, stderr=stderr)
        try:
            until(lambda: "serving " in log.read_text() or process.poll() is not None)
            found = re.search(r"http://\S+:\d+(?= \(Ctrl-C|\")", log.read_text())
            assert found, log.read_text()
            yield found[0], process, log
        finally:
            process.kill()
            process.wait()


def errors_of(reply: httpx.Response) -> tuple[int, str, str]:
    """The status, kind and message of a failed request."""
    error = reply.json()["error"]
    return reply.status_code, error.get("kind") or error["code"], error["message"]


def lines_of(reply: httpx.Response) -> list[dict[str, Any]]:
    """The lines of a reply in NDJSON."""
    return [json.loads(line) for line in reply.text.splitlines()]
