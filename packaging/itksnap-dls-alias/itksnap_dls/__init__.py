"""Runs `dls serve` under the name by which ITK-SNAP starts a server on its own computer."""
