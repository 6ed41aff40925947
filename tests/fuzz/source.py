"""Numbers and pieces out of the bytes that a fuzzer makes."""


class Source:
    """Takes an input apart from its beginning; when it is used up, numbers are 0 and pieces are empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def byte(self) -> int:
        byte, self._data = self._data[:1], self._data[1:]
        return byte[0] if byte else 0

    def piece(self) -> bytes:
        """Takes at most 255 bytes: the first says how many."""
        return self.take(self.byte())

    def take(self, size: int) -> bytes:
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def cuts(self) -> list[int]:
        """Takes three bytes: offsets to split at, close to each other and far away."""
        a, b, c = self.byte(), self.byte(), self.byte()
        return [a, a + b, 37 * c]
