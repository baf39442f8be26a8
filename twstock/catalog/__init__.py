"""The catalog tier: stocks, the trades that change them, and who may still show old values."""
