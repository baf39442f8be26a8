"""Benchmarks: they start a cluster of their own on loopback and end by themselves."""
