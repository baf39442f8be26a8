"""Names the services for ``twistd``; the modules behind them are imported when one is run."""

from twisted.application.service import ServiceMaker

frontend = ServiceMaker(
    "twstock front-end",
    "twstock.web.tap",
    "The REST front-end of twstock: lookups from a cache, orders to the leader.",
    "stock-frontend",
)
catalog = ServiceMaker(
    "twstock catalog",
    "twstock.catalog.tap",
    "A catalog replica of twstock: stocks, quantities and trades.",
    "stock-catalog",
)
order = ServiceMaker(
    "twstock order",
    "twstock.order.tap",
    "An order replica of twstock: numbers, replicates and keeps every order.",
    "stock-order",
)
cluster = ServiceMaker(
    "twstock cluster",
    "twstock.cluster",
    "A whole twstock cluster on this machine, each service in its own process.",
    "stock-cluster",
)
