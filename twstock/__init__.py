"""twstock: a distributed stock trading server on Twisted; every trade exactly once."""

__version__ = "0.1.0"
