"""The console that commands print tables, bars and lines to: text is text there, never markup."""

from __future__ import annotations

from typing import Any

from rich.console import Console as RichConsole
from rich.text import Text

from fedali.support.terminal import printable, spell

_BARS = 60  # columns


class Console(RichConsole):
    """Rich's console where ``[...]`` in a label or path stays what it is, and where letters that the output cannot hold are
    spelled (``fedali.support.terminal``) before anything is laid out.

    Args:
        stderr: print there.
        quiet: print nothing.
        given: as ``rich.console.Console`` takes them.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False, **given: Any) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False, **given)

    @property
    def live(self) -> bool:
        """Whether bars can be drawn: a terminal that moves its cursor, and is wide enough."""
        return self.is_terminal and not self.is_dumb_terminal and not self.quiet and self.width >= _BARS

    def text(self, text: str) -> str:
        """``text`` as this console shows it."""
        shown = printable(text)
        return shown if self.encoding.lower().startswith("utf") else spell(shown)

    def say(self, text: str) -> None:
        """Print a line that is not wrapped, so that a path in it can be copied."""
        self.print(text, soft_wrap=True)

    def render_str(self, text: str, **given: Any) -> Text:
        """Rich's, of the text as this console shows it."""
        return super().render_str(self.text(text), **given)
