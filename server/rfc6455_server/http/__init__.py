"""HTTP on the same port as WebSockets: connections, routes, static files, metrics."""
