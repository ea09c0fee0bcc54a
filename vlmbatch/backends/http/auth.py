"""How an endpoint is reached: its URL taken apart, and what of it nobody may read."""

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from vlmbatch.errors import BackendError, ConfigError

LEAST_SECRET = 3
"""Characters: what is shorter, texts hold by chance."""
NO_SECRETS = frozenset(
    ("empty", "none", "null", "test", "dummy", "ollama", "true", "false", "basic", "bearer", "token")
)
"""What people give as a key where none is wanted, in lower case, and values of a query or a header."""
Headers = tuple[tuple[str, str], ...]


def authorizes(headers: Headers) -> bool:
    """Whether one of them says who asks."""
    return any(name.lower() == "authorization" for name, _ in headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where requests go. `url` has no user, password or query; `query` goes behind each path.

    `headers` say who asks, and what else was wished to be said.
    """

    url: str
    query: str = field(default="", repr=False)
    headers: Headers = field(default=(), repr=False)
    _secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, url: str, api_key: str | None, headers: Headers = ()) -> Self:
        """Take the URL apart; the Authorization header is of its user and password, else of the key.

        The URL comes first, as in httpx and so in OpenAI's client: it names one place, a key from the
        environment may be meant for another. One among `headers` comes before both.

        Raises:
            ConfigError: the key holds what no header can carry.
        """
        parts = urlsplit(url)
        login, at, host = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        key = (api_key or "").strip()  # a key read from a file ends in a line break
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(
                "the key holds characters that no key has; look at --api-key or its variable again"
            )
        token = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode("ascii")
        authorization = f"Basic {token}" if at else f"Bearer {key}" if key else None
        own = (("Authorization", authorization),) if authorization and not authorizes(headers) else ()
        values = [value for _, value in parse_qsl(parts.query)]
        values += [word for _, value in headers for word in (value, *value.split())]
        secrets = {key, token, login, user, unquote(user), password, unquote(password), parts.query, *values}
        hidden = {s for s in secrets if len(s) >= LEAST_SECRET and s.lower() not in NO_SECRETS}
        return cls(
            url=parts._replace(netloc=host, query="", fragment="").geturl(),
            query=f"?{parts.query}" if parts.query else "",
            headers=(*own, *headers),
            _secrets=tuple(sorted(hidden, key=len, reverse=True)),
        )

    def masked(self, text: str) -> str:
        """The text without key, password and query, which some gateways repeat in their errors."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text

    def without_secrets(self, error: BackendError) -> BackendError:
        """The error of a library, whose text may hold the URL with its query, with that masked."""
        error.args = (self.masked(str(error)),)
        return error
