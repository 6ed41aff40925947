"""One open WebSocket, from the bytes of asyncio to what a handler calls.

The files, in the order of their imports: `reports` (how a connection ended), `streams` (bytes in and out),
`hub` (what the connections of a server share), `backlog` and `outbox` (outgoing messages), `inbox` (incoming
messages), `pings` (those of the application), `ending` (closing), `websocket` (what users call), `keepalive`
(Pings of the server).
"""
