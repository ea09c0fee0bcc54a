"""Splits the URL of an endpoint into address and credentials, and masks the credentials in texts."""

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from vlmbatch.errors import BackendError, ConfigError

LEAST_SECRET = 3
"""Characters; a shorter secret would also match ordinary text by chance."""
NO_SECRETS = frozenset(
    ("empty", "none", "null", "test", "dummy", "ollama", "true", "false", "basic", "bearer", "token")
)
"""Placeholders for a key that is not needed, in lower case, and harmless values of a query or a header."""
Headers = tuple[tuple[str, str], ...]


def authorizes(headers: Headers) -> bool:
    """Whether one of them is an Authorization header."""
    return any(name.lower() == "authorization" for name, _ in headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The address of an endpoint and its secrets. `url` has no user, password or query.

    `query` is appended to each path. `headers` are the Authorization header and those of --header.
    """

    url: str
    query: str = field(default="", repr=False)
    headers: Headers = field(default=(), repr=False)
    _secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, url: str, api_key: str | None, headers: Headers = ()) -> Self:
        """Split the URL; build the Authorization header from its user and password, else from the key.

        The login of the URL wins, as in httpx and so in OpenAI's client: it belongs to this one place, and a
        key from the environment may belong to another. An Authorization header in `headers` wins over both.

        Raises:
            ConfigError: the key contains characters that a header cannot carry.
        """
        parts = urlsplit(url)
        login, at, host = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        key = (api_key or "").strip()  # a key read from a file ends in a line break
        if not (key.isascii() and key.isprintable()):
            raise ConfigError("the key contains characters that no key has; check --api-key or its variable")
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
        """The text with all secrets masked, also values of --header; some gateways repeat them in errors."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text

    def without_secrets(self, error: BackendError) -> BackendError:
        """The same error with its text masked: a library may quote the URL with its query."""
        error.args = (self.masked(str(error)),)
        return error
