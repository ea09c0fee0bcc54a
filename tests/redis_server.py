"""A real Redis server for tests."""

import shutil
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from waiting import until


class RedisServer:
    """Redis at a free port, with its data in a folder; ``with`` starts and ends it."""

    def __init__(self, folder: Path, *options: str, persistent: bool = False, password: str = "") -> None:
        """`options` are those of redis-server. With `persistent`, a write is on the disk before its reply."""
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            self.port = taken.getsockname()[1]
        saving = ("--appendonly", "yes", "--appendfsync", "always") if persistent else ()
        secret = ("--requirepass", password) if password else ()
        self._words = [_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._words += ["--dir", str(folder), *saving, *secret, *options]
        self._password = password
        self._tls = ""
        self._process: subprocess.Popen[bytes] | None = None

    def with_tls(self, folder: Path) -> Self:
        """The same server with TLS alone; `folder` has cert.pem, key.pem and ca.pem."""
        names = {"cert": "cert.pem", "key": "key.pem", "ca-cert": "ca.pem"}
        files = [word for name, file in names.items() for word in (f"--tls-{name}-file", str(folder / file))]
        self._words += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", *files]
        self._tls = f"?ssl_ca_certs={folder / 'ca.pem'}"
        return self

    @property
    def url(self) -> str:
        """Its URL."""
        secret = f":{self._password}@" if self._password else ""
        return f"{'rediss' if self._tls else 'redis'}://{secret}127.0.0.1:{self.port}{self._tls}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def pause(self) -> None:
        """Let it answer nothing, and keep its connections, until resume()."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it runs"
        self._process.send_signal(number)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL)
        until(self._answers)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        """Whether it has loaded its data."""
        with closing(redis.Redis.from_url(self.url)) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


def _program() -> str:
    program = shutil.which("redis-server")
    assert program is not None, "install Redis, on Debian with: apt-get install redis-server"
    return program
