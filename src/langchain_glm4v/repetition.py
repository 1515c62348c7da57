"""A guard against outputs that repeat themselves endlessly, for servers that have none."""

_CHECK_EVERY = 400  # characters
_PROBE = 24  # characters whose earlier place tells the length of the pattern
_LONGEST_PATTERN = 400  # characters
_LEAST_COUNT = 40  # repetitions
_LEAST_LENGTH = 640  # characters of nothing new


class RepetitionGuard:
    """Watches the text of one stream.

    A pattern of up to 400 characters that stands 40 times in a row is no text that anybody wants;
    ruled lines and empty tables stay below that.
    """

    def __init__(self) -> None:
        self._tail = ""
        self._unchecked = 0

    def repeats(self, chunk: str) -> bool:
        """Take the next chunk in; returns whether the text repeats itself endlessly by now."""
        self._tail = (self._tail + chunk)[-_LONGEST_PATTERN * _LEAST_COUNT :]
        self._unchecked += len(chunk)
        if self._unchecked < _CHECK_EVERY:
            return False
        self._unchecked = 0
        return is_periodic(self._tail)


def is_periodic(text: str) -> bool:
    """Whether `text` ends in one pattern, again and again."""
    before = text.rfind(text[-_PROBE:], 0, len(text) - 1)
    period = len(text) - _PROBE - before
    length = max(_LEAST_LENGTH, period * _LEAST_COUNT)
    if before < 0 or period > _LONGEST_PATTERN or len(text) < length:
        return False
    end = text[-length:]
    return end[period:] == end[:-period]
