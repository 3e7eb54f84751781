"""Data of the SSH protocols (RFC 4251, section 5), as they stand in keys and in messages of an agent: pure."""

from __future__ import annotations


def string(data: bytes) -> bytes:
    """Return the data with their length before them, as a `string` is written."""
    return len(data).to_bytes(4, "big") + data


def mpint(number: int) -> bytes:
    """Return a number that is not negative as an `mpint` is written."""
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b"")


class Reader:
    """Takes the fields of a message one after the other; raises ValueError where the message ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        end = self.position + size
        if end > len(self._data):
            raise ValueError("the data end too early")
        taken, self.position = self._data[self.position : end], end
        return taken

    def uint32(self) -> int:
        """Return the next number of four bytes."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """Return the next string, without its length."""
        return self.take(self.uint32())
