"""Fetches the images that clients name by a URL, from hosts that the operator of the service allows."""

import re
from collections.abc import Sequence
from typing import Self

from vlmbatch.backends.http.download import Downloads, FetchError, Site, site_of
from vlmbatch.config.spec import require
from vlmbatch.errors import ConfigError

__all__ = ["FetchError", "UrlFetcher"]

PORTS = {"http": 80, "https": 443}


class UrlFetcher:
    """Fetches images from the allowed hosts only; an ``async with`` holds its connections.

    A host is allowed by its name as it is in the URL, and not by its address: a client that names the address
    of an allowed host is refused. A host without a port is allowed at port 80 with http and 443 with https.
    """

    def __init__(self, hosts: Sequence[str], max_bytes: int, timeout_s: float) -> None:
        """`hosts` are texts such as ``images.example.com`` or ``[::1]:8080``.

        `max_bytes` is the largest image, and `timeout_s` the time for a whole image with its redirects.

        Raises:
            ConfigError: a host is wrong.
        """
        self._allowed = frozenset(_allowed(host) for host in hosts)
        self._downloads = Downloads(self._check, max_bytes, timeout_s)

    async def __aenter__(self) -> Self:
        await self._downloads.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._downloads.__aexit__()

    async def fetch(self, url: str) -> bytes:
        """The bytes at this URL. Nothing is sent to a host that is not allowed, also after a redirect.

        Raises:
            FetchError: the URL or its redirect is not allowed, or no whole image came; see its `status`.
        """
        return await self._downloads.fetch(url)

    def _check(self, site: Site) -> None:
        usual = site.port == PORTS[site.scheme]
        if (site.host, site.port) in self._allowed or (usual and (site.host, None) in self._allowed):
            return
        raise FetchError(
            f"the service may not fetch images from {site}; send the image in base64, or start the "
            "service with --allow-url-host for this host",
            status="forbidden",
        )


def _allowed(host: str) -> tuple[str, int | None]:
    """The host and port of an entry; raises ConfigError if it is neither HOST nor HOST:PORT."""
    wrong = (
        f"--allow-url-host {host!r} is not a host; write HOST or HOST:PORT, for example images.example.com"
    )
    require(re.search(r"[/@?#*%]", host) is None, wrong)
    try:
        site, url = site_of(f"http://{host}")
    except FetchError as error:
        raise ConfigError(wrong) from error
    return site.host, url.explicit_port
