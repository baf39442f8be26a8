"""The HTTP server: sockets, connections, requests, the table of routes, and the forms that answers
take. What belongs here would serve any API: it knows no stock and no order, and asks nobody. What
answers say is ``web.answers``, what requests count as ``web.traffic``; the fast lane, which knows
what it is asked for, is outside.
"""
