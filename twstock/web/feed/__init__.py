"""The feed of events: where news come from, how they look as bytes, who is told what and when. What
belongs here exists only because a client reads ``GET /events``.
"""
