"""The page: who may see it, and what it is told."""
