"""Builds SSL contexts: one from the TLS options, and one with the certificates of the system."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from vlmbatch.config.request import RequestOptions
from vlmbatch.errors import ConfigError

PEM_MARK = b"-----BEGIN "


@cache
def system_context() -> ssl.SSLContext:
    """The SSL context that trusts the certificates of the system. Loading them takes 30 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))
    return context


def tls_context(options: RequestOptions) -> ssl.SSLContext | None:
    """The SSL context of the options; None if no TLS option is set.

    Raises:
        ConfigError: a file cannot be read, is not PEM, or the key is not that of the certificate.
    """
    if not (options.ca_cert or options.client_cert or options.insecure):
        return None
    context = ssl.create_default_context()
    if options.ca_cert:
        with _errors_naming("--ca-cert", options.ca_cert):
            context.load_verify_locations(options.ca_cert)
    if options.client_cert:
        _load_client_certificate(context, options.client_cert, options.client_key)
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_client_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Load the client certificate and its key into the context."""
    flags = "--client-cert and --client-key" if key else "--client-cert"
    for flag, path in (("--client-cert", certificate), ("--client-key", key)):
        if path:
            with _errors_naming(flag, path):
                pass
    try:
        # without a password OpenSSL would prompt for one on the terminal and wait
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise ConfigError(
                f"{flags} do not belong together: the key is for another certificate; "
                "name the key of this certificate"
            ) from error
        raise ConfigError(
            f"{flags}: no certificate with its key in PEM form, or the key has a password "
            "(openssl pkey removes it); if the key is in a separate file, name it with --client-key"
        ) from error


@contextmanager
def _errors_naming(flag: str, path: str) -> Iterator[None]:
    """Check that the file of this option is PEM; errors inside the ``with`` name the option.

    The path of a key is left out: it may be the key itself, pasted by mistake.
    """
    option = flag if flag == "--client-key" else f"{flag} {path}"
    try:
        if PEM_MARK not in Path(path).read_bytes():
            raise ConfigError(
                f"{option} is not a PEM file: no line begins with -----BEGIN; convert it to PEM"
            )
        yield
    except ssl.SSLError as error:
        raise ConfigError(
            f"{option} contains no readable certificate; get a whole copy in PEM form"
        ) from error
    except OSError as error:
        raise ConfigError(f"{option} cannot be read: {error.strerror}; check its path") from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError(
            f"{flag} contains a NUL character, which a path cannot have; name the file"
        ) from error
