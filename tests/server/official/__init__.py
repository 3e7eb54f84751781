"""Sessions of the clients of nnInteractive's own protocol."""
