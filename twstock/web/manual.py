"""The description of the API as a page for people: static HTML, without scripts."""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from twstock.web.operations import Spec

STYLE_PATH = "/docs/style.css"
_CODE = re.compile(r"`([^`]+)`")
_PROBLEM = "application/problem+json"
_METHODS = ("get", "post", "put", "patch", "delete")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: the API</title>
<link rel="stylesheet" href="{style}">
</head>
<body>
<header><h1>{title} <small>{version}</small></h1><p>{summary}</p></header>
<nav aria-label="Requests"><ul>{contents}</ul></nav>
<main>
<p>{description}</p>
<p>The same for programs: <a href="/openapi.json">openapi.json</a>. In the examples
<code>$TWSTOCK</code> is the address of this server. HEAD works wherever GET does.</p>
{sections}
<section aria-labelledby="errors"><h2 id="errors">Errors of any request</h2>{errors}</section>
<section aria-labelledby="schemas"><h2 id="schemas">Schemas</h2>{schemas}</section>
</main>
</body>
</html>
"""


def page(spec: Spec) -> str:
    """The whole page, from an OpenAPI document."""
    operations = [
        (method.upper(), path, item[method])
        for path, item in spec["paths"].items()
        for method in _METHODS
        if method in item
    ]
    components = spec["components"]
    return _PAGE.format(
        title=escape(spec["info"]["title"]),
        version=escape(spec["info"]["version"]),
        summary=_words(spec["info"]["summary"]),
        description=_words(spec["info"]["description"]),
        style=STYLE_PATH,
        contents="".join(_link(*operation) for operation in operations),
        sections="".join(_sections(operations)),
        errors=_pairs(_response(*each) for each in _common(spec)),
        schemas="".join(_schema(*each) for each in components["schemas"].items()),
    )


def _words(text: str) -> str:
    """Plain text as HTML; what is between back-ticks becomes code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _link(method: str, path: str, operation: Spec) -> str:
    return (
        f'<li><a href="#{escape(operation["operationId"])}">'
        f"<b>{method}</b> <code>{escape(path)}</code></a></li>"
    )


def _sections(operations: Iterable[tuple[str, str, Spec]]) -> Iterable[str]:
    """The requests by tag, in the sequence in which the tags first appear."""
    by_tag: dict[str, list[str]] = {}
    for method, path, operation in operations:
        tag = operation.get("tags", ["other"])[0]
        by_tag.setdefault(tag, []).append(_operation(method, path, operation))
    for tag, articles in by_tag.items():
        name = escape(tag)
        heading = f'<h2 id="tag-{name}">{name}</h2>'
        yield f'<section aria-labelledby="tag-{name}">{heading}{"".join(articles)}</section>'


def _operation(method: str, path: str, operation: Spec) -> str:
    name, about = escape(operation["operationId"]), operation.get("description", "")
    parameters = [each for each in operation["parameters"] if "$ref" not in each]
    responses = [each for each in operation["responses"].items() if "$ref" not in each[1]]
    parts = [
        f'<article id="{name}"><h3><b>{method}</b> <code>{escape(path)}</code></h3>',
        f"<p>{_words(operation['summary'])}. {_words(about)}</p>",
        "<p>Needs a token.</p>" if operation.get("security") else "",
        f"<pre><code>{escape(_command(method, path, operation))}</code></pre>",
    ]
    if parameters:
        parts.append("<h4>Parameters</h4>" + _pairs(map(_parameter, parameters)))
    if "requestBody" in operation:
        parts.append(f"<h4>Body</h4><p>{_content(operation['requestBody'])}</p>")
    parts.append("<h4>Answers</h4>" + _pairs(_response(*each) for each in responses))
    return "".join(parts) + "</article>"


def _command(method: str, path: str, operation: Spec) -> str:
    """How to try it with curl."""
    for each in operation["parameters"]:
        if each.get("in") == "path":
            path = path.replace(f"{{{each['name']}}}", str(each.get("example", each["name"])))
    words = ["curl -s", f"$TWSTOCK{path}"]
    example = _example(operation.get("requestBody", {}))
    if method not in ("GET", "POST") or (method == "POST" and example is None):
        words.insert(1, f"-X {method}")
    if operation.get("security"):
        words.append('-H "Authorization: Bearer $TOKEN"')
    if example is not None:
        words.append(f"-d '{json.dumps(example)}'")
    return " ".join(words)


def _example(body: Spec) -> Any:
    return body.get("content", {}).get("application/json", {}).get("example")


def _parameter(each: Spec) -> tuple[str, str]:
    where = "needed, in the path" if each["in"] == "path" else f"in the {each['in']}"
    text = f"{where}: {_type(each['schema'])}. {_words(each.get('description', ''))}"
    return f"<code>{escape(each['name'])}</code>", text


def _response(status: str, response: Spec) -> tuple[str, str]:
    """Leaves out what the page says once for all: the request's id, the form of problems."""
    names = [name for name in response.get("headers", {}) if name != "X-Request-Id"]
    headers = ", ".join(f"<code>{escape(name)}</code>" for name in names)
    content = _content(response)
    text = _words(response["description"]) + (f" {content}." if content else "")
    return f"<b>{escape(status)}</b>", f"{text} Headers: {headers}." if headers else text


def _content(body: Spec) -> str:
    """What a body holds in each of its media types, except that of problems."""
    return " or ".join(
        f"{_type(each['schema'])} as <code>{escape(media_type)}</code>"
        for media_type, each in body.get("content", {}).items()
        if "schema" in each and media_type != _PROBLEM
    )


def _schema(name: str, schema: Spec) -> str:
    heading = f'<h3 id="schema-{escape(name)}">{escape(name)}</h3>'
    needed = schema.get("required", ())
    if "properties" not in schema:
        return f"{heading}<p>{_type(schema)}</p>"
    return heading + _pairs(
        (
            f"<code>{escape(member)}</code>",
            ("" if member in needed else "optional: ")
            + f"{_type(each)}. {_words(each.get('description', ''))}",
        )
        for member, each in schema["properties"].items()
    )


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in pairs)
    return f"<dl>{rows}</dl>"


def _type(schema: Spec) -> str:
    """What a value is, in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(each))}</code>" for each in schema["enum"])
    if "oneOf" in schema:
        return " or ".join(map(_type, schema["oneOf"]))
    if "properties" in schema:
        members = (f"{escape(k)}: {_type(v)}" for k, v in schema["properties"].items())
        return f"an object of {', '.join(members)}"
    kinds = schema.get("type", "anything")
    kind = kinds if isinstance(kinds, str) else " or ".join(kinds)
    if kind == "array":
        return f"a list of {_type(schema['items'])}{_range(schema, 'Items')}"
    return escape(kind) + _range(schema, "imum") + _range(schema, "Length", " characters")


def _range(schema: Mapping[str, Any], of: str, unit: str = "") -> str:
    least, most = schema.get(f"min{of}"), schema.get(f"max{of}")
    if least is None and most is None:
        return ""
    if most is None:
        return f", {least}{unit} or more"
    return f", {0 if least is None else least} to {most}{unit}"


def _common(spec: Spec) -> list[tuple[str, Spec]]:
    """The responses that operations only refer to, by status."""
    known = spec["components"]["responses"]
    found = {
        status: known[response["$ref"].rpartition("/")[2]]
        for item in spec["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        if "$ref" in response
    }
    return sorted(found.items())
