"""How OpenAPI 3.1 describes the API's requests: one Operation Object for each, and the schemas that
they refer to. ``openapi`` adds what all have in common.
"""

from collections.abc import Mapping
from typing import Any

from twstock.market import KEY_CHARS_MAX, NAME_CHARS_MAX, QUANTITY_MAX
from twstock.web.bodies import BATCH_ORDERS_MAX, NUMBER_MAX

Spec = dict[str, Any]


def reference(name: str) -> Spec:
    """A reference to a schema among the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def in_json(name: str, **more: Any) -> Spec:
    """The content of a body in JSON."""
    return {"content": {"application/json": {"schema": reference(name), **more}}}


def refused(text: str) -> Spec:
    """A response that is an error."""
    return {"description": text, **in_json("Error")}


def item(properties: Mapping[str, Any], optional: str = "") -> Spec:
    """The schema of an object; ``optional`` has the members that are not required."""
    required = [name for name in properties if name not in optional.split()]
    return {"type": "object", "properties": dict(properties), "required": required}


def page(name: str, after: Spec) -> Spec:
    """The schema of a page: rows, and where the next one begins."""
    rows = {"type": "array", "items": reference(name)}
    return item({"data": rows, "next": {**after, "description": "null on the last page."}})


COUNT: Spec = {"type": "integer", "minimum": 0}
SHARES: Spec = {"type": "integer", "minimum": 0, "maximum": QUANTITY_MAX}
NUMBER: Spec = {"type": "integer", "minimum": 1, "maximum": NUMBER_MAX}
PRICE: Spec = {"type": "number", "minimum": 0, "description": "Two decimals."}
NAME: Spec = {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}
SIDE: Spec = {"type": "string", "enum": ["buy", "sell"]}
KEY_TEXT: Spec = {
    "type": "string",
    "minLength": 1,
    "maxLength": KEY_CHARS_MAX,
    "pattern": "^[!-~]+$",
}
KEY: Spec = {
    **KEY_TEXT,
    "description": "Names the request: however often it is sent, it trades at most once.",
}
ORDER: Spec = {
    "name": {**NAME, "description": "A stock."},
    "quantity": {"type": "integer", "minimum": 1, "maximum": QUANTITY_MAX},
    "type": SIDE,
}
REPLAYED: Spec = {"const": True, "description": "The answer was remembered: see the key."}

SCHEMAS: Spec = {
    "Stock": item(
        {
            "name": NAME,
            "price": PRICE,
            "quantity": {**SHARES, "description": "Shares that are left to buy."},
            "volume": {**SHARES, "description": "Shares traded so far, both ways."},
            "version": {**COUNT, "description": "Grows with each change of the stock."},
            "halted": {"const": True, "description": "There while trading is halted."},
        },
        "halted",
    ),
    "StockFound": item({"data": reference("Stock")}),
    "Stocks": page("Stock", {"type": ["string", "null"]}),
    "NewOrder": item(ORDER),
    "Placed": item({"data": item({"transaction_number": NUMBER})}),
    "Order": item(
        {
            "order_num": NUMBER,
            "name": NAME,
            "type": SIDE,
            "quantity": {**SHARES, "minimum": 1},
            "price": PRICE,
            "version": {**COUNT, "description": "The version of the stock that it made."},
            "time_ms": {**COUNT, "description": "Milliseconds since 1970."},
        }
    ),
    "OrderFound": item({"data": reference("Order")}),
    "Orders": page("Order", {"type": ["integer", "null"]}),
    "NewBatch": item(
        {
            "orders": {
                "type": "array",
                "minItems": 1,
                "maxItems": BATCH_ORDERS_MAX,
                "items": {"$ref": "#/components/schemas/NewKeyedOrder"},
            }
        }
    ),
    "NewKeyedOrder": item({**ORDER, "idempotency_key": KEY}, "idempotency_key"),
    "PlacedBatch": item(
        {
            "data": {
                "type": "array",
                "minItems": 1,
                "maxItems": BATCH_ORDERS_MAX,
                "items": {"oneOf": [reference("PlacedRow"), reference("RefusedRow")]},
                "description": "One row for each order, in their sequence.",
            }
        }
    ),
    "PlacedRow": item(
        {"status": {"const": 200}, "transaction_number": NUMBER, "replayed": REPLAYED}, "replayed"
    ),
    "RefusedRow": item(
        {
            "status": {"type": "integer", "enum": [400, 404, 422, 429, 500, 503, 507]},
            "error": reference("Fault"),
            "replayed": REPLAYED,
        },
        "replayed",
    ),
    "Member": item(
        {
            "service": {"type": "string", "enum": ["front", "catalog", "order"]},
            "id": NUMBER,
            "address": {"type": "string"},
            "alive": {"type": "boolean"},
            "pid": {"type": ["integer", "null"]},
            "role": {"enum": ["leader", "follower", "candidate", "joining", "serving", None]},
            "term": {"type": ["integer", "null"]},
            "last_transaction": {"type": ["integer", "null"]},
            "commit": {"type": ["integer", "null"]},
            "applied": {"type": ["integer", "null"]},
            "lag": {"type": ["integer", "null"], "description": "Log entries behind the first."},
            "leader_id": {"type": ["integer", "null"]},
            "uptime_s": {"type": ["number", "null"]},
            "ready": {"type": ["boolean", "null"]},
            "reason": {"type": ["string", "null"], "description": "Why it is not ready."},
        }
    ),
    "Cluster": item({"data": item({"services": {"type": "array", "items": reference("Member")}})}),
    "Cache": item(
        {
            "data": item(
                dict.fromkeys(
                    ("size", "entries", "hits", "misses", "evictions", "invalidations"), COUNT
                )
            )
        }
    ),
    "Alive": item({"data": item({"alive": {"const": True}})}),
    "Readiness": item(
        {"ready": {"type": "boolean"}, "reasons": {"type": "array", "items": {"type": "string"}}}
    ),
    "Ready": item({"data": reference("Readiness")}),
    "NotReady": item({"data": reference("Readiness"), "error": reference("Fault")}),
}


def _header(name: str) -> Spec:
    return {"$ref": f"#/components/headers/{name}"}


def _parameter(place: str, name: str, schema: Spec, text: str) -> Spec:
    required = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, "description": text, "schema": schema, **required}


_LIMIT = _parameter(
    "query", "limit", {"type": "integer", "minimum": 1, "default": 100}, "How many at most."
)
_EXAMPLE = {"name": "GameStart", "quantity": 1, "type": "buy"}
_KEYED = {**_EXAMPLE, "idempotency_key": "my-key-1"}
_NEXT = {"Link": _header("Link")}

GET_STOCK: Spec = {
    "operationId": "getStock",
    "summary": "Look a stock up",
    "description": "As it is now, wherever it is asked for: no lookup is stale.",
    "tags": ["stocks"],
    "parameters": [
        {**_parameter("path", "name", NAME, "The stock's name."), "example": "GameStart"},
        _parameter(
            "header",
            "If-None-Match",
            {"type": "string"},
            "ETags of what the client has: if the stock is still so, the answer is 304.",
        ),
    ],
    "responses": {
        "200": {
            "description": "The stock.",
            "headers": {name: _header(name) for name in ("ETag", "X-Cache")},
            **in_json("StockFound"),
        },
        "304": {"description": "It is still as the client has it.", "headers": {
            name: _header(name) for name in ("ETag", "X-Cache")
        }},
        "400": refused("The name is not UTF-8."),
        "404": refused("`stock not found`"),
    },
}  # fmt: skip
LIST_STOCKS: Spec = {
    "operationId": "listStocks",
    "summary": "List stocks",
    "description": "In pages, sorted by name.",
    "tags": ["stocks"],
    "parameters": [
        _parameter("query", "after", {"type": "string", "maxLength": NAME_CHARS_MAX},
                   "A name: the page begins behind it."),
        _LIMIT,
    ],
    "responses": {
        "200": {"description": "A page.", "headers": _NEXT, **in_json("Stocks")},
        "400": refused("A parameter is wrong; the message names it."),
    },
}  # fmt: skip
LIST_ORDERS: Spec = {
    "operationId": "listOrders",
    "summary": "List orders",
    "description": "Executed orders in pages, in the sequence of their numbers.",
    "tags": ["orders"],
    "parameters": [
        _parameter("query", "after", {"type": "integer", "minimum": 0},
                   "A number: the page begins behind it."),
        _LIMIT,
    ],
    "responses": {
        "200": {"description": "A page.", "headers": _NEXT, **in_json("Orders")},
        "400": refused("A parameter is wrong; the message names it."),
    },
}  # fmt: skip
GET_ORDER: Spec = {
    "operationId": "getOrder",
    "summary": "Find an order by its number",
    "tags": ["orders"],
    "parameters": [
        {**_parameter("path", "number", NUMBER, "The transaction number."), "example": 1}
    ],
    "responses": {
        "200": {"description": "The order, which never changes.", **in_json("OrderFound")},
        "404": refused("`Transaction number not found`"),
    },
}
PLACE_ORDER: Spec = {
    "operationId": "placeOrder",
    "summary": "Buy or sell",
    "description": "An order that is answered with 200 has been executed and is kept for ever. "
    "With an Idempotency-Key it may be sent again until it is answered.",
    "tags": ["orders"],
    "parameters": [_parameter("header", "Idempotency-Key", KEY, "Names the request.")],
    "requestBody": {"required": True, **in_json("NewOrder", example=_EXAMPLE)},
    "responses": {
        "200": {
            "description": "Executed.",
            "headers": {"Idempotency-Replayed": _header("Idempotency-Replayed")},
            **in_json("Placed"),
        },
        "400": refused("A field is wrong; the message names it."),
        "404": refused(
            "Refused: `invalid stock name`, `not enough stocks left to buy`, `invalid transaction "
            "type`, `num stocks traded should be non negative`, `trading in this stock is halted`."
        ),
        "413": refused("The body is too large."),
        "422": refused("`idempotency key was used with another order`"),
        "507": refused("A disk is full; `outcome` tells whether the order may have been executed."),
    },
}
PLACE_BATCH: Spec = {
    "operationId": "placeBatch",
    "summary": "Buy or sell many times",
    "description": f"1 to {BATCH_ORDERS_MAX} orders, each executed or refused by itself.",
    "tags": ["orders"],
    "requestBody": {
        "required": True,
        **in_json("NewBatch", example={"orders": [_KEYED, _EXAMPLE]}),
    },
    "responses": {
        "200": {"description": "What became of each.", **in_json("PlacedBatch")},
        "400": refused("This is no batch; the message names the field."),
        "413": refused("The body is too large."),
    },
}


def _state(operation_id: str, summary: str, schema: str, **more: Any) -> Spec:
    responses = {"200": {"description": "The current state.", **in_json(schema)}, **more}
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["state"],
        "responses": responses,
    }


CLUSTER = _state("getCluster", "Every member: who is alive, leads, lags", "Cluster")
CACHE = _state("getCache", "This front-end's cache", "Cache")
ALIVE = _state("isAlive", "Whether this process runs", "Alive")
READY = _state("isReady", "Whether this front-end can serve", "Ready")
READY["responses"]["503"] = {
    "description": "Not now, for these reasons.",
    "headers": {"Retry-After": _header("Retry-After")},
    **in_json("NotReady"),
}
