"""What the documentation says is run, and its links lead somewhere."""
