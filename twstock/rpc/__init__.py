"""gRPC between the tiers and between replicas: the calls, their wire form, server and client."""
