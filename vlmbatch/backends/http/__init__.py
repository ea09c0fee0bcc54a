"""What all backends over HTTP share: connections, deadlines, keys, TLS, proxies and the wire formats."""
