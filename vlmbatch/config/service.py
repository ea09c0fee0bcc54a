"""The options of `vlmbatch serve`: where it listens, which clients it serves, and their limits."""

import ipaddress
import re
from dataclasses import dataclass

from vlmbatch.config.spec import LONGEST_S, flag, option, parse_duration, parse_size, require

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""The hosts that only this machine reaches."""
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")
_HOST = re.compile(r"[A-Za-z0-9._\[\]:-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """Where the service listens, and what its clients may do."""

    host: str = option(
        "127.0.0.1",
        "The address to listen at. 0.0.0.0: all addresses of this machine, which needs API keys.",
        metavar="ADDRESS",
    )
    port: int = option(8000, "The port to listen at. 0: a free port.", metavar="PORT")
    keys_file: str | None = option(
        None,
        "The file with the API keys of the clients. It is read again when it changes.",
        metavar="FILE",
    )
    service_key: tuple[str, ...] = option(
        (),
        "An API key for clients, with its name (repeatable). Safer: VLMBATCH_SERVICE_KEY with one per line.",
        metavar="NAME:KEY",
        secret=True,
        split_lines=True,
    )
    allow_model: tuple[str, ...] = option(
        (), "Another model that requests may name (repeatable).", metavar="NAME"
    )
    allow_url_host: tuple[str, ...] = option(
        (),
        "Fetch images from URLs of this host (repeatable). Otherwise no URL is fetched.",
        metavar="HOST",
    )
    cors_origin: tuple[str, ...] = option(
        (),
        "Let web pages of this origin use the service (repeatable).",
        metavar="ORIGIN",
    )
    rate: str | None = option(
        None,
        "How many requests each API key and each address may send, for example 60/minute.",
        metavar="N/TIME",
        shown_default="no limit",
    )
    rate_storage: str | None = option(
        None,
        "Count the requests of several services together in this Redis.",
        metavar="redis://HOST",
        secret=True,  # it may hold a password
    )
    max_requests: int = option(
        256,
        "How many requests may be in progress at once. More requests get the status 503.",
        metavar="N",
    )
    max_body: int = option(
        50_000_000,
        "The largest body of a request.",
        metavar="SIZE",
        parse=parse_size,
        shown_default="50MB",
    )
    deadline: float = option(
        300.0,
        "How long a request may take. Then the client gets the status 504.",
        metavar="TIME",
        parse=parse_duration,
        shown_default="300 seconds",
    )
    metrics_port: int | None = option(
        None,
        "Also serve /metrics at this port, where it needs no API key.",
        metavar="PORT",
    )
    trusted_proxy: tuple[str, ...] = option(
        (),
        "The address of a proxy whose header X-Forwarded-For is used (repeatable).",
        metavar="ADDRESS",
    )

    def __post_init__(self) -> None:
        require(bool(self.host.strip()), "--host is empty; write for example --host 127.0.0.1")
        for name in ("port", "metrics_port"):
            number = getattr(self, name)
            require(
                number is None or 0 <= number <= 65535,
                f"{flag(name)} must be between 0 and 65535, not {number}",
            )
        require(self.max_requests > 0, f"--max-requests must be at least 1, not {self.max_requests}")
        require(self.max_body > 0, f"--max-body must be more than 0, not {self.max_body}")
        require(
            0 < self.deadline <= LONGEST_S,
            f"--deadline must be more than 0 seconds and at most ten years, not {self.deadline:g}",
        )
        require(
            self.is_local or self.has_keys,
            f"--host {self.host} lets other machines reach the service, which needs API keys; type: "
            "vlmbatch serve --make-key NAME >> keys.toml, and add --keys-file keys.toml",
        )
        for origin in self.cors_origin:
            require(
                _ORIGIN.fullmatch(origin) is not None,
                f"--cors-origin {origin} is not an origin; write for example https://intranet.example",
            )
        for host in self.allow_url_host:
            require(
                _HOST.fullmatch(host) is not None,
                f"--allow-url-host {host} is not the name of a host; write for example images.example",
            )

        for proxy in self.trusted_proxy:
            require(
                _is_network(proxy),
                f"--trusted-proxy {proxy} is not an address; write for example 10.0.0.2 or 10.0.0.0/24",
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the service."""
        return self.host in LOOPBACK

    @property
    def has_keys(self) -> bool:
        """Whether clients need an API key."""
        return self.keys_file is not None or bool(self.service_key)


def _is_network(text: str) -> bool:
    """Whether this is an IP address, or a network such as 10.0.0.0/24."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
