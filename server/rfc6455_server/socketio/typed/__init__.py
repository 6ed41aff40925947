"""One format for requests and answers: the types of events, from the annotations of their handlers.

The files, from the bottom upward: `problems`, `definitions` (JSON Schemas), `shapes`, `containers`, `records`
and `models` (how values of a type are converted), `annotations` (from a type to its shape), `signatures`
(from a function to its event), `declared` (the events that the server sends), `asyncapi` and `page` (what is
shown of all events).
"""
