"""``python -m fedali`` is the command ``fedali``."""

from fedali.cli import main

main()
