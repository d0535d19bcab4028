"""What samples are, without any: a federation starts from a schema where its data must not be.

A schema is a TOML file, written by hand or by ``fedali schema DATA > schema.toml``; it holds no sample and no statistic.

>>> gait = Schema("gait", (128, 3), ("stand", "walk"), ("x", "y", "z"), units=("g", "g", "g"), rate=50.0)
>>> gait.window
128
>>> parse_schema(gait.to_toml(), "gait.toml") == gait
True
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedali.data.look.times import times_of
from fedali.data.normalisation import channel_axis
from fedali.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from fedali.data.dataset import Dataset

LARGEST_SCHEMA = 1 << 20  # bytes

_KEYS = ("name", "shape", "classes", "channels", "units", "rate", "window", "dtype")
_DTYPES = ("float32", "int64")
_NEEDED = ("shape", "classes")
_LARGEST = 1 << 24  # numbers of a sample
_LINE = 110  # characters, of a list in the file


@dataclass(frozen=True)
class Schema:
    """Samples and classes of a federation.

    Args:
        name: for people.
        shape: of one sample: [features], [time, channels] or [channels, height, width].
        classes: their names, at least two; a label is one of them, or its place from 0 on.
        channels: their names, one for each channel or feature; made of numbers without.
        units: of the channels, one for each, "" for none; empty where they are not known.
        rate: raw samples a second; None where there is no such thing, or it is not known.
        dtype: ``float32``, of measurements; ``int64``, of ids of tokens.

    Raises ``SettingsError`` for what makes no sense.
    """

    name: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    rate: float | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _line("name", self.name)
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1 or math.prod(self.shape) > _LARGEST:
            raise SettingsError(
                f"shape is {list(self.shape)}; a sample is [features], [time, channels] or [channels, height, width]"
            )
        if self.dtype not in _DTYPES:
            raise SettingsError(f"dtype is {self.dtype!r}; measurements are 'float32', ids of tokens 'int64'")
        if self.dtype != "float32" and len(self.shape) != 1:
            raise SettingsError(f"shape is {list(self.shape)}; a text of token ids is [tokens]")
        if len(self.classes) < 2:
            raise SettingsError(f"classes has {len(self.classes)} names; there have to be at least two")
        count = self.shape[channel_axis(len(self.shape))]
        if not self.channels:
            object.__setattr__(self, "channels", tuple(f"channel-{k + 1}" for k in range(count)))
        for key, names in (("classes", self.classes), ("channels", self.channels)):
            twice = [name for place, name in enumerate(names) if name in names[:place]]
            if twice:
                raise SettingsError(f"{key} has {twice[0]!r} twice; make the names unique")
            for name in names:
                _line(key, name)
        for key, names in (("channels", self.channels), ("units", self.units)):
            if len(names) != count and (names or key == "channels"):
                raise SettingsError(
                    f"{key} has {len(names)} names, and a sample of shape {list(self.shape)} has {count} channels"
                )
        for unit in self.units:
            _line("units", unit, empty=True)
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise SettingsError(f"rate is {self.rate}; it has to be raw samples a second, above 0")

    @property
    def window(self) -> int | None:
        """Raw samples in a window [time, channels]; None of other samples."""
        return self.shape[0] if len(self.shape) == 2 else None

    @classmethod
    def of(cls, dataset: Dataset, *, rate: float | None = None) -> Schema:
        """That of a data set; the ``rate`` by its times, where none is given and they are dates that all recordings agree on."""
        if rate is None:
            times = times_of([file.clock for file in dataset.files if file.clock is not None])
            rate = times.certain_rate if times is not None else None
        dtype = "int64" if dataset.tokens else "float32"
        names = dataset.class_names, () if dataset.tokens else dataset.channel_names
        return cls(dataset.name, dataset.sample_shape, *names, rate=rate, dtype=dtype)

    def to_toml(self) -> str:
        """The schema as commented TOML, which ``parse_schema`` reads back."""
        lines = [
            "# What samples are: a federation starts from this file, and needs no data where it is started.",
            f"name = {_text(self.name)}",
            "",
            "# Of one sample: [features], [time, channels] or [channels, height, width].",
            f"shape = {list(self.shape)}",
        ]
        if self.window is not None:
            lines += ["# Raw samples in a window.", f"window = {self.window}"]
        lines += [
            "# Names of classes: a label in a data file is one of them, or its place from 0 on.",
            *_numbered(self.classes),
            f"classes = {_list(self.classes)}",
        ]
        if self.dtype != "float32":
            return "\n".join([*lines, "# Ids of tokens.", f"dtype = {_text(self.dtype)}"]) + "\n"
        lines += [
            "",
            "# Names of channels (of features, where a sample is a vector), in the order of the data.",
            f"channels = {_list(self.channels)}",
            "# Units, one for each channel.",
            f"units = {_list(self.units)}" if self.units else "# units =",
            "# Raw samples a second.",
            "# rate =" if self.rate is None else f"rate = {self.rate!r}",
        ]
        return "\n".join(lines) + "\n"


def read_schema(path: Path | str) -> Schema:
    """The schema in a TOML file. Raises ``SettingsError`` that says what is wrong with it, and where."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_SCHEMA + 1)
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise SettingsError(
            f"there is no schema {path}; make one: fedali schema my_data.csv > {path}"
        ) from None
    except OSError as error:
        raise SettingsError(f"cannot read the schema {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the schema {path} is not UTF-8 text") from None
    if len(data) > LARGEST_SCHEMA:
        raise SettingsError(f"the schema {path} has more than {LARGEST_SCHEMA} bytes: is it a schema?")
    return parse_schema(text, str(path))


