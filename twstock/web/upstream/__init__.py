"""The services behind a front-end: who leads them, how they are called, and the leases they grant.
These modules call other members, or decide when to; they answer no HTTP request.
"""
