"""What a public data set is, and what of it is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedali.errors import SettingsError, did_you_mean

XYZ = ("x", "y", "z")

UCI = "CC BY 4.0"


@dataclass(frozen=True)
class PublicSet:
    """Facts of a data set that are known without its data.

    Args:
        name: in ``data.source``.
        title: for people.
        people: their names or numbers in the set.
        classes: their names there.
        channels: all that can be read, with their ``units``.
        rate: samples a second, of the windows.
        home: the page to get it from.
        archives: names that it may have in a folder, as downloaded or unpacked.
        default: the channels without a choice; all without.
        devices: kinds of devices or places on the body, whose windows are samples of their own.
        window: length and stride of windows that come cut.
        url: where it may be downloaded from; None where its owners have to be asked, or say nothing about it.
        most_bytes: of the download.
        sha256: of the download, where independent public projects agree on it.
    """

    name: str
    title: str
    people: tuple[str, ...]
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate: float
    licence: str
    citation: str
    home: str
    archives: tuple[str, ...]
    default: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    window: tuple[int, int] | None = None
    url: str | None = None
    most_bytes: int = 0
    sha256: str | None = None

    @property
    def usual(self) -> tuple[str, ...]:
        """The channels that are read without a choice."""
        return self.default or self.channels

    @property
    def get(self) -> str:
        """What to do without its data, as the end of an error."""
        return f"get {self.archives[0]} from {self.home}, and give its path: data.source = '{self.name}:PATH'"


@dataclass(frozen=True)
class Wanted:
    """What of a set is read; ``gap``: samples at its rate, a longer pause ends a stretch."""

    facts: PublicSet
    people: tuple[str, ...]
    channels: tuple[str, ...]
    devices: tuple[str, ...]
    by_device: bool
    gap: float

    @property
    def picked(self) -> list[int]:
        """Places of the wanted channels among all of the set."""
        return [self.facts.channels.index(name) for name in self.channels]

    def client(self, person: str, device: str = "") -> str:
        """The name of the client whose data these are."""
        return f"subject-{person}" + (f"-{device}" if device and self.by_device else "")


def wanted(
    facts: PublicSet,
    *,
    subjects: Sequence[int | str] | None = None,
    channels: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    by_device: bool = False,
    gap: float = 10.0,
) -> Wanted:
    """The choice of people, channels and devices, all without one, in the set's order but for channels.

    Raises ``SettingsError`` for what the set does not have.
    """
    if (devices is not None or by_device) and not facts.devices:
        setting = "data.clients" if by_device else "data.devices"
        raise SettingsError(f"{setting}: {facts.name} has no devices to choose from; leave it out")
    people = _chosen(facts, "data.subjects", subjects, facts.people)
    kept = _chosen(facts, "data.devices", devices, facts.devices)
    _chosen(facts, "data.columns.channels", channels, facts.channels)
    order = tuple(channels) if channels is not None else facts.usual
    if len(set(order)) < len(order):
        raise SettingsError(f"data.columns.channels names a channel twice: {', '.join(order)}")
    return Wanted(facts, people, order, kept, by_device, gap)


def _chosen(
    facts: PublicSet, setting: str, names: Sequence[int | str] | None, known: tuple[str, ...]
) -> tuple[str, ...]:
    if names is None:
        return known
    asked = [str(name) for name in names]
    if not asked:
        raise SettingsError(f"{setting} is empty; choose from {known[0]}..{known[-1]}")
    odd = next((name for name in asked if name not in known), None)
    if odd is not None:
        raise SettingsError(f"{setting}: {facts.name} has no {odd!r}; {did_you_mean(odd, known)}")
    return tuple(name for name in known if name in asked)


def axes(*sensors: str) -> tuple[str, ...]:
    """Channels of sensors of three axes.

    >>> axes("acc", "gyr")
    ('acc_x', 'acc_y', 'acc_z', 'gyr_x', 'gyr_y', 'gyr_z')
    """
    return tuple(f"{sensor}_{axis}" for sensor in sensors for axis in XYZ)


def numbers(first: int, last: int) -> tuple[str, ...]:
    """People who are numbers.

    >>> numbers(1, 3)
    ('1', '2', '3')
    """
    return tuple(map(str, range(first, last + 1)))
