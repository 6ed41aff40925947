"""From a port to a handler: accepting, proxies, routing, opening handshakes."""
