"""The tunnel: the local port, the requests that come to it, and the link that carries them to the server."""
