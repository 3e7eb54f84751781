"""This computer's network, lent to a host for the time of an installation: a few names, HTTPS only, with a secret."""
