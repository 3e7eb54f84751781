"""Sessions: create, find, put to sleep and wake them, and the files that they outlive a process in."""
