"""Commands of ``twstock`` beyond single requests, which are in ``cli``, and what only they need."""
