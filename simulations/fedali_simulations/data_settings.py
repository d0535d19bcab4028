"""Settings of a scenario's data: where they come from, how they are read."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fedali.data.sources.named import STRIDE, WINDOW
from fedali.data.sources.reading import GAP


class Settings(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def as_list(value: Any) -> Any:
    """One value as a list of one."""
    return (value,) if isinstance(value, int | float | str) else value


class ColumnSettings(Settings):
    """Names of a CSV's columns, where they are called otherwise."""

    client: str | None = None
    label: str | None = None
    recording: str | None = None
    time: str | None = None
    channels: tuple[str, ...] | None = None
    """The channels, in this order; other columns are left out. Without: every column that may be one."""
    target: Annotated[tuple[str, ...], BeforeValidator(as_list)] | None = None
    """Columns of a task's targets, of a task of numbers or of several labels for each sample; there is no label then."""


with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", UserWarning
    )  # pydantic has a method of that name still, deprecated long since

    class DataSettings(Settings):
        """Where samples come from, or what they are: one of ``source`` and ``schema``."""

        source: str | None = None
        """``digits``, a public data set (``motionsense``, ``uci-har``, ``hapt``, ``wisdm-2011``, ``wisdm-2019``, ``pamap2``, ``hhar``,
        ``realworld``, ``opportunity``, ``opportunity-gestures``; ``NAME:PATH`` says where it lies), or the path of your own data: .npz,
        .csv or a folder with a file per client; or a function of yours, ``my_file:load``, that returns arrays, torch data sets or others."""
        options: dict[str, Any] = Field(default_factory=dict)
        """What a function of yours is called with, such as { folder = "recordings" }."""
        schema: str | None = None  # type: ignore[assignment]
        """Instead of a source: a file of `fedali schema`, for `fedali run` without any data where it is started."""
        window: int = Field(default=WINDOW, ge=1)
        """Samples in a window, of data that are cut here: own CSV data, and public data sets that come raw."""
        stride: int = Field(default=STRIDE, ge=1)
        """Samples between the starts of windows, of the same data."""
        columns: ColumnSettings | None = None
        """Own CSV data: columns by what they are, such as { client = "user", label = "activity", recording = "trial",
        time = "seconds", channels = ["x", "y", "z"] }; what is not given has the name of its role. Public data sets: channels alone."""
        gap: float = Field(default=GAP, gt=1)
        """Own CSV data with times: no window crosses a pause of more than so many median intervals of its recording; public data sets
        with times: of more than so many samples at the set's rate."""
        unlabelled: Annotated[tuple[int | float | str, ...], BeforeValidator(as_list)] | None = None
        """Own data: labels that say that there is none, such as [-1, "?", ""]; what has one is left out. Without, what may be one is
        refused; [] says that every label is a class."""
        missing: Annotated[tuple[int | float | str, ...], BeforeValidator(as_list)] | None = None
        """Own data: what stands for a missing value, such as [-999, "NA", ""]; windows that hold one are left out. Without, what may be
        one is refused; [] says that every number was measured."""
        header: tuple[str, ...] | None = None
        """Own CSV data whose first line has no names: the names of all columns, in their order, such as ["client", "label", "x", "y"]."""
        quote: str | None = Field(default=None, min_length=1, max_length=1)
        """Own CSV data: around cells; without, " or ' by the header."""
        escape: str | None = Field(default=None, min_length=1, max_length=1)
        """Own CSV data: before a quote or separator that belongs to a cell, where quotes are not doubled."""
        separator: str | None = Field(default=None, min_length=1, max_length=1)
        """Own CSV data: between columns; without, comma, semicolon, tab or | by the header."""
        decimal: Literal[".", ","] | None = None
        """Own CSV data: before decimals; without, a comma where that is certain."""
        encoding: str | None = None
        """Own CSV data without a byte order mark, such as "cp1252"; UTF-8 without."""
        time_format: str | None = None
        """Own CSV data: how dates are written, such as "%d/%m/%Y %H:%M:%S.%f"; numbers and ISO 8601 without."""
        layout: Literal["hwc", "chw", "hw", "tc", "ct"] | None = None
        """Own .npz data: axes of a sample, of images (height, width, channels; hw: grey ones) or of windows (time, channels). Without, chw
        and tc, or what is certain; what is not is refused."""
        subjects: Annotated[tuple[int | str, ...], BeforeValidator(as_list)] | None = None
        """Public data sets: the people to keep, by their numbers or letters there; all without."""
        devices: Annotated[tuple[str, ...], BeforeValidator(as_list)] | None = None
        """HHAR, RealWorld, WISDM 2019: kinds of devices, or places on the body, to keep; all without."""
        clients: Literal["people", "devices"] = "people"
        """HHAR, RealWorld, WISDM 2019: ``devices``: each person with each device is a client."""
        windows_per_client: int | None = Field(default=None, ge=1)
        """Public data sets: a seeded random choice of this many windows of each client."""

        @model_validator(mode="after")
        def _one(self) -> DataSettings:
            if (self.source is None) == (self.schema is None):
                have = "neither" if self.source is None else "both"
                raise ValueError(
                    f"source names data that are here, schema a file that tells of data elsewhere; there is {have}: give one"
                )
            return self
