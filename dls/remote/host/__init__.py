"""What happens on the host: look at it, install there, start the server, find it again."""
