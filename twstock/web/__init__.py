"""The front-end: REST on Klein, a cache under a lease, and orders sent to the order leader."""
