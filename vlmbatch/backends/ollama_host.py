"""Reads OLLAMA_HOST as Ollama reads it."""

import ipaddress


def host_url(host: str) -> str:
    """The URL that OLLAMA_HOST stands for, read as Ollama reads it (envconfig.Host in its source).

    The scheme may be left out; the port is 11434, or 80 and 443 after http:// and https://; a path is
    kept, a query is not; 0.0.0.0 and ::, which a server listens on, are this machine for a client.
    """
    scheme, found, rest = host.strip().strip("\"'").strip().partition("://")
    if not found:
        scheme, rest = ("https", "ollama.com:443") if scheme == "ollama.com" else ("http", scheme)
        port = "11434"
    else:
        port = "443" if scheme == "https" else "80"
    address, _, path = rest.partition("?")[0].partition("/")
    login, at, address = address.rpartition("@")
    name, typed = _split_port(address)
    name = name.strip("[]") or "127.0.0.1"
    if not (typed.isdecimal() and int(typed) <= 65535):
        typed = port
    try:
        ip = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(ip), str(ip))
        name = f"[{name}]" if ":" in name else name
    path = path.strip("/")
    return f"{scheme}://{login}{at}{name}:{typed}" + (f"/{path}" if path else "")


def _split_port(address: str) -> tuple[str, str]:
    """Host and port; the port is empty where there is none, as in `::1` or `[::1]`."""
    name, colon, typed = address.rpartition(":")
    if not colon or typed.endswith("]") or ("[" not in address and ":" in name):
        return address, ""
    return name, typed
