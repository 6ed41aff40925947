"""HTTP on the same port as WebSockets: connection, routes, static files, metrics."""
