"""The shared parts of all HTTP backends: connections, deadlines, keys, TLS, proxies and the wire formats."""
