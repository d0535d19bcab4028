"""Print what the edge client needs, for pip: ``python -m tests.device.requirements``."""

from __future__ import annotations

from pathlib import Path

import tomllib


def client_requirements() -> list[str]:
    """Of the extra ``client`` and of the package itself."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["client"]]


if __name__ == "__main__":
    print(*client_requirements(), sep="\n")
