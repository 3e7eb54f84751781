"""Bytes to arrays and back, with no sockets, clocks or threads."""