def parse_schema(text: str, where: str) -> Schema:
    """The schema that ``text`` is; errors are as those of ``read_schema``, and say ``where``."""
    import tomllib  # Python 3.11; devices, which have older ones, read no schema

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where}: not valid TOML: {error}") from None
    for key in found:
        if key not in _KEYS:
            raise SettingsError(f"{where}: unknown key {key!r}; {did_you_mean(key, _KEYS)}")
    for key in _NEEDED:
        if key not in found:
            raise SettingsError(f"{where}: {key} is missing; fedali schema my_data.csv prints an example")
    try:
        schema = Schema(
            name=_typed(found, "name", str, Path(where).stem),
            shape=_all(found, "shape", int),
            classes=_all(found, "classes", str),
            channels=_all(found, "channels", str),
            units=_all(found, "units", str),
            dtype=_typed(found, "dtype", str, "float32"),
            rate=None if "rate" not in found else float(_typed(found, "rate", (int, float), 0.0)),
        )
        if "window" in found and found["window"] != schema.window:
            known = "no windows" if schema.window is None else f"windows of {schema.window}"
            raise SettingsError(
                f"window is {found['window']!r}; samples of shape {list(schema.shape)} are {known}"
            )
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None
    return schema


def _typed(found: Mapping[str, Any], key: str, kind: type | tuple[type, ...], default: Any) -> Any:
    value = found.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        word = "text" if kind is str else "a number"
        raise SettingsError(f"{key} is {value!r}; it has to be {word}")
    return value


def _all(found: Mapping[str, Any], key: str, kind: type) -> tuple[Any, ...]:
    value = found.get(key, [])
    words = "whole numbers" if kind is int else "names in quotes"
    if not isinstance(value, list) or any(type(one) is not kind for one in value):
        raise SettingsError(f"{key} is {value!r}; it has to be a list of {words}")
    return tuple(value)


def _line(key: str, text: str, *, empty: bool = False) -> None:
    if not (text or empty) or not all(letter.isprintable() for letter in text):
        raise SettingsError(f"{key} has {text!r}; it has to be one line of text")


def _text(text: str) -> str:
    """As a TOML string: of what is printable, JSON's are."""
    return json.dumps(text, ensure_ascii=False)


def _numbered(classes: Sequence[str]) -> list[str]:
    """A warning where names are numbers, and others than their places."""
    if any(name.isdecimal() and name != str(place) for place, name in enumerate(classes)):
        return [
            "# These are numbers: a device takes the label 1 for the second of them, and '1' (text) for the one of that name."
        ]
    return []


def _list(names: Sequence[str]) -> str:
    """As a TOML list, on several lines where it is long."""
    items = [_text(name) for name in names]
    short = f"[{', '.join(items)}]"
    return short if len(short) <= _LINE else "\n".join(["[", *(f"    {item}," for item in items), "]"])
