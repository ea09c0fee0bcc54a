"""Shared by the JSON-over-HTTP backends: request bodies, replies, and errors of a connection."""

import difflib
import errno
import ipaddress
import json
import os
import ssl
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from vlmbatch.backends.classify import classify_error
from vlmbatch.backends.classify.body import answer_in, clean, list_in
from vlmbatch.backends.http.auth import Credentials
from vlmbatch.errors import (
    ConfigError,
    FatalBackendError,
    StaleConnectionError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from vlmbatch.records import Request

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 2.0
"""Idle connections are closed before the server closes them: uvicorn, which runs vLLM, does so after 5 s."""


CANNOT_DECODE = "Can not decode content-encoding"
"""aiohttp's words for a reply that it cannot decompress."""
Pieces = tuple[bytes, ...]
"""A request's body in pieces, so that its picture is not copied."""


class BodyTemplate:
    """The JSON around the pictures of a request; reused as long as the next request has the same question."""

    def __init__(self, build: Callable[[Request, str], Mapping[str, Any]]) -> None:
        """`build` returns the body of a request with a placeholder for the base64 text of each picture.

        It must put the placeholder into one string for each picture, in their order. Without a picture the
        placeholder is empty.
        """
        self._build = build
        self._filled: object = None
        self._parts: list[bytes] = []

    def fill(self, request: Request, form: object = None) -> Pieces:
        """The body of this request in pieces; the pictures are neither escaped nor copied.

        `form` is what the body depends on besides the request (see adaptation.RequestForm).
        """
        if not request.images:
            return (json.dumps(self._build(request, "")).encode("ascii"),)
        media_types = tuple(picture.media_type for picture in request.images)
        question = (form, request.prompt, request.system, request.generation, media_types)
        if question != self._filled:
            mark = uuid.uuid4().hex
            body = json.dumps(self._build(request, mark)).encode("ascii")
            self._filled, self._parts = question, body.split(mark.encode("ascii"))
        head, *others = self._parts
        pieces = [head]
        for picture, part in zip(request.images, others, strict=True):
            pieces += (picture.data, part)
        return tuple(pieces)


def reply_object(
    status: int, body: bytes, headers: Mapping[str, str], credentials: Credentials
) -> dict[str, Any]:
    """The JSON object of a good reply, also of one that came as a stream.

    `credentials` masks secrets in errors.

    Raises:
        BackendError: the status or the body reports an error, or a stream broke off; classified.
    """
    text = body.decode("utf-8-sig", errors="replace")  # JSON is UTF-8, whatever charset the header claims
    if 200 <= status < 300:
        payload = answer_in(text)
        if payload is not None:
            return payload
    raise classify_error(status, text, headers, credentials.masked)


def reply_value(
    status: int, body: bytes, headers: Mapping[str, str], credentials: Credentials, *, lists: bool
) -> object:
    """The JSON object of a good reply to a helper request, or with `lists` its JSON list.

    Raises:
        BackendError: the status or the body reports an error; classified.
    """
    text = body.decode("utf-8-sig", errors="replace")
    if 200 <= status < 300:
        found = list_in(text) if lists else None
        payload = answer_in(text) if found is None else found
        if payload is not None:
            return payload
    raise classify_error(status, text, headers, credentials.masked)


def with_query(url: str, query: str) -> str:
    """The URL with this query, which begins with `?`, in addition to its own one."""
    return f"{url}&{query[1:]}" if query and "?" in url else url + query


def is_loopback(url: str) -> bool:
    """Whether this URL is on this machine, so that no proxy must be used."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def unknown_model(name: str, names: Iterable[str], url: str, hint: str) -> FatalBackendError:
    """The error for a model that the endpoint does not have; it lists the nearest names."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:3]
    has = f"nearest: {', '.join(near)}" if near else "it has no models at all"
    return FatalBackendError(f"{url} has no model {name!r}; {has}; {hint}", kind="model_not_found")


def only_model(names: Iterable[str], url: str, hint: str) -> str:
    """The only model of the endpoint, for a run without --model.

    Raises:
        FatalBackendError: the endpoint has none (kind model_not_found).
        ConfigError: it has several.
    """
    known = sorted(names)
    if not known:
        raise FatalBackendError(f"{url} has no vision model; {hint}", kind="model_not_found")
    if len(known) > 1:
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        raise ConfigError(f"{url} has {len(known)} models to choose from: {shown}; name one with --model")
    return known[0]


def reason(error: BaseException) -> str:
    """Why a connection failed: the text of the system's error if there was one, else of the library's."""
    cause = _system_error(error)
    if cause is None:
        return brief(error)
    number = cause.errno or 0  # negative for errors of the resolver, such as an unknown name
    return os.strerror(number) if number > 0 else str(cause.strerror)


def _system_error(error: BaseException) -> OSError | None:
    """The system's error behind a library's error, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def brief(error: BaseException) -> str:
    """A library's error on one line, without the connection settings and the URL that aiohttp adds."""
    cause = getattr(error, "os_error", error)
    return clean(str(getattr(cause, "message", "") or cause)) or type(cause).__name__


def no_connection(url: str, error: BaseException, hint: str) -> UnavailableError | FatalBackendError:
    """The error for an endpoint that accepts no connection, or a process that can open no more."""
    cause = _system_error(error)
    if cause is not None and cause.errno in (errno.EMFILE, errno.ENFILE):
        way_out = "set a smaller --concurrency, or allow more files with ulimit -n"
        return FatalBackendError(f"no connection to {url}: {reason(error)}; {way_out}")
    if url.startswith("https:"):  # a plain HTTP server may wait for the rest of a TLS greeting, or just close
        hint = f"check that the server speaks https and not http; {hint}"
    unreachable = UnreachableError(f"no connection to {url}: {reason(error)}; {hint}")
    unreachable.refused = cause is not None and cause.errno == errno.ECONNREFUSED
    return unreachable


def cannot_decode(url: str, error: BaseException) -> TransientError:
    """The error for a compressed reply: broken, or compressed with br or zstd, which were not requested."""
    hint = "; turn compression off at the server or its proxy"
    for package, name in (("Brotli", "br"), ("backports.zstd", "zstd")):
        if f"`{package}`" in str(error):
            reads = f"the reply of {url} is compressed with {name}, which needs another package"
            install = f"{hint}, or install the package with: pip install {package}"
            return TransientError(f"{reads}{install}", kind="bad_response")
    return TransientError(
        f"the reply of {url} cannot be decompressed: {brief(error)}{hint}", kind="bad_response"
    )


def connection_lost(url: str, error: BaseException, *, stale: bool, bare: bool) -> TransientError:
    """The error for a lost connection; `stale` says that it was a pooled one and got no byte of a reply.

    `bare` says that no client certificate was sent and the endpoint has never replied: over TLS 1.3 a server
    that requires one finds it missing only after the handshake, and most then just close the connection.
    """
    if stale:
        return StaleConnectionError(f"the pooled connection to {url} was already closed: {reason(error)}")
    hint = "; if it requires a client certificate, name one with --client-cert" if bare else ""
    return TransientError(f"the connection to {url} was lost: {reason(error)}{hint}", kind="connection")


def no_answer(url: str, deadline_s: float | None, timeout_s: float) -> TransientError:
    """The error for a request that exceeds its deadline, or --timeout if it has none."""
    limit_s = deadline_s or timeout_s
    flag = " (--timeout)" if limit_s == timeout_s else ""
    return TransientError(f"no answer from {url} within {limit_s:g} s{flag}", kind="timeout")


def no_secure_connection(url: str, error: BaseException) -> FatalBackendError:
    """The error for an endpoint without TLS, or with a certificate that is not trusted."""
    return FatalBackendError(
        f"no secure connection to {url}: {brief(error)}; "
        "check http or https in the URL; to trust a CA of your own, add --ca-cert FILE",
        kind="wrong_url",
    )
