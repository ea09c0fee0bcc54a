"""The options of requests: headers, TLS and extra arguments."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmbatch import strict_json
from vlmbatch.config.spec import option, require

SET_ALREADY = ("content-type", "content-length", "host", "transfer-encoding")
"""Headers that every request needs and that depend on its body or endpoint."""
OURS = ("model", "messages", "stream")
"""Arguments that vlmbatch itself sets in each request."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def parse_object(text: str) -> str:
    """Parse a JSON object; returns its text with the keys in the order as written."""
    try:
        value = strict_json.loads(text, unique_keys=True)
    except ValueError as error:
        raise ValueError(f"the value is not JSON ({error}); write for example '{{\"top_k\": 20}}'") from error
    if not isinstance(value, dict):
        raise ValueError("the value is JSON, but not an object; write for example '{\"top_k\": 20}'")
    return json.dumps(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """Headers and arguments of each request, and the TLS options of its connection."""

    header: tuple[str, ...] = option(
        (),
        "Send this HTTP header with each request (repeatable). VLMBATCH_HEADER holds one header per line.",
        metavar="'NAME: VALUE'",
        secret=True,
        split_lines=True,
    )
    ca_cert: str | None = option(
        None,
        "Also trust the certificates in this PEM file, for example those of your company.",
        metavar="FILE",
    )
    client_cert: str | None = option(
        None, "Identify yourself to the endpoint with this client certificate (PEM).", metavar="FILE"
    )
    client_key: str | None = option(
        None,
        "The private key of --client-cert, if it is in a separate file.",
        metavar="FILE",
        secret=True,
    )
    insecure: bool = option(False, "Do not check the certificate of the endpoint (dangerous).")
    extra_body: str | None = option(
        None,
        "Add these arguments to each request of OpenAI's API: a JSON object such as '{\"top_k\":20}'. "
        "The value null removes an argument.",
        section="Question and answer",
        metavar="JSON",
        parse=parse_object,
    )
    mm_processor_kwargs: str | None = option(
        None,
        "Arguments for vLLM's image processor: a JSON object. Start vLLM with --trust-request-mm-kwargs.",
        section="Question and answer",
        metavar="JSON",
        parse=parse_object,
    )
    file_urls: bool = option(
        False,
        "Send only the path of a picture that needs no change. The server needs the same disk, and vLLM "
        "also --allowed-local-media-path.",
    )

    def __post_init__(self) -> None:
        for typed in self.header:
            _check_header(typed)
        require(
            not (self.insecure and self.ca_cert), "--insecure and --ca-cert are both set; keep one of them"
        )
        require(
            self.client_key is None or self.client_cert is not None,
            "--client-key needs its certificate; add --client-cert FILE",
        )
        arguments = self.extra_arguments
        for name in OURS:
            may_be = name not in arguments or (name == "stream" and arguments[name] is None)
            require(
                may_be,
                f"--extra-body cannot replace {name!r}, which vlmbatch sets itself; leave it out",
            )

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers as names and values."""
        pairs = (typed.partition(":") for typed in self.header)
        return tuple((name.strip(), value.strip()) for name, _, value in pairs)

    @property
    def extra_arguments(self) -> Mapping[str, Any]:
        """The arguments to add at the top level of a request body in OpenAI's format."""
        added = {} if self.mm_processor_kwargs is None else {"mm_processor_kwargs": self.mm_processor_kwargs}
        arguments: dict[str, Any] = {name: json.loads(text) for name, text in added.items()}
        return {**arguments, **json.loads(self.extra_body or "{}")}


def _check_header(typed: str) -> None:
    """Raise ConfigError unless the header can be sent; the message hides its value, which may be secret."""
    name, colon, value = typed.partition(":")
    name = name.strip()
    require(
        bool(colon) and _NAME.fullmatch(name) is not None,
        "--header takes a name, a colon and a value; write for example --header 'X-Team: vision'",
    )
    require(
        name.lower() not in SET_ALREADY,
        f"--header cannot replace {name}, which vlmbatch sets for each request; leave it out",
    )
    require(
        value.isascii() and value.strip().replace("\t", " ").isprintable(),
        f"--header {name} has a character that a header cannot carry; use printable ASCII only",
    )
