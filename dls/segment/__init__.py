"""Segmentation without a viewer: the clients of both protocols, image files, prompts, and a server of one's own."""

INSTALL = 'Install it: pip install "dls[segment]"'
"""What to do where a package is missing."""
