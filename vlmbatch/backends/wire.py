"""What the JSON-over-HTTP backends share: the request body as bytes, the reply as an object, model names."""

import difflib
import ipaddress
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from vlmbatch.classify import classify_error, error_in
from vlmbatch.errors import ConfigError, FatalBackendError

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 2.0
"""Idle connections are closed before the server does it: uvicorn, which runs vLLM, closes after 5 s."""


def spliced(build: Callable[[str], Mapping[str, Any]], data: bytes) -> bytes:
    """The JSON body that `build` makes around an image, without escaping or copying the image twice.

    `build` gets a stand-in for the base64 text and must put it into exactly one string.
    """
    mark = uuid.uuid4().hex
    head, tail = json.dumps(build(mark)).encode("ascii").split(mark.encode("ascii"))
    return b"".join((head, data, tail))


def reply_object(status: int, text: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object of a good reply.

    Raises:
        BackendError: the status or the body tells of an error, classified.
    """
    if status != 200:
        raise classify_error(status, text, headers)
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        raise classify_error(status, text, headers) from None
    if not isinstance(payload, dict) or error_in(payload) is not None:
        raise classify_error(status, text, headers)
    return payload


def count(value: object) -> int:
    """A token count of a reply; 0 where it is absent or no number."""
    return value if isinstance(value, int) else 0


def is_loopback(url: str) -> bool:
    """Whether this URL stays on this machine, where proxy settings must not lead it away."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def unknown_model(name: str, names: Iterable[str], url: str, hint: str) -> FatalBackendError:
    """The error for a model that the endpoint does not have, with the nearest that it has."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:3]
    has = f"nearest: {', '.join(near)}" if near else "it has no models at all"
    return FatalBackendError(f"{url} has no model {name!r}; {has}; {hint}", kind="model_not_found")


def only_model(names: Iterable[str], url: str, hint: str) -> str:
    """The one model to take where none is named.

    Raises:
        FatalBackendError: there is none (kind model_not_found).
        ConfigError: there are several to choose from.
    """
    known = sorted(names)
    if not known:
        raise FatalBackendError(f"{url} has no vision model; {hint}", kind="model_not_found")
    if len(known) > 1:
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        raise ConfigError(f"{url} has {len(known)} models to choose from: {shown}; name one with --model")
    return known[0]
