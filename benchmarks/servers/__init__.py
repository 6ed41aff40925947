"""The servers under measurement. Each prints its port, and serves an echo at /echo and a room at /room."""
