"""The feed, ``GET /events``: where its events are read, how they look as bytes, and which client is
sent what, and when. Only the feed needs these modules.
"""
