"""Finds out whether a server accepts connections, without a request."""

import asyncio
import socket
import ssl
import time
from urllib.parse import urlsplit

LISTENS_S = 2.0
"""The time limit of a connection, in seconds."""
TLS_EVERY_S = 10.0
"""A TLS server that accepted a connection is not tried again for this long: each try costs a handshake."""


class ListenProbe:
    """Opens a connection and closes it at once."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        """`tls` has the certificates of the options; None if no option is about them."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._tls = tls
        self._next_at = 0.0

    async def listens(self) -> bool:
        """Whether the server accepts a connection; also true if that is unknown."""
        if not self._host or time.monotonic() < self._next_at:
            return True
        try:
            await asyncio.to_thread(self._connect)
        except ConnectionRefusedError:  # only this is certain
            return False
        except (OSError, UnicodeError):  # too slow, an unknown or impossible host, no descriptor, TLS
            pass
        if self._is_tls:
            self._next_at = time.monotonic() + TLS_EVERY_S
        return True

    def _connect(self) -> None:
        """Open a connection and close it; raises OSError.

        A TLS server gets the whole handshake: otherwise it would log a failed one each time. Its certificate
        is not checked, since nothing is sent.
        """
        with socket.create_connection((self._host, self._port), timeout=LISTENS_S) as connection:
            if self._is_tls:
                context = self._tls or _unchecked()
                with context.wrap_socket(connection, server_hostname=self._host):
                    pass


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
