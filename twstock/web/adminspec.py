"""What the API says of administration, in the words of OpenAPI 3.1. Pure."""

from collections.abc import Mapping
from typing import Any

from twstock.market import (
    KEY_CHARS_MAX,
    NAME_CHARS_MAX,
    QUANTITY_MAX,
    STOCK_NOT_FOUND,
    ChangeKind,
)


def _object(properties: Mapping[str, Any], required: str) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": required.split()}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": dict(schema)}}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_WHOLE = {"type": "integer", "minimum": 1}
_PRICE = {
    "description": "At most two decimals.",
    "oneOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9]{1,13}(\.[0-9]{1,2})?$"},
    ],
}
_SHARES = {"type": "integer", "minimum": 0, "maximum": QUANTITY_MAX}
_MORE_SHARES = {**_SHARES, "minimum": 1}
_NAME = {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}

SCHEMAS: dict[str, Any] = {
    "NewStock": _object(
        {"name": _NAME, "price": _PRICE, "quantity": _SHARES}, "name price quantity"
    ),
    "Restock": _object({"quantity": _MORE_SHARES}, "quantity"),
    "NewPrice": _object({"price": _PRICE}, "price"),
    "StockChange": _object(
        {
            "change_number": _WHOLE,
            "kind": {"type": "string", "enum": [str(kind) for kind in ChangeKind]},
            "name": _NAME,
            "price": {"type": "number", "minimum": 0},
            "quantity": _SHARES,
            "version": _WHOLE,
            "timestamp_ms": {"type": "integer"},
        },
        "change_number kind name version timestamp_ms",
    ),
    "ChangedStock": _object(
        {
            "data": _object(
                {"change_number": _WHOLE, "stock": _reference("Stock")}, "change_number stock"
            )
        },
        "data",
    ),
    "StockChanges": _object(
        {
            "data": {"type": "array", "items": _reference("StockChange")},
            "next": {"type": ["integer", "null"]},
            "last": {
                "type": "integer",
                "minimum": 0,
                "description": "The number of the last change.",
            },
        },
        "data next last",
    ),
}
"""What ``components`` has to hold for these routes, beside ``Stock`` and ``Error``."""

SECURITY_SCHEMES: dict[str, Any] = {"adminToken": {"type": "http", "scheme": "bearer"}}
"""What ``components.securitySchemes`` has to hold."""


def _refusals(**words: str) -> dict[str, Any]:
    return {
        code[1:]: {"description": text, **_json(_reference("Error"))}
        for code, text in words.items()
    }


_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Names the request: sent again with the same key and body, it is done once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX, "pattern": "^[!-~]+$"},
}
_STOCK_NAME: dict[str, Any] = {
    "name": "name", "in": "path", "required": True, "schema": {"type": "string"},
}  # fmt: skip


def _change(kind: str, summary: str, body_schema: str = "", *conflicts: str) -> dict[str, Any]:
    """The Operation Object of a change."""
    operation: dict[str, Any] = {
        "operationId": f"{kind}Stock",
        "summary": summary,
        "tags": ["admin"],
        "security": [{"adminToken": []}],
        "parameters": [_KEY] if kind == "add" else [_STOCK_NAME, _KEY],
        "responses": {
            "200": {"description": "Done, now or before.", **_json(_reference("ChangedStock"))},
            **_refusals(
                _400="A field is wrong; the message names it.",
                _401="The token is missing or wrong.",
                _403="No admin token is configured, or a page of another origin asks.",
                _409="; ".join(conflicts) or "As many changes are kept as may be.",
                _422="The key was used with another change.",
                _503="Not now; `error.outcome` tells whether it may have been done.",
                _507="A disk is full; `error.outcome` tells whether it may have been done.",
            ),
        },
    }
    if kind != "add":
        operation["responses"] |= _refusals(_404=STOCK_NOT_FOUND)
    if body_schema:
        operation["requestBody"] = {"required": True, **_json(_reference(body_schema))}
    return operation


ADD = _change("add", "Add a stock", "NewStock", "stock exists already")
CHANGES = {
    "restock": _change("restock", "Add shares", "Restock", "the quantity would be too large"),
    "price": _change("price", "Set a new price", "NewPrice"),
    "halt": _change("halt", "Let nobody trade a stock", "", "already halted"),
    "resume": _change("resume", "Let a halted stock be traded again", "", "not halted"),
}
LIST: dict[str, Any] = {
    "operationId": "listChanges",
    "summary": "The changes of stocks, in the sequence of their numbers",
    "tags": ["admin"],
    "parameters": [
        {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0}},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1}},
    ],
    "responses": {
        "200": {"description": "A page of changes.", **_json(_reference("StockChanges"))},
        **_refusals(_400="A parameter is wrong; the message names it.", _503="Not now."),
    },
}
