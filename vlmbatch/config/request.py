"""What goes with every request, and how; declared as in option_groups.py."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmbatch.config.spec import option, require

SET_ALREADY = ("content-type", "content-length", "host", "transfer-encoding")
"""Headers that a request cannot do without, and that its body decides."""
OURS = ("model", "messages", "stream")
"""Arguments that are the question itself."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def parse_object(text: str) -> str:
    """A JSON object, written in one way, so that the same one always names the same run."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"that is no JSON ({error}); write for example '{{\"top_k\": 20}}'") from error
    if not isinstance(value, dict):
        raise ValueError("that is JSON, but no object; write for example '{\"top_k\": 20}'")
    return json.dumps(value, sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What goes with every request, and how."""

    header: tuple[str, ...] = option(
        (),
        "Send this header with every request (repeatable; in VLMBATCH_HEADER one a line).",
        metavar="'NAME: VALUE'",
        secret=True,
        split_lines=True,
    )
    ca_cert: str | None = option(
        None, "Trust the certificates in this PEM file, too, as that of a company's own CA.", metavar="FILE"
    )
    client_cert: str | None = option(
        None, "Show this certificate (PEM) to an endpoint that wants one.", metavar="FILE"
    )
    client_key: str | None = option(
        None,
        "The key of --client-cert, where it is not in the same file.",
        metavar="FILE",
        secret=True,
    )
    insecure: bool = option(False, "Do not check the endpoint's certificate.")
    extra_body: str | None = option(
        None,
        "Arguments to add to each request of OpenAI's form, as a JSON object.",
        metavar="JSON",
        parse=parse_object,
    )
    mm_processor_kwargs: str | None = option(
        None,
        "Arguments for vLLM's picture processor, as a JSON object; needs its --trust-request-mm-kwargs.",
        metavar="JSON",
        parse=parse_object,
    )
    file_urls: bool = option(
        False,
        "Send the path of a picture that needs no change, for a vLLM on the same disk "
        "(--allowed-local-media-path).",
    )

    def __post_init__(self) -> None:
        for typed in self.header:
            _check_header(typed)
        require(
            not (self.insecure and self.ca_cert), "--insecure and --ca-cert are both set; keep one of them"
        )
        require(
            self.client_key is None or self.client_cert is not None,
            "--client-key is the key of a certificate; name that with --client-cert",
        )
        for name in OURS:
            require(
                name not in self.extra_arguments,
                f"--extra-body cannot replace {name!r}, which is the question itself; leave it out",
            )

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Names and values."""
        pairs = (typed.partition(":") for typed in self.header)
        return tuple((name.strip(), value.strip()) for name, _, value in pairs)

    @property
    def extra_arguments(self) -> Mapping[str, Any]:
        """What is added to the body of a request of OpenAI's form, at its top."""
        added = {} if self.mm_processor_kwargs is None else {"mm_processor_kwargs": self.mm_processor_kwargs}
        arguments: dict[str, Any] = {name: json.loads(text) for name, text in added.items()}
        return {**arguments, **json.loads(self.extra_body or "{}")}


def _check_header(typed: str) -> None:
    """Raise ConfigError unless it can be sent; what it holds may be a secret and is not told."""
    name, colon, value = typed.partition(":")
    name = name.strip()
    require(
        bool(colon) and _NAME.fullmatch(name) is not None,
        "--header takes a name, a colon and a value; write for example --header 'X-Team: vision'",
    )
    require(
        name.lower() not in SET_ALREADY,
        f"--header cannot replace {name}, which is made for each request; leave it out",
    )
    require(
        value.isascii() and value.strip().replace("\t", " ").isprintable(),
        f"--header {name} holds what no header can carry: only printable ASCII can be sent",
    )
