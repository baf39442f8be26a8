"""The front-end: REST on Klein, a cache under a lease, orders to whoever leads."""
