"""The host's side as the laptop sees it: probe it, install there, start the server, find it again."""
