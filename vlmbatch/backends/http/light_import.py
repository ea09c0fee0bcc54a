"""Imports aiohttp without the certificates that it loads on import."""

import ssl


def import_aiohttp() -> None:
    """Import aiohttp, whose own SSL contexts then trust no certificate.

    aiohttp makes two contexts when it is imported. It loads all certificates of the system into both, which
    takes 50 ms: a tenth of the CPU time of a small run. A transport uses neither of them: tls.py makes its
    context. Another package in the process may need them, so only the command imports aiohttp like this.
    """

    def load_nothing(_context: object) -> None:
        pass

    method = "set_default_verify_paths"
    setattr(ssl.SSLContext, method, load_nothing)
    try:
        import aiohttp  # noqa: F401
    finally:
        delattr(ssl.SSLContext, method)  # the inherited method is in effect again
