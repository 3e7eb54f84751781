"""The page for people: its files, who may see it, and what it is told. Both sides serve it, and neither is imported.

No sockets, threads or clocks: a request goes in, and what to do about it comes out.
"""
