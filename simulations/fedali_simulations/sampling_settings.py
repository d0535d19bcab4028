"""Settings of who trains in a round, and of rounds that wait for nobody."""

from __future__ import annotations

from pydantic import Field, model_validator

from fedali.cohort.buffered.fits import why_not
from fedali.cohort.sampling.settings import DAY_NIGHT, Kind, Sampling
from fedali.methods import Method
from fedali_simulations.data_settings import Settings


class SamplingSettings(Settings):
    """Who trains in a round, of whom ``training.participation`` says how many; see docs/sampling.md."""

    kind: Kind = "uniform"
    """``uniform``; ``size``: by their number of training samples; ``loss``: the highest last known loss of some candidates;
    ``availability``: uniform over those who are on."""
    candidates: int = Field(default=0, ge=0)
    """``loss`` only: how many are drawn by size, of whom those with the highest loss train; 0: twice as many as train."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a client that was chosen never reports: it does not train."""
    availability: str | None = None
    """Who is on when, for any kind: ``day-night``, or a CSV with the columns client,from_round,to_round (or from_hour,to_hour)."""
    round_hours: float = Field(default=1.0, gt=0)
    """How long a round lasts, for what is told in hours."""
    night_share: float = Field(default=0.9, ge=0, le=1)
    """``day-night``: probability that a client is on in a round of its night, eight hours from about 22 h."""
    day_share: float = Field(default=0.1, ge=0, le=1)
    """The same by day."""
    zones: int = Field(default=1, ge=1)
    """``day-night``: time zones of the clients, evenly over the day."""

    @model_validator(mode="after")
    def _fits(self) -> SamplingSettings:
        if self.candidates and self.kind != "loss":
            raise ValueError(f"candidates are of kind 'loss', not {self.kind!r}: leave them away")
        return self

    def build(self) -> Sampling:
        """What a sampler takes."""
        return Sampling(**{**self.model_dump(), "availability": self.availability or ""})

    @property
    def may_be_nobody(self) -> bool:
        """Whether a round may have no client."""
        return bool(self.dropout or self.build().who_is_on)

    @property
    def trace(self) -> str | None:
        """The path of a file that says who is on; None without."""
        return None if self.availability in (None, "", DAY_NIGHT) else self.availability


class BufferedSettings(Settings):
    """Rounds of ``training.mode = "buffered"``: steps of FedBuff's server; see docs/sampling.md."""

    size: int = Field(default=10, ge=1)
    """K: so many reports make a step."""
    concurrency: int = Field(default=0, ge=0)
    """Clients that train at any time; 0: ``training.participation`` of them."""
    spread: float = Field(default=1.0, ge=0)
    """Standard deviation of the logarithm of clients' speeds; 0: all need the same time for a sample."""
    server_rate: float = Field(default=1.0, gt=0)
    """What a step of the server is multiplied with."""


def check_buffered(method: Method, title: str, sampling: SamplingSettings, sites: int) -> None:
    """Raise ``ValueError`` for what ``training.mode = "buffered"`` cannot do."""
    mode = "training.mode = 'buffered'"
    if why := why_not(method):
        raise ValueError(f"{title} does not go with {mode}: {why}. Leave it out of methods")
    if sampling.kind in ("size", "loss"):
        raise ValueError(
            f"sampling.kind = {sampling.kind!r} does not go with {mode}: whoever is free is drawn uniformly. "
            "Take uniform or availability"
        )
    if sites > 1:
        raise ValueError(f"{mode} has one clock for all clients: set sites = 1, not {sites}")
