"""Parcels: packages, uv, a Python and weights in one file, for a host that reaches no internet."""
