"""Conversions between the bytes of the protocol and arrays: pure, without sockets, clocks or threads."""
