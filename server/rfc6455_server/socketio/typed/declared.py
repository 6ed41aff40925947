"""Events that the server sends, declared with their types.

    @io.emits("message")
    def message(data: ChatMessage) -> None:
        "A message in a room."

    message.emit(io.to("lobby"), ChatMessage("hello"))

A declared event is checked only if it is sent like this: `Socket.emit` and its like know nothing of
declarations, and cost the same. The declaration also describes the event in `SocketIO.asyncapi`.
Left to others: signatures (`signatures`), and sending (`sockets`, `targets`).
"""

import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

from rfc6455_server.socketio.packets import RESERVED_EVENTS
from rfc6455_server.socketio.typed.annotations import AnnotationError
from rfc6455_server.socketio.typed.shapes import NoneShape
from rfc6455_server.socketio.typed.signatures import read_signature

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

_NAMED_ONLY = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)


class Emitter(Protocol):
    """What an event is sent to: a socket, a target, a namespace, a `SocketIO`."""

    def emit(self, event: str, *args: Any) -> None:
        """Sends an event."""


class Asker(Protocol):
    """One socket, with a time for its acknowledgement or without."""

    async def emit_with_ack(self, event: str, *args: Any) -> Any:
        """Sends an event, and returns its acknowledgement."""


class OutgoingEvent(Generic[_Arguments, _Answer]):
    """An event that the server sends. ``declaration`` is a function that is never called: its annotations are
    the types of the arguments and of the clients' acknowledgements, its docstring is the description.

    Raises `AnnotationError` for annotations that cannot be resolved or sent, and for arguments that can only
    be named. Raises `ValueError` for a reserved name.
    """

    def __init__(self, name: str, declaration: Callable[_Arguments, _Answer]) -> None:
        if name in RESERVED_EVENTS:
            raise ValueError(f"reserved event name: {name}")
        self._parameters = inspect.signature(declaration)
        if any(parameter.kind in _NAMED_ONLY for parameter in self._parameters.parameters.values()):
            raise AnnotationError(f"{name}: events have no named arguments")
        self.name = name
        self.description = inspect.getdoc(declaration) or ""
        self.signature = read_signature(declaration)

    @property
    def is_answered(self) -> bool:
        """Whether an acknowledgement is declared."""
        result = self.signature.result
        return result is not None and not isinstance(result, NoneShape)

    def encode(self, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> list[Any]:
        """Returns the arguments as JSON values. Raises `InvalidDataError` if one is of another type, and
        `TypeError` if they do not fit the declaration."""
        bound = self._parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        return self.signature.encode(bound.args)

    def emit(self, target: Emitter, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        """Sends the event as ``target.emit`` does. Raises as `encode`."""
        target.emit(self.name, *self.encode(*args, **kwargs))

    async def emit_with_ack(
        self, socket: Asker, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        """Sends the event to one socket, and returns its acknowledgement, checked and converted.

        ``socket`` is a `Socket` or its `Socket.timeout`. Raises as `encode` and as `Socket.emit_with_ack`;
        raises `InvalidDataError` if the answer is of another type. To ask many, pass ``*event.encode(…)`` to
        `Target.emit_with_ack`, and each of the answers to `convert_answer`.
        """
        return self.convert_answer(await socket.emit_with_ack(self.name, *self.encode(*args, **kwargs)))

    def convert_answer(self, answer: Any) -> _Answer:
        """Returns a client's acknowledgement, converted. Raises `InvalidDataError`."""
        return cast("_Answer", self.signature.receive(answer))
