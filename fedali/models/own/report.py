"""What was found of somebody's network, and what was done to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """What was found of a network, and what was done to it; as text, a line each.

    Args:
        name: of the network.
        parameters: numbers that it has.
        trained: numbers that train and travel.
        head: path of the head, and what it is.
        embedding: d, and where it comes from.
        alp: places of ALP layers.
        changes: what was replaced, and why.
        remarks: what to know: parameters without effect, engines that cannot run it.
    """

    name: str
    parameters: int
    trained: int
    head: str
    embedding: str
    alp: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        train = "all train" if self.trained == self.parameters else f"{self.trained:,} train and travel"
        lines = [
            f"{self.name}: {self.parameters:,} parameters, {train}",
            f"  head       {self.head}",
            f"  embedding  {self.embedding}",
            *(f"  ALP        {place}" for place in self.alp),
            *(f"  changed    {change}" for change in self.changes),
            *(f"  note       {remark}" for remark in self.remarks),
        ]
        return "\n".join(lines)
