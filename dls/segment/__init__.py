"""Segmentation without a viewer: the clients of both protocols, image files, prompts, and a server of one's own."""
