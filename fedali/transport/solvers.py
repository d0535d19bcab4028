"""What solvers of optimal transport are called."""

from typing import Literal

Solver = Literal["auto", "assignment", "exact", "entropic", "unbalanced"]
