"""Text on its way to people: nothing said is lost for want of a letter, and nobody's name steers a terminal.

Numpy alone is enough to import this; the console of tables and bars is ``fedali_server.console``.
"""

from __future__ import annotations

import codecs
import io
import re
import sys

_SPELLED = {
    "±": "+-",
    "–": "-",
    "—": "-",
    "…": "...",
    "·": "-",
    "×": "x",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def spell(text: str) -> str:
    r"""``text`` in ASCII: signs by what stands for them, any other letter as Python would escape it.

    >>> spell("86.2 ± 0.4 – Zoë")
    '86.2 +- 0.4 - Zo\\xeb'
    """
    known = "".join(_SPELLED.get(letter, letter) for letter in text)
    return known.encode("ascii", "backslashreplace").decode("ascii")


def printable(text: str) -> str:
    r"""``text`` without the characters that move a cursor, change colours or turn the direction of writing.

    Line breaks and tabs stay; the others are escaped.

    >>> printable("evil\x1b[2J\n")
    'evil\\x1b[2J\n'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def survive() -> None:
    """Standard output and error take any text from now on, whatever their encoding: see ``spell``."""
    codecs.register_error(__name__, _spell_error)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=__name__)


def _spell_error(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return spell(error.object[error.start : error.end]), error.end
