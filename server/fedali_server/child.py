"""``python -m fedali_server.child MODULE WORD...``: a module as a child of a supervisor, which ends when the supervisor does.

However the supervisor ends, by SIGKILL too, the pipe from it closes.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

_PATIENCE = 15.0  # seconds for an end in good order


def main() -> None:
    """Run the module that the command line names."""
    module, *words = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, which then sends SIGTERM
    threading.Thread(target=_end_with_parent, daemon=True, name="parent").start()
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_PATIENCE)
    os._exit(1)


if __name__ == "__main__":
    main()
