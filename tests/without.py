"""A program where some modules are not installed: ``python -m tests.without MODULE,MODULE PROGRAM WORDS``."""

from __future__ import annotations

import runpy
import sys


class Without:
    """Finds nothing of some packages."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, Without(sys.argv[1].split(",")))
    program, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_module(program, run_name="__main__", alter_sys=True)
