"""Whom the endpoint is trusted by, and what is shown to it: an SSL context out of the options' files."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmbatch.config.request import RequestOptions
from vlmbatch.errors import ConfigError

PEM_MARK = b"-----BEGIN "


def tls_context(options: RequestOptions) -> ssl.SSLContext | None:
    """The context for connections that the options ask for; None where they ask for nothing of the kind.

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
    """Let the context show this certificate."""
    flags = "--client-cert and --client-key" if key else "--client-cert"
    for flag, path in (("--client-cert", certificate), ("--client-key", key)):
        if path:
            with _errors_naming(flag, path):
                pass
    try:
        # without a password OpenSSL would ask for one on the terminal, and wait
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise ConfigError(f"{flags} do not belong together: the key is another certificate's") from error
        raise ConfigError(
            f"{flags}: no certificate with its key in PEM form, or the key has a password "
            "(openssl pkey takes it off); name the key with --client-key where it is a file of its own"
        ) from error


@contextmanager
def _errors_naming(flag: str, path: str) -> Iterator[None]:
    """Inside the ``with`` the file of this option is used; it is there and looks like PEM.

    The path of a key is not told: somebody may have put the key itself there.
    """
    told = flag if flag == "--client-key" else f"{flag} {path}"
    try:
        if PEM_MARK not in Path(path).read_bytes():
            raise ConfigError(f"{told} is no PEM file: no line of it begins with -----BEGIN")
        yield
    except ssl.SSLError as error:
        raise ConfigError(f"{told} holds no certificate that can be read; give it in PEM form") from error
    except OSError as error:
        raise ConfigError(f"{told} cannot be read: {error.strerror}; check its path") from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError(f"{flag} is no path of a file") from error
