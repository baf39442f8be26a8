"""The order tier: it takes orders, numbers them, and keeps them for ever."""
