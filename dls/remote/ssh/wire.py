"""The data types of RFC 4251, section 5, of which keys, certificates and messages consist: pure."""

from __future__ import annotations


class MalformedError(ValueError):
    """The bytes are not what they should be."""


class Reader:
    """Reads the fields of a key or a certificate one after the other; raises MalformedError where they are cut off.

    paramiko's `Message` reads zeros there.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset = 0
        """Number of bytes that have been read."""

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        end = self.offset + size
        if end > len(self._data):
            raise MalformedError("it is cut off")
        data, self.offset = self._data[self.offset : end], end
        return data

    def number(self, size: int) -> int:
        """Return the next unsigned number, of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        """Return the next string."""
        return self.take(self.number(4))

    def text(self) -> str:
        """Return the next string as text."""
        return self.string().decode(errors="replace")

    def strings(self) -> list[bytes]:
        """Return the strings that all the rest consists of."""
        found = []
        while self.offset < len(self._data):
            found.append(self.string())
        return found


def string(data: bytes) -> bytes:
    """Return the data with their length before them, as a `string` is written."""
    return len(data).to_bytes(4, "big") + data


def mpint(number: int) -> bytes:
    """Return a number that is not negative as an `mpint` is written."""
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b"")


def join_strings(*strings: bytes) -> bytes:
    """Return the strings as fields, each after its length."""
    return b"".join(string(each) for each in strings)
