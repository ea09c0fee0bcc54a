"""The connection to the Redis of the job queue, and the atomic steps that run inside it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any, Self, TypeVar

from vlmbatch.config.spec import redact_place
from vlmbatch.errors import ConfigError, MissingDependencyError, QueueAwayError, QueueFullError

try:
    import redis
    import rq  # noqa: F401  # other modules need it, and import this one first
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as missing:
    raise MissingDependencyError(
        "the job queue needs packages that are not installed; type: pip install 'vlmbatch[queue]'"
    ) from missing

T = TypeVar("T")
ANSWER_S = 10.0
"""Redis must answer within this many seconds."""
CONNECT_S = 5.0
LEAST_VERSION = (6, 2)
FORMAT = "1"
"""The version of the names in Redis."""
FORMAT_KEY = "vlmbatch:format"
STORE_KEY = "vlmbatch:store"


class Connection:
    """A Redis. Its errors become those of vlmbatch, without the password. Many threads may use it."""

    def __init__(self, url: str) -> None:
        """Does not connect yet; raises ConfigError if the URL is wrong."""
        self.place = redact_place(url)
        try:
            self.redis = redis.Redis.from_url(
                url,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=CONNECT_S,
                health_check_interval=30,
                encoding_errors="surrogateescape",  # for names of other programs, as plain() reads them
                # a connection that was closed while it was idle is opened once more
                retry=Retry(NoBackoff(), 1),
            )
            pool = self.redis.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # fails for an option of the URL that is unknown
        except (ValueError, TypeError, redis.RedisError) as error:
            more = "; in a password, write %2F for / and %23 for #" if self.place.endswith("://...") else ""
            raise ConfigError(
                f"--queue {self.place} is not the URL of a Redis; write for example "
                f"redis://127.0.0.1:6379{more}"
            ) from error
        self._scripts: dict[str, Any] = {}

    @classmethod
    def open(cls, url: str) -> Self:
        """A connection to a Redis that can be used.

        Raises:
            ConfigError: the URL or the password is wrong, or this Redis cannot be used.
            QueueAwayError: it cannot be reached.
            QueueFullError: it takes no more data.
        """
        connection = cls(url)
        with connection.errors():
            connection._check_version()
            connection._check_format()
        return connection

    def close(self) -> None:
        """Close all connections."""
        self.redis.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the errors of Redis in the ``with`` into those of vlmbatch."""
        try:
            yield
        except redis.RedisError as error:
            raise self._told(error) from error
        except OSError as error:  # for example the file of a certificate
            raise ConfigError(
                f"--queue {self.place} cannot be used: {error.strerror or error}; check the files "
                "that the URL names"
            ) from error

    def script(self, name: str, *, client: Any = None) -> Callable[..., Any]:
        """The script of this name in the folder lua; with `client`, it is added to that pipeline."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.redis.register_script(_source(name))
        if client is None:
            return script

        def add(keys: list[str], args: list[Any]) -> Any:
            return script(keys=keys, args=args, client=client)

        return add

    def same_store(self, identity: str) -> bool:
        """Whether all users of this queue have the store with this id; the first one decides."""
        with self.errors():
            self.redis.set(STORE_KEY, identity, nx=True)
            known = self.redis.get(STORE_KEY)
        return known == identity.encode()

    def _check_version(self) -> None:
        info: Mapping[str, Any] = self.redis.info("server")
        version = str(info.get("redis_version", "0"))
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
        if numbers < LEAST_VERSION:
            raise ConfigError(f"the Redis at {self.place} is version {version}; use version 6.2 or later")
        if info.get("redis_mode") == "cluster":
            raise ConfigError(f"the Redis at {self.place} is a cluster; use a single Redis")

    def _check_format(self) -> None:
        found = self.redis.get(FORMAT_KEY)
        if found is None:
            self.redis.set(FORMAT_KEY, FORMAT, nx=True)
            found = self.redis.get(FORMAT_KEY)
        if found != FORMAT.encode():
            raise ConfigError(
                f"another version of vlmbatch uses the queue at {self.place}; use the same version for the "
                "service and all workers, or another database: redis://HOST:6379/1"
            )

    def _told(self, error: redis.RedisError) -> Exception:
        """The error to raise for this one."""
        words = str(error)
        if isinstance(error, redis.AuthenticationError) or words.startswith(("NOAUTH", "WRONGPASS")):
            return ConfigError(
                f"the Redis at {self.place} refuses the password; set VLMBATCH_QUEUE to "
                "redis://:PASSWORD@HOST:6379"
            )
        if isinstance(error, redis.exceptions.NoPermissionError):
            return ConfigError(
                f"the Redis at {self.place} does not let this user use the queue; allow the user all "
                "commands, and the keys rq:* and vlmbatch:*"
            )
        if isinstance(error, redis.exceptions.ReadOnlyError):
            return ConfigError(
                f"the Redis at {self.place} is a read-only replica; name the primary with --queue"
            )
        if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM command not allowed" in words:
            return QueueFullError(
                f"the memory of the Redis at {self.place} is full; raise its maxmemory, or collect finished "
                "jobs with vlmbatch collect; no job is lost"
            )
        if "MISCONF" in words:
            return QueueFullError(
                f"the Redis at {self.place} cannot save to its disk, so it takes no data; free space on its "
                "disk; no job is lost"
            )
        if "CERTIFICATE_VERIFY_FAILED" in words:
            return ConfigError(
                f"the certificate of the Redis at {self.place} is not trusted; add ?ssl_ca_certs=FILE to "
                "the URL, with the PEM file of the authority that signed it"
            )
        if isinstance(error, redis.ConnectionError | redis.TimeoutError):
            return QueueAwayError(
                f"the Redis at {self.place} cannot be reached ({_reason(words)}); start it, or "
                "correct --queue"
            )
        return ConfigError(
            f"the Redis at {self.place} refuses a command: {words[:200]}; check its settings, or use "
            "another Redis"
        )


def _reason(words: str) -> str:
    """The reason in the words of the library, without its first words and numbers."""
    return words.rstrip(".").rpartition(". ")[2][:200]


@cache
def _source(name: str) -> str:
    """The text of a script."""
    return (resources.files("vlmbatch.jobs") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
