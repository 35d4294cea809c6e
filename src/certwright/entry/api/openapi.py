"""The OpenAPI 3.1 document, completed with what every route shares so that it is true: problems and security."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from certwright.entry.api.base import PROBLEM_TYPE, PUBLIC, SESSION_COOKIE

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457. `code` is stable; `field` names the input; `errors` lists several at once.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "field": {"type": "string"},
        "fix": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}

_ALWAYS = {
    400: "The request can't be read.",
    422: "A value breaks a rule.",
    500: "Something went wrong here.",
    503: "Something needed doesn't answer at the moment.",
}


def _problem(sentence: str) -> dict[str, Any]:
    return {"description": sentence, "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def _problems_of(method: str, path: str, action: str, operation: dict[str, Any]) -> dict[int, str]:
    out = dict(_ALWAYS)
    if action != PUBLIC:
        out |= {401: "Not signed in, or the token is not good.", 403: "Not permitted."}
    names_one = any(p.get("name") == "version" for p in operation.get("parameters", ()))
    if "{" in path or method == "post" or names_one:
        out[404] = "There is no such object that you may see."
    if method != "get":
        out |= {409: "Not possible in the present state.", 413: "The body is too large."}
    if any(p.get("name") == "If-Match" for p in operation.get("parameters", ())):
        out |= {412: "Changed meanwhile.", 428: "If-Match is missing."}
    if method in ("post", "put"):
        out[429] = "Too many attempts."
    return out


IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The ETag of the revision that is changed.",
    "schema": {"type": "string", "pattern": '^"[0-9]{1,9}"$'},
}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeating the request with the same key within a day carries it out once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
}


def true_openapi(app: FastAPI) -> dict[str, Any]:
    """Generated once; see `create_app`."""
    if app.openapi_schema:
        return app.openapi_schema
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for path, item in made["paths"].items():
        for method, operation in item.items():
            _complete(method, path, operation)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM
    made["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "An API token: cwt_…"},
        "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
    }
    app.openapi_schema = made
    return made


def _complete(method: str, path: str, operation: dict[str, Any]) -> None:
    action = operation.get("x-action", PUBLIC)
    operation["security"] = [] if action == PUBLIC else [{"token": []}, {"session": []}]
    if method == "patch":
        operation.setdefault("parameters", []).append(IF_MATCH)
    if method == "post" and action != PUBLIC:
        operation.setdefault("parameters", []).append(_IDEMPOTENCY)
    responses = operation["responses"]
    for status, response in list(responses.items()):
        if status >= "400":
            responses[status] = _problem(response["description"])
    for status, sentence in _problems_of(method, path, action, operation).items():
        responses[str(status)] = _problem(sentence)
