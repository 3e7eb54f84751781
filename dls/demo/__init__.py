"""The parts of `dls demo`: an SSH server on loopback, a client that acts as ITK-SNAP, a sample image and a picture."""
