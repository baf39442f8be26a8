"""How OpenAPI 3.1 describes administration. Pure."""

from typing import Any

from twstock.market import STOCK_NOT_FOUND, ChangeKind
from twstock.web.operations import COUNT, KEY_TEXT, NAME, SHARES, in_json, item, reference, refused

_WHOLE = {"type": "integer", "minimum": 1}
_PRICE = {
    "description": "At most two decimals.",
    "oneOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9]{1,13}(\.[0-9]{1,2})?$"},
    ],
}
_MORE_SHARES = {**SHARES, "minimum": 1}

SCHEMAS: dict[str, Any] = {
    "NewStock": item({"name": NAME, "price": _PRICE, "quantity": SHARES}),
    "Restock": item({"quantity": _MORE_SHARES}),
    "NewPrice": item({"price": _PRICE}),
    "StockChange": item(
        {
            "change_number": _WHOLE,
            "kind": {"type": "string", "enum": [str(kind) for kind in ChangeKind]},
            "name": NAME,
            "price": {"type": "number", "minimum": 0},
            "quantity": SHARES,
            "version": _WHOLE,
            "timestamp_ms": {"type": "integer"},
        },
        "price quantity",
    ),
    "ChangedStock": item({"data": item({"change_number": _WHOLE, "stock": reference("Stock")})}),
    "StockChanges": item(
        {
            "data": {"type": "array", "items": reference("StockChange")},
            "next": {"type": ["integer", "null"]},
            "last": {**COUNT, "description": "The number of the last change."},
        }
    ),
}
"""The schemas that these operations refer to, besides ``Stock`` and ``Error``."""

SECURITY_SCHEMES: dict[str, Any] = {"adminToken": {"type": "http", "scheme": "bearer"}}
"""The value of ``components.securitySchemes``."""


def _refusals(**words: str) -> dict[str, Any]:
    return {code[1:]: refused(text) for code, text in words.items()}


_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Names the request: sent again with the same key and body, it is done once.",
    "schema": KEY_TEXT,
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
            "200": {"description": "Done, now or before.", **in_json("ChangedStock")},
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
        operation["requestBody"] = {"required": True, **in_json(body_schema)}
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
        {"name": "after", "in": "query", "schema": COUNT},
        {"name": "limit", "in": "query", "schema": _WHOLE},
    ],
    "responses": {
        "200": {"description": "A page of changes.", **in_json("StockChanges")},
        **_refusals(_400="A parameter is wrong; the message names it.", _503="Not now."),
    },
}
