"""Finds the proxy that the environment names for an endpoint; sends nothing."""

import urllib.request
from urllib.parse import urlsplit

from vlmbatch.backends.http.wire import is_loopback
from vlmbatch.config.spec import redact

HINT = "check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for this URL's scheme, else ALL_PROXY; None for this machine."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = next((proxies[name] for name in (parts.scheme, "all") if proxies.get(name)), None)
    if is_loopback(url) or proxy is None or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def speaks_http(proxy: str) -> bool:
    """Whether this is an HTTP proxy; others, such as SOCKS, are not supported."""
    return proxy.lower().startswith(("http://", "https://"))


def proxy_note(url: str) -> tuple[str, ...]:
    """A note for the user if requests to this URL go through a proxy."""
    proxy = proxy_of(url)
    return () if proxy is None else (f"requests go through the proxy {redact(proxy)}",)
