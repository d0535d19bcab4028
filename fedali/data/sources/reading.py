"""How a user's own files are read, where the files alone do not say it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedali.errors import SettingsError, did_you_mean
from fedali.targets import Kind

ROLES = ("client", "label", "recording", "time")
"""Columns of a CSV that are no channels, by what they are for."""

GAP = 10.0
"""Median intervals of a recording: no window crosses a longer pause. Jitter and a few lost samples stay below it."""

SEPARATORS = (",", ";", "\t", "|")
"""Of a CSV's columns, those that are looked for."""

LAYOUTS = ("hwc", "chw", "hw", "tc", "ct")
"""Axes of a sample in a ``.npz``, in their order: height, width and channels of images (``hw``: grey ones), time and channels of windows."""


@dataclass(frozen=True)
class Columns:
    """Names of a CSV's columns, where they are not called ``client``, ``label``, ``recording`` and ``time``.

    With ``channels`` these columns are the channels, in this order, and what is named nowhere is left out; without, every
    other column is one that may be one. ``target`` are columns of a task's targets, of tasks without classes: there is no ``label`` then.
    """

    client: str | None = None
    label: str | None = None
    recording: str | None = None
    time: str | None = None
    channels: tuple[str, ...] | None = None
    target: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """A scenario's settings for own data, ``data.*``, by the same names; the defaults read what is certain.

    Args:
        columns: names of a CSV's columns.
        gap: of times: no window crosses a pause of more than so many median intervals of its recording.
        unlabelled: labels that say that there is none, as text; None when nobody has said so, and what may be one is refused.
        missing: what stands for a missing value, words in any case or numbers, as text; windows that hold one are left out. None as above.
        header: names of all columns, in their order, of a CSV whose first line has none; None where it has them.
        quote: around cells; None for ``"`` or ``'``, by the header.
        escape: before a quote or separator that is none; None where such quotes are doubled.
        separator: between columns; None for one of ``SEPARATORS``, by the header.
        decimal: ``","`` or ``"."``; None for a comma where that is certain.
        encoding: of a CSV without a byte order mark; None for UTF-8.
        time_format: of dates, as ``datetime.strptime`` takes it; None for numbers and ISO 8601.
        layout: axes of a ``.npz``'s samples, one of ``LAYOUTS``; None for ``chw`` and ``tc``, or what is certain.
        targets: what the task learns; no setting, the task says it.

    >>> Reading(columns=Columns(client="user", label="activity"), unlabelled=("-1", "")).gap
    10.0
    """

    columns: Columns = field(default_factory=Columns)
    gap: float = GAP
    unlabelled: tuple[str, ...] | None = None
    missing: tuple[str, ...] | None = None
    header: tuple[str, ...] | None = None
    quote: str | None = None
    escape: str | None = None
    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    time_format: str | None = None
    layout: str | None = None
    targets: Kind = "classes"

    def __post_init__(self) -> None:
        if not self.gap > 1:
            raise SettingsError(f"data.gap is {self.gap}; it has to be more than 1 median interval")
        for name in ("quote", "escape", "separator"):
            value = getattr(self, name)
            if value is not None and (len(value) != 1 or value in "\r\n"):
                raise SettingsError(f"data.{name} is {value!r}; it has to be one character")
        form = self.time_format or ""
        if ("%p" in form) != ("%I" in form):
            raise SettingsError(
                f"data.time_format is {form!r}; %p (AM or PM) and %I (hours to 12) need each other, %H are hours to 23"
            )
        if self.decimal not in (None, ",", "."):
            raise SettingsError(f"data.decimal is {self.decimal!r}; it is , or .")
        if self.layout is not None and self.layout not in LAYOUTS:
            raise SettingsError(f"data.layout is {self.layout!r}; {did_you_mean(self.layout, LAYOUTS)}")


PLAIN = Reading()
"""What is certain, and nothing else."""


@dataclass(frozen=True)
class ForModel:
    """What a file is read for where there is a model already, on a device or at a site.

    Args:
        may_lack: roles whose columns or arrays may be missing, also those that ``Columns`` has a name for; without ``label``, samples that
            have none are kept.
        owners: whether there may be a column or an array ``client`` where the file is one client's.
        channels: whether ``Columns.channels`` are the model's, and not named by whoever reads.
        shape: of a sample; None where the axes are as the layout says.
    """

    may_lack: frozenset[str] = frozenset()
    owners: bool = False
    channels: bool = False
    shape: tuple[int, ...] | None = None


ITSELF = ForModel()
"""A file that a model is made for."""
