"""Clusters: from the login node into a job of the scheduler, and a connection to the node where it runs."""
