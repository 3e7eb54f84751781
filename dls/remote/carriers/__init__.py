"""Other ways to carry the connection: SSH within the standard input and output of a command."""
