"""Splits the URL of an endpoint into address and credentials, and masks the credentials in texts."""

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from vlmbatch.backends.http.secret_patterns import LEAST_KEY, MASK, pattern_of
from vlmbatch.errors import BackendError, ConfigError

LEAST_SECRET = 3
"""Characters; a shorter secret would also match ordinary text by chance."""
NO_SECRETS = frozenset(
    ("empty", "none", "null", "test", "dummy", "ollama", "true", "false", "basic", "bearer", "token")
)
"""Placeholders for a key that is not needed, in lower case, and harmless values of a query or a header."""
_OF_A_SECRET = re.compile(r"auth|key|token|secret|passw|cookie|credential|sig", re.IGNORECASE)
Headers = tuple[tuple[str, str], ...]


def names_secret(name: str) -> bool:
    """Whether a header, or a value in a query or a file, with this name holds a secret."""
    return _OF_A_SECRET.search(name) is not None


def authorizes(headers: Headers) -> bool:
    """Whether one of them is an Authorization header."""
    return any(name.lower() == "authorization" for name, _ in headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The address of an endpoint and its secrets. `url` has no user, password or query.

    `query` is appended to each path. `headers` are the Authorization header and those of --header.
    """

    url: str
    query: str = field(repr=False)
    headers: Headers = field(repr=False)
    _keys: frozenset[str] = field(repr=False)
    _others: frozenset[str] = field(repr=False)
    """Secrets that are too short, or too much like ordinary words, to be found in another form."""

    @classmethod
    def of(
        cls, url: str, api_key: str | None, headers: Headers = (), *, more_keys: Iterable[str] = ()
    ) -> Self:
        """Split the URL; build the Authorization header from its user and password, else from the key.

        The login of the URL wins, as in httpx and so in OpenAI's client: it belongs to this one place, and a
        key from the environment may belong to another. An Authorization header in `headers` wins over both.
        `more_keys` are masked, too.

        Raises:
            ConfigError: the key contains characters that a header cannot carry.
        """
        parts = urlsplit(url)
        login, at, host = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        key = (api_key or "").strip()  # a key read from a file ends in a line break
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(
                "the key contains characters that a key cannot have; check --api-key or its variable"
            )
        token = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode("ascii")
        authorization = f"Basic {token}" if at else f"Bearer {key}" if key else None
        own = (("Authorization", authorization),) if authorization and not authorizes(headers) else ()
        named = [*parse_qsl(parts.query), *headers]
        words = [(name, word) for name, value in named for word in (value, *value.split())]
        keys = {key, password, unquote(password), *more_keys}
        keys |= {login, f"{unquote(user)}:{unquote(password)}", token} if at else set()
        keys |= {word for name, word in words if names_secret(name)}
        others = {user, unquote(user), parts.query, *(word for _, word in words)}
        return cls(
            url=parts._replace(netloc=host, query="", fragment="").geturl(),
            query=f"?{parts.query}" if parts.query else "",
            headers=(*own, *headers),
            _keys=frozenset(key for key in _hidden(keys) if len(key) >= LEAST_KEY),
            _others=_hidden({*keys, *others}),
        )

    def masked(self, text: str) -> str:
        """A server's text with all secrets masked, also values of --header; some gateways repeat them."""
        return pattern_of(self._keys, self._others).sub(MASK, text)

    def without_keys(self, text: str) -> str:
        """A text of vlmbatch with its keys and passwords masked; a short secret may be an ordinary word."""
        return pattern_of(self._keys).sub(MASK, text)

    def without_secrets(self, error: BackendError) -> BackendError:
        """The same error with its text masked: a library may quote the URL with its query."""
        error.args = (self.masked(str(error)),)
        return error


def _hidden(secrets: Iterable[str]) -> frozenset[str]:
    """The secrets that are not placeholders, and are too long to match ordinary text by chance."""
    return frozenset(s for s in secrets if len(s) >= LEAST_SECRET and s.lower() not in NO_SECRETS)
