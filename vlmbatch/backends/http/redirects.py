"""Decides which redirects are followed: those that keep the request and its host, since it has a key."""

from urllib.parse import SplitResult, urljoin, urlsplit

MOST_HOPS = 5
KEEPS_THE_REQUEST = (307, 308)
"""After these statuses the same method and body go to the target; after others a POST would become a GET."""
_PORTS = {"http": 80, "https": 443}


def target_of(status: int, location: str | None, url: str) -> str | None:
    """The URL to which the request is sent again; None if the reply is no redirect or is not followed.

    It goes to the same host and port only, or from http to https on the same host, since it has a key.
    """
    if status not in KEEPS_THE_REQUEST or not location:
        return None
    try:
        here, there = urlsplit(url), urlsplit(urljoin(url, location))
        followed = "@" not in there.netloc and there.hostname == here.hostname and _keeps_port(here, there)
    except ValueError:  # no URL
        return None
    return there._replace(query=there.query or here.query, fragment="").geturl() if followed else None


def _keeps_port(here: SplitResult, there: SplitResult) -> bool:
    if (here.scheme, there.scheme) == ("http", "https"):
        return True
    return here.scheme == there.scheme and _port(here) == _port(there)


def _port(parts: SplitResult) -> int | None:
    return parts.port or _PORTS.get(parts.scheme)
