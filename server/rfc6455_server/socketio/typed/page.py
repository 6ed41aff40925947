"""The page of an AsyncAPI document: plain HTML, without a script.

Left to others: the document (`asyncapi`), and where the page is served (`SocketIO.serve_asyncapi`).
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any, Final

from rfc6455_server.socketio.typed.definitions import Schema

_MAX_DEPTH: Final = 6
"""Maximum types in types that a line shows; the schemas below it show all."""

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
code, pre { background: light-dark(#f4f3f8, #22212b); border-radius: .3rem; padding: .1rem .3rem; }
pre { overflow-x: auto; padding: .6rem; }
article { border-top: 1px solid light-dark(#d5d3df, #3b3947); padding: .5rem 0; }
h4, dl, ul { margin: .3rem 0; }
.text { white-space: pre-line; }
"""

_BOUNDS: Final = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    **{f"min{what}": "length at least" for what in ("Length", "Items", "Properties")},
    **{f"max{what}": "length at most" for what in ("Length", "Items", "Properties")},
}

PAGE_HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
    ),
    ("Referrer-Policy", "same-origin"),
)
"""The page is allowed its own style, and nothing else."""


def render_page(document: dict[str, Any], json_path: str) -> bytes:
    """Returns the page of an AsyncAPI document, which ``json_path`` leads to."""
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    schemas: dict[str, Schema] = document["components"].get("schemas", {})
    parts = [
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f'<title>{title}</title>\n<link rel=icon href="data:,">\n<style>{_STYLE}</style>\n</head>\n<body>',
        f"<header><h1>{title}</h1>",
        _text(info.get("description", "")),
        f'<p><a href="{escape(json_path)}">The AsyncAPI document</a></p></header>\n<main>',
    ]
    for channel_id, channel in document["channels"].items():
        if not channel["messages"]:
            continue
        parts.append(
            f"<section>\n<h2>Namespace <code>{escape(channel['address'] or channel['title'])}</code></h2>"
        )
        for action, heading in (("receive", "Clients send"), ("send", "The server sends")):
            operations = list(_operations(document, channel_id, action))
            if operations:
                parts.append(f"<h3>{heading}</h3>")
                parts += [_operation(document, operation) for operation in operations]
        parts.append("</section>")
    if schemas:
        parts.append("<section>\n<h2>Types</h2>")
        for name, schema in schemas.items():
            shown = escape(json.dumps(schema, indent=2, ensure_ascii=False))
            parts.append(f'<h3 id="{escape(_anchor(name))}">{escape(name)}</h3>\n<pre>{shown}</pre>')
        parts.append("</section>")
    return "\n".join([*parts, "</main>\n</body>\n</html>\n"]).encode("utf-8", "replace")


def _operations(document: dict[str, Any], channel_id: str, action: str) -> Iterator[dict[str, Any]]:
    channel = {"$ref": f"#/channels/{channel_id}"}
    for operation in document["operations"].values():
        if operation["channel"] == channel and operation["action"] == action:
            yield operation


def _message(document: dict[str, Any], reference: dict[str, str]) -> dict[str, Any]:
    message: dict[str, Any] = document["components"]["messages"][reference["$ref"].rpartition("/")[2]]
    return message


def _operation(document: dict[str, Any], operation: dict[str, Any]) -> str:
    message = _message(document, operation["messages"][0])
    answers = [_message(document, one) for one in operation.get("reply", {}).get("messages", ())]
    entries = [("Arguments", _values(message["payload"]))]
    entries += [(answer["title"], _values(answer["payload"])) for answer in answers]
    rows = "\n".join(f"<dt>{escape(term)}</dt>\n<dd>{values}</dd>" for term, values in entries)
    return (
        f"<article>\n<h4><code>{escape(message['name'])}</code></h4>\n"
        f"{_text(message.get('description', ''))}<dl>\n{rows}\n</dl>\n</article>"
    )


def _text(text: str) -> str:
    return f"<p class=text>{escape(text)}</p>\n" if text else ""


def _values(payload: Schema) -> str:
    """Returns a list of the values in an array of arguments, or in one of several."""
    for form, word in (("anyOf", "or"), ("allOf", "and")):
        if form in payload:
            return f" {word} ".join(_values(one) for one in payload[form])
    items, rest = payload.get("items"), payload.get("additionalItems")
    if isinstance(items, dict):
        items, rest = [], items
    rows = [_value(item, optional=i >= payload.get("minItems", 0)) for i, item in enumerate(items or ())]
    if isinstance(rest, dict):
        rows.append("any number of " + _value(rest, optional=False))
    if rows:
        return "<ul>" + "".join(f"<li>{row}</li>" for row in rows) + "</ul>"
    return "none" if "maxItems" in payload else "anything"


def _value(schema: Schema, *, optional: bool) -> str:
    name = f"<code>{escape(schema['title'])}</code>: " if "title" in schema else ""
    description = f" – {escape(schema['description'])}" if "description" in schema else ""
    return name + _type(schema) + _bounds(schema) + (", optional" if optional else "") + description


def _bounds(schema: Schema) -> str:
    """Returns the bounds of a value or of its length."""
    found = [f", {word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema]
    return escape("".join(found))


def _type(schema: Any, depth: int = 0) -> str:
    """Returns what a schema says, in a line."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return "…"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{escape(_anchor(name))}">{escape(name)}</a>'
    for form, word in (("anyOf", "or"), ("oneOf", "or"), ("allOf", "and")):
        if form in schema:
            return f" {word} ".join(_type(one, depth + 1) for one in schema[form])
    if "enum" in schema:
        return " or ".join(escape(json.dumps(one, ensure_ascii=False)) for one in schema["enum"])
    match schema.get("type"):
        case "array":
            items = schema.get("items", {})
            if isinstance(items, list):
                return f"array of ({', '.join(_type(one, depth + 1) for one in items)})"
            return f"array of {_type(items, depth + 1)}"
        case "object" if "properties" in schema:
            fields = [
                f"{escape(name)}: {_type(one, depth + 1)}" for name, one in schema["properties"].items()
            ]
            return "object of (" + ", ".join(fields) + ")"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object of {_type(schema['additionalProperties'], depth + 1)}"
        case "string" if schema.get("format") == "binary":
            return "bytes"
        case "string" if "format" in schema:
            return escape(schema["format"])
        case None:
            return "anything"
        case type_:
            return escape(str(type_))


def _anchor(name: str) -> str:
    return f"type-{name}"
