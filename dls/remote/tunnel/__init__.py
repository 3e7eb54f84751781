"""The local port and the way from it to the server: requests, channels, and what keeps the link up."""
