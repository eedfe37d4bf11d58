"""What somebody may have meant by a name that is unknown."""

import difflib
from collections.abc import Sequence


def closest(word: str, known: Sequence[str]) -> str | None:
    """Returns the known name that differs in case only, else the nearest; None without a near one.

    Args:
        word: what was written.
        known: the names there are.
    """
    same = [name for name in known if name.lower() == word.lower()]
    return next(iter(same or difflib.get_close_matches(word, known, n=1)), None)
