"""Sessions: their registry, the work on them, the memory they take, and the files in which they outlive the server."""
