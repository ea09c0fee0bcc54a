"""What /openapi.json says beyond what the web framework can see: bodies, failures, headers and keys."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from vlmbatch.service.admission import OPEN_PATHS
from vlmbatch.service.fields import Failed
from vlmbatch.service.problems import AGAIN_S, STATUS

Json = dict[str, Any]
_FILE = {"type": "string", "format": "binary", "description": "An image file."}
_JSONL_FILE = {**_FILE, "description": "A JSONL file with a request in each line."}
_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "The id of the request: 1 to 128 letters, digits, dots, hyphens and underscores. "
    "The service replaces any other value.",
    "schema": {"type": "string"},
}
_HEADERS: Mapping[str, Json] = {
    "X-Request-ID": {
        "description": "The id of the request, as in the log.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "Retry-After": {
        "description": "When to try again, in seconds.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "Location": {
        "description": "The address of the job.",
        "required": True,
        "schema": {"type": "string", "pattern": "^/job/[0-9a-f]{32}$"},
    },
    "WWW-Authenticate": {"required": True, "schema": {"type": "string", "const": "Bearer"}},
    "Allow": {
        "description": "The methods of this address.",
        "required": True,
        "schema": {"type": "string"},
    },
}
_HEADERS_OF_STATUS: Mapping[int, tuple[str, ...]] = {
    202: ("Location",),
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    **dict.fromkeys(AGAIN_S, ("Retry-After",)),
}
_KEYS: Mapping[str, Json] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def bodies(
    *,
    json: type[BaseModel] | None = None,
    form: type[BaseModel] | None = None,
    most_files: int = 1,
    headers: Iterable[Json] = (),
) -> Json:
    """The description of a body that is JSON, or a form with the field `file`, or either of them.

    The fields of a form may also be in the URL. It has at most `most_files` files. `headers` are parameters.
    """
    content: Json = {}
    parameters: list[Json] = [*headers]
    if json is not None:
        content["application/json"] = {"schema": _schema(json)}
    if form is not None:
        schema = _without_null(_schema(form))
        parameters += [_parameter(name, field) for name, field in schema["properties"].items()]
        file = _FILE if most_files == 1 else _array(_FILE, most_files)
        schema["properties"] = {"file": file, **schema["properties"]}
        schema["required"] = ["file"]
        encoding = {"schema": {"contentType": "application/json"}}
        content["multipart/form-data"] = {"schema": schema, "encoding": encoding}
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def jsonl_form(form: type[BaseModel]) -> Json:
    """The description of a form with these fields, and a JSONL file in the field `file`."""
    schema = _schema(form)
    schema["properties"] = {"file": _JSONL_FILE, **schema["properties"]}
    schema["required"] = ["file", *schema["required"]]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def url_parameters(fields: type[BaseModel]) -> Json:
    """The description of these fields in the URL."""
    schema = _without_null(_schema(fields))
    return {"parameters": [_parameter(name, field) for name, field in schema["properties"].items()]}


def lines(model: type[BaseModel]) -> Json:
    """The description of a reply with one JSON object in each line."""
    return {"content": {"application/x-ndjson": {"itemSchema": _schema(model)}}}


def server_events(description: str) -> Json:
    """The description of a reply that may be JSON or a stream of server-sent events."""
    data = {"type": "string", "description": description}
    item = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {"content": {"text/event-stream": {"itemSchema": item}}}


def failures(
    model: type[BaseModel] = Failed, statuses: Iterable[int] = frozenset(STATUS.values())
) -> dict[int | str, Json]:
    """The statuses of failures, each with this form of body."""
    return {status: {"model": model} for status in sorted(statuses) if status != STATUS["client_gone"]}


def described(app: FastAPI, routers: Iterable[APIRouter], *, has_keys: bool) -> Json:
    """The document for an app with the routes of these routers; `has_keys`: clients need a key."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for route in (route for router in routers for route in router.routes if isinstance(route, APIRoute)):
        operations: Json = document["paths"].get(route.path, {})
        for operation in (operations[m.lower()] for m in route.methods or () if m.lower() in operations):
            operation |= route.openapi_extra or {}  # the framework has made floats of its bounds
            _complete(operation, needs_key=has_keys and route.path not in OPEN_PATHS)
    document["components"]["headers"] = dict(_HEADERS)
    if has_keys:
        document["components"]["securitySchemes"] = dict(_KEYS)
    return document


def _complete(operation: Json, *, needs_key: bool) -> None:
    """Add what all operations have: the id of the request, headers of replies, and perhaps the key."""
    operation["parameters"] = [*operation.get("parameters", ()), _REQUEST_ID]
    for status, response in operation["responses"].items():
        names = ("X-Request-ID", *_HEADERS_OF_STATUS.get(int(status), ()))
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    if needs_key:
        operation["security"] = [{name: []} for name in _KEYS]


def _parameter(name: str, field: Json) -> Json:
    """A field of a form, as a parameter of the URL."""
    shape = (
        {"content": {"application/json": {"schema": field}}}
        if field.get("type") == "object"
        else {"schema": field}
    )
    return {"name": name, "in": "query", **shape}


def _array(items: Json, most: int) -> Json:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


def _without_null(schema: Json) -> Json:
    """The schema of a form, whose fields cannot be null."""
    fields: Json = {}
    for name, field in schema["properties"].items():
        others = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
        kinds = [kind for kind in field["anyOf"] if kind != {"type": "null"}]
        fields[name] = {**others, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})}
    return {**schema, "properties": fields}


def _schema(model: type[BaseModel]) -> Json:
    """The JSON Schema of a body, without references."""
    schema = model.model_json_schema(by_alias=True)
    parts = schema.pop("$defs", {})
    inlined: Json = _inlined(schema, parts)
    return inlined


def _inlined(value: Any, parts: Json) -> Any:
    if isinstance(value, dict):
        if "$ref" in value:
            return _inlined(parts[value["$ref"].rpartition("/")[2]], parts)
        return {name: _inlined(item, parts) for name, item in value.items() if name != "discriminator"}
    return [_inlined(item, parts) for item in value] if isinstance(value, list) else value
