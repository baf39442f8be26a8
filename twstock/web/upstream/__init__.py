"""The services behind a front-end: who leads them, how they are asked, and what they grant. What
belongs here speaks to other members, or decides when to; it answers no HTTP request.
"""
