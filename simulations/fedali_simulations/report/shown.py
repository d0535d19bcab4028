"""Results as text and for a notebook: what the commands print."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from fedali_server.console import Console

if TYPE_CHECKING:
    from fedali_simulations.report.results import Results

_WIDTH = 110
_PAGE = '<pre style="line-height: normal; overflow-x: auto">{code}</pre>'


def to_text(results: Results) -> str:
    """The table and what it means, without colours."""
    from fedali_simulations.report.console import print_results

    console = Console(file=StringIO(), width=_WIDTH, no_color=True, force_terminal=False)
    print_results(results, console)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined, no-any-return]


def to_html(results: Results) -> str:
    """The same as HTML, in which names are text, whatever is in them."""
    from fedali_simulations.report.console import print_results

    console = Console(file=StringIO(), width=_WIDTH, record=True, force_terminal=True)
    print_results(results, console)
    return console.export_html(inline_styles=True, code_format=_PAGE)
