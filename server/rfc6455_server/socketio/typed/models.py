"""Which annotations are for pydantic or msgspec: their own validation, their own JSON, their own JSON Schema.

Neither package is needed. Each is imported only if an annotation has one of its types, so that the
application has imported it already. A pydantic model converts as its configuration says: by default, it takes
``"1"`` for 1.
Left to others: how (`pydantic_models`, `msgspec_models`), and all other types (`records`, `shapes`).
"""

import sys
from dataclasses import is_dataclass
from typing import Annotated, Any, get_origin

from rfc6455_server.socketio.typed.shapes import Shape


def model_shape(annotation: Any, metadata: tuple[Any, ...]) -> Shape | None:
    """Returns the shape of an annotation that is a type of pydantic or msgspec, or has metadata of theirs;
    ``None`` for all others. ``metadata``: what ``Annotated`` adds to the type."""
    packages = {type(one).__module__.partition(".")[0] for one in metadata}
    type_ = get_origin(annotation) or annotation
    whole = Annotated[(annotation, *metadata)] if metadata else annotation
    label = getattr(type_, "__name__", str(type_))
    if "pydantic" in packages or _is_pydantic(type_):
        from rfc6455_server.socketio.typed.pydantic_models import PydanticShape  # noqa: PLC0415 - see above

        return PydanticShape(whole, type_, label)
    if "msgspec" in packages or _is_struct(type_):
        from rfc6455_server.socketio.typed.msgspec_models import MsgspecShape  # noqa: PLC0415 - see above

        return MsgspecShape(whole, type_, label)
    return None


def _is_pydantic(type_: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(type_, type):
        return False
    return issubclass(type_, pydantic.BaseModel) or (
        is_dataclass(type_) and pydantic.dataclasses.is_pydantic_dataclass(type_)
    )


def _is_struct(type_: Any) -> bool:
    msgspec = sys.modules.get("msgspec")
    return msgspec is not None and isinstance(type_, type) and issubclass(type_, msgspec.Struct)
