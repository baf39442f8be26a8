"""The HTTP server: sockets, connections, requests, the table of routes, and the forms of answers.
Its modules would serve any API: they know no stocks or orders, and call no other member. What
answers say is in ``web.answers``, how requests are counted in ``web.traffic``. The fast lane is
outside, because it knows what a request asks for.
"""
