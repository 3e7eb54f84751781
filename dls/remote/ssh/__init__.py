"""SSH to the host: configuration, host keys, authentication, and the connection that runs scripts there."""
