"""The description of the API (OpenAPI 3.1), made from the table of routes.

A route brings its Operation Object; what all requests have in common is added here: the request's
id, the errors that any of them may get, both forms of errors, and HEAD wherever GET is.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from twstock.market import REQUEST_ID_CHARS_MAX
from twstock.web.operations import Spec, item, reference

_CONVERTER = re.compile(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>")
_JSON, _PROBLEM = "application/json", "application/problem+json"
_FAULT = {
    "message": {"type": "string", "description": "What is wrong, for people and programs."},
    "outcome": {
        "type": "string",
        "enum": ["none", "unknown"],
        "description": "Whether an order may have been executed; `unknown`: ask again with the "
        "same key.",
    },
}

_SCHEMAS: Spec = {
    "Fault": item({"code": {"type": "integer", "description": "The status."}, **_FAULT}, "outcome"),
    "Error": item({"error": reference("Fault")}),
    "Problem": item(
        {
            "type": {"const": "about:blank"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": _FAULT["message"],
            "outcome": _FAULT["outcome"],
        },
        "outcome",
    ),
}


def _header(text: str, **schema: Any) -> Spec:
    return {"description": text, "schema": schema or {"type": "string"}}


_HEADERS: Spec = {
    "X-Request-Id": _header(
        "The request's name, also in the log.",
        type="string",
        minLength=1,
        maxLength=REQUEST_ID_CHARS_MAX,
        pattern="^[!-~]+$",
    ),
    "ETag": _header("The version of the stock in quotes.", type="string", pattern='^"[0-9]+"$'),
    "X-Cache": _header("Where the answer is from.", type="string", enum=["hit", "miss"]),
    "Link": _header('The next page, as `rel="next"`; not on the last one.'),
    "Idempotency-Replayed": _header("There if the answer was remembered.", const="true"),
    "Retry-After": _header("Seconds.", type="string", pattern="^[0-9]+$"),
    "Allow": _header("The methods that the path has."),
}


_COMMON = {
    "400": ("Malformed", "The HTTP, or a field that the message names, is malformed.", ""),
    "403": ("Foreign", "A page of another origin asks; nothing happened.", ""),
    "405": ("NotAllowed", "The path has other methods.", "Allow"),
    "408": ("TooSlow", "The request took too long to arrive.", ""),
    "413": ("TooLarge", "The body is too large.", ""),
    "414": ("TargetTooLong", "The request line is too long.", ""),
    "429": ("TooMany", "Too many requests; this one did nothing.", "Retry-After"),
    "431": ("HeadersTooLarge", "The headers are too large, or too many.", ""),
    "500": ("Broken", "An error that nobody foresaw; the log has it.", ""),
    "503": ("Unavailable", "Not now; `outcome` tells what may have happened.", "Retry-After"),
}
"""The errors that any request may get, by status: name, description, and a header. A route's own
description of a status takes precedence. 403 is only for requests that change something."""


def _of(kind: str, name: str) -> Spec:
    return {"$ref": f"#/components/{kind}/{name}"}


def _common(status: str) -> Spec:
    _, text, header = _COMMON[status]
    headers = {header: _of("headers", header)} if header else {}
    content = {_JSON: {"schema": reference("Error")}}
    return _response(status, {"description": text, "headers": headers, "content": content})


class Described(Protocol):
    """What is needed of a route: ``routes.Route`` has it."""

    @property
    def method(self) -> str:
        """GET stands for HEAD, too."""

    @property
    def path(self) -> str:
        """In Klein's form."""

    @property
    def operation(self) -> Mapping[str, Any]:
        """Its Operation Object; empty: it is not documented."""


def describe(
    routes: Iterable[Described],
    version: str,
    schemas: Mapping[str, Any],
    security: Mapping[str, Any] | None = None,
) -> Spec:
    """The OpenAPI document. ``schemas`` and ``security`` (the security schemes) are those that
    the routes' operations refer to.
    """
    paths: dict[str, Spec] = {}
    for route in routes:
        if route.operation:
            template = _CONVERTER.sub(r"{\1}", route.path)
            paths.setdefault(template, {}).update(_methods(route, template))
    components: Spec = {
        "schemas": {**_SCHEMAS, **schemas},
        "headers": _HEADERS,
        "parameters": {"RequestId": _REQUEST_ID},
        "responses": {name: _common(status) for status, (name, _, _) in _COMMON.items()},
    }
    if security:
        components["securitySchemes"] = dict(security)
    return {
        "openapi": "3.1.0",
        "info": {**_INFO, "version": version},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    }


_INFO = {
    "title": "twstock",
    "summary": "A stock trading server: every trade exactly once.",
    "description": "Errors are `application/json`, or `application/problem+json` (RFC 9457) for "
    "who prefers it by Accept. Every answer has an X-Request-Id, which a request may bring along.",
    "license": {"name": "MIT", "identifier": "MIT"},
}
_REQUEST_ID: Spec = {
    "name": "X-Request-Id",
    "in": "header",
    "description": f"What the request is called: 1 to {REQUEST_ID_CHARS_MAX} visible ASCII "
    "characters; anything else is replaced.",
    "schema": {"type": "string"},
}


def _methods(route: Described, template: str) -> Spec:
    """The route's completed operation, by its method; for GET also that of HEAD."""
    own = route.operation
    declared = {parameter.get("name") for parameter in own.get("parameters", ())}
    missing = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", template)
        if name not in declared
    ]
    parameters = [*missing, *own.get("parameters", ()), _of("parameters", "RequestId")]
    responses = {status: _of("responses", name) for status, (name, _, _) in _COMMON.items()}
    if route.method == "GET":
        del responses["403"]
    responses |= {status: _response(status, each) for status, each in own["responses"].items()}
    operation = {**own, "parameters": parameters, "responses": dict(sorted(responses.items()))}
    if route.method != "GET":
        return {route.method.lower(): operation}
    return {"get": operation, "head": _head(operation)}


def _head(operation: Spec) -> Spec:
    """The same without bodies."""
    name = operation["operationId"]
    responses = {status: _without_content(each) for status, each in operation["responses"].items()}
    about = {"operationId": f"{name}Head", "summary": f"{operation['summary']}: headers alone"}
    return {**operation, **about, "responses": responses}


def _without_content(response: Spec) -> Spec:
    return {key: value for key, value in response.items() if key != "content"}


def _response(status: str, response: Spec) -> Spec:
    """A response with the request's id, and an error also as problem details."""
    headers = {"X-Request-Id": _of("headers", "X-Request-Id"), **response.get("headers", {})}
    content = response.get("content", {})
    if int(status) >= 400 and _JSON in content:
        content = {**content, _PROBLEM: {"schema": reference("Problem")}}
    return {**response, "headers": headers, **({"content": content} if content else {})}
