"""The servers that are measured: each prints its port, echoes at /echo, and has a room at /room."""
