"""Scenarios: typed settings of a study, read from TOML, checked where they enter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomllib
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from fedali.errors import SettingsError, did_you_mean
from fedali.methods import Method, build_method
from fedali.models import MODEL_NAMES
from fedali.slots import epochs_of
from fedali.support.doors import entry_names
from fedali.support.held import is_held
from fedali_simulations.baselines import BASELINES
from fedali_simulations.data_settings import DataSettings as DataSettings
from fedali_simulations.data_settings import Settings
from fedali_simulations.names_before import WRITTEN_BY, as_called_now, is_stored
from fedali_simulations.sampling_settings import BufferedSettings as BufferedSettings
from fedali_simulations.sampling_settings import SamplingSettings as SamplingSettings
from fedali_simulations.sampling_settings import check_buffered
from fedali_simulations.task_settings import TaskSettings, as_task
from fedali_simulations.training_settings import LINES_OWN as LINES_OWN
from fedali_simulations.training_settings import TrainingSettings as TrainingSettings

SUFFIX = ".toml"


class PartitionSettings(Settings):
    """Which client holds which samples."""

    kind: Literal["natural", "dirichlet", "shards"] = "natural"
    """``natural``: as the data says; ``dirichlet``: label skew; ``shards``: a few classes each."""
    clients: int = Field(default=20, ge=2)
    """Number of clients; not for natural."""
    alpha: float = Field(default=0.5, gt=0)
    """Dirichlet concentration: small is skewed."""
    shards_per_client: int = Field(default=2, ge=1)
    """Pathological split: shards, that is nearly classes, of each client."""
    minimum: int = Field(default=20, ge=3)
    """Dirichlet: fewest samples of a client."""


class ShiftSettings(Settings):
    """A domain shift of each client's own: rotation, gain, blur and noise."""

    kind: Literal["images", "windows"] | None = None
    """What the samples are; none without."""
    severity: float = Field(default=0.5, ge=0, le=1)
    """0 is no shift, 1 a strong one."""


class SplitSettings(Settings):
    """Shares of each client's samples, stratified by class."""

    train: float = Field(default=0.56, gt=0, lt=1)
    validation: float = Field(default=0.14, ge=0, lt=1)
    test: float = Field(default=0.30, gt=0, lt=1)
    order: Literal["time", "recording", "random"] = "time"
    """``time``: train on earlier recordings, test on later ones; ``recording``: on the beginning and the end of each
    recording; windows that overlap across a border are dropped. ``random``: for samples that do not overlap."""
    normalise: Literal["global", "client", "none"] = "global"
    """Statistics of training data: of all clients together, of each client's own, or none."""

    @model_validator(mode="after")
    def _sum(self) -> SplitSettings:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError(
                f"train, validation and test add up to {self.train + self.validation + self.test:g}, not 1"
            )
        return self


class ModelSettings(Settings):
    """The model of every client."""

    name: str = "cnn1d"
    """One of the registry: mlp, cnn1d, cnn2d, hart; an entry point's; or ``module:Name``, any network of one's own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The model's own options, such as ``channels`` or ``hidden``."""
    adapt: dict[str, Any] = Field(default_factory=dict)
    """How a network of one's own becomes a model, see ``fedali.adapt``: head, embedding, alp_at, trainable, batchnorm, adapters; of the
    registry's ``trainable`` alone."""

    @model_validator(mode="after")
    def _known(self) -> ModelSettings:
        if self.name not in MODEL_NAMES and ":" not in self.name and not is_held(self.name):
            known = [*MODEL_NAMES, *entry_names("fedali.models")]
            if self.name not in known:
                raise ValueError(f"unknown model {self.name!r}; {did_you_mean(self.name, known)}")
        return self


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, int) else value


class ALPOptions(Settings):
    """The ALP layers, for methods that use prototypes; see ``fedali.alp``."""

    num_prototypes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_tuple)] = (64,)
    """K: one number for all layers, or one for each."""
    matcher: Literal["ot", "cosine", "euclidean"] = "ot"
    gated: bool = True
    update: Literal["bulk", "single"] = "bulk"
    duplicates: Literal["mean", "last"] = "mean"
    topk_from: Literal["batch", "tokens"] = "batch"
    decay: float = Field(default=0.999, ge=0, le=1)
    temperature: float = Field(default=0.05, ge=0.005)
    iterations: int = Field(default=3, ge=1)
    scale: float = Field(default=1.0, gt=0)
    """Length of an aligned embedding; published: 1."""


class EvaluationSettings(Settings):
    """What is measured."""

    on: Literal["test", "validation"] = "test"
    """``validation``: for choosing settings. Tests are on validation data, no test sample is read, and a share of the training data
    validates in their place."""
    generalisation_every: int = Field(default=1, ge=1)
    """Rounds between evaluations of every client's model on everyone's data, and of the server's model."""
    generalisation_clients: int = Field(default=0, ge=0)
    """How many of a round's participants, drawn by the seed, are tested on everyone's data; 0: all."""
    transductive: bool = True
    """Report the published inference too, whose matches depend on the batch."""
    calibration: bool = True
    """Measure the calibration error of what is tested, in the rounds when everyone's data are; it runs models once more, on the CPU."""
    unseen_clients: int = Field(default=0, ge=0)
    """Whole clients held out of training, adapted and tested at the end."""
    unseen_samples: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_as_tuple)] = ()
    """With how many labelled samples such a client is adapted, besides all: [5, 20, 50]; one of each class in turn. 0: without a label."""

    @model_validator(mode="after")
    def _held_out(self) -> EvaluationSettings:
        if self.unseen_samples and not self.unseen_clients:
            raise ValueError(
                "unseen_samples are of clients held out, and there is none: set unseen_clients too"
            )
        return self


class MethodSettings(Settings):
    """One line of the table."""

    name: str
    """One of the registry or a preset; or, to compare with, pooled, forest or forest-pooled."""
    label: str = ""
    """What the table calls it; its name without."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The method's own options."""
    alp: dict[str, Any] = Field(default_factory=dict)
    """Settings of the ALP layers for this line alone."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Settings of local training for this line alone: epochs, optimizer, learning_rate, schedule, weight_decay, patience, ..."""

    @model_validator(mode="after")
    def _known(self) -> MethodSettings:
        if self.is_baseline:
            if self.options:
                raise ValueError(
                    f"{self.name} has no options, not {', '.join(self.options)} either: leave them away"
                )
            return self
        try:
            self.build()
        except SettingsError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def title(self) -> str:
        """What the table and the run folder call it."""
        return self.label or self.name

    @property
    def is_baseline(self) -> bool:
        """Whether it is no federated method: see ``fedali_simulations.baselines``."""
        return self.name in BASELINES

    def build(self) -> Method:
        """The method. Raises ``SettingsError`` for a baseline."""
        if self.is_baseline:
            raise SettingsError(
                f"{self.title} is no federated method, but something to compare with: fedali simulate and fedali compare alone know it"
            )
        return build_method(self.name, self.options)


def _as_method(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_methods(value: Any) -> Any:
    return (value,) if isinstance(value, str | Mapping) else value


class Scenario(Settings):
    """A study: data, clients, model, training, and the methods to compare on the same splits and budget."""

    name: str = "own"
    description: str = ""
    methods: Annotated[
        tuple[Annotated[MethodSettings, BeforeValidator(_as_method)], ...], BeforeValidator(_as_methods)
    ] = Field(default=(MethodSettings(name="fedali"),), min_length=1)
    seed: int = Field(default=0, ge=0)
    """The first seed."""
    seeds: int = Field(default=1, ge=1)
    """How many seeds: seed, seed + 1, ..."""
    sites: int = Field(default=1, ge=1)
    """Flower nodes the clients are spread over."""
    data: DataSettings
    task: Annotated[TaskSettings, BeforeValidator(as_task)] = TaskSettings()
    partition: PartitionSettings = PartitionSettings()
    shift: ShiftSettings = ShiftSettings()
    split: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    alp: ALPOptions = ALPOptions()
    training: TrainingSettings = TrainingSettings()
    sampling: SamplingSettings = SamplingSettings()
    buffered: BufferedSettings = BufferedSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _lines(self) -> Scenario:
        titles = [method.title for method in self.methods]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two methods are called {title!r}; give one a label")
        for method in self.methods:
            for where, own, known in (
                ("alp", method.alp, ALPOptions.model_fields),
                ("training", method.training, LINES_OWN),
            ):
                for key in own:
                    if key not in known:
                        hint = did_you_mean(key, known)
                        raise ValueError(f"methods.{method.title}.{where}.{key}: unknown setting; {hint}")
            training = self.training_for(method)
            if training.patience and not self.split.validation:
                raise ValueError(
                    "training.patience looks at validation data, and there are none: set split.validation, or patience = 0"
                )
            try:
                if method.name.startswith("forest"):
                    self.task.build().need_classes(method.name)
                if method.is_baseline:
                    continue
                made = method.build().for_task(self.task.build())
            except SettingsError as error:
                raise ValueError(str(error)) from error
            try:
                epochs_of(made.phases, training.epochs + made.extra_epochs)
            except SettingsError as error:
                raise ValueError(f"{method.title}: {error}: set training.epochs") from error
            if training.mode == "buffered":
                check_buffered(made, method.title, self.sampling, self.sites)
        return self

    def alp_for(self, method: MethodSettings) -> ALPOptions:
        """Settings of the ALP layers for one line of the table."""
        settings = {**self.alp.model_dump(), **method.alp}
        options: ALPOptions = _validate(ALPOptions, settings, f"methods.{method.title}.alp")
        return options

    def training_for(self, method: MethodSettings) -> TrainingSettings:
        """Settings of local training for one line of the table."""
        settings = {**self.training.model_dump(), **method.training}
        found: TrainingSettings = _validate(TrainingSettings, settings, f"methods.{method.title}.training")
        return found


def builtin_scenarios() -> dict[str, str]:
    """Names of the scenarios that come with the package, with their descriptions."""
    folder = resources.files("fedali_simulations") / "scenarios"
    names = sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))
    return {name: load_scenario(name).description for name in names}


def load_scenario(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, stored: bool = False
) -> Scenario:
    """A scenario by built-in name, TOML file or mapping, with ``key=value`` settings laid over it.

    Keys are dotted (``training.epochs=5``), values TOML, or plain words, or words with commas between for a list. Another
    ``model.name`` takes the options of the one before away. ``stored``: the file is
    a run's own, whose methods are called as in the version that wrote it; so is a file that `fedali tune` found.
    Raises ``SettingsError`` naming the key, and the nearest one that exists.
    """
    if isinstance(source, Mapping):
        where, settings = "scenario", dict(source)
    else:
        where, text = _read(str(source))
        stored = stored or is_stored(Path(source), text)
        try:
            settings = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{where}: not valid TOML: {error}") from error
    if settings.pop(WRITTEN_BY, None) is None and stored:
        settings = as_called_now(settings)
    for override in overrides:
        _override(settings, override)
    scenario: Scenario = _validate(Scenario, settings, where)
    return scenario


def _read(source: str) -> tuple[str, str]:
    builtin = resources.files("fedali_simulations") / "scenarios"
    if not source.endswith(SUFFIX):
        names = [f.name.removesuffix(SUFFIX) for f in builtin.iterdir() if f.name.endswith(SUFFIX)]
        if source not in names:
            hint = did_you_mean(source, names)
            raise SettingsError(f"no scenario called {source!r}; {hint} (or the path of a {SUFFIX} file)")
        return f"scenario {source}", (builtin / f"{source}{SUFFIX}").read_text("utf-8")
    try:
        return source, Path(source).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SettingsError(f"cannot read scenario {source}: {reason}") from error


def _override(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"--set takes key=value, not {override!r}; for example --set training.epochs=5")
    *path, last = key.strip().split(".")
    for part in path:
        settings = settings.setdefault(part, {})
        if not isinstance(settings, dict):
            raise SettingsError(f"--set {override}: {part!r} holds a value, not settings")
    value = _value(text.strip())
    if key.strip() == "model.name" and settings.get(last) != value:
        settings.clear()  # options and the like were the other model's
    settings[last] = value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return [_value(part.strip()) for part in text.split(",")] if "," in text else text


def _validate(kind: type[Any], settings: Mapping[str, Any], where: str) -> Any:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
        key = ".".join(path)
        if first["type"] == "extra_forbidden":
            known = _known_keys(kind, path[:-1])
            raise SettingsError(
                f"{where}: unknown setting {key!r}; {did_you_mean(path[-1], known)}"
            ) from None
        message = first["msg"].removeprefix("Value error, ")
        seen = "" if first["type"] in ("value_error", "missing") else f", not {first['input']!r}"
        at = f"{key}: " if key else ""
        raise SettingsError(f"{where}: {at}{message[:1].lower()}{message[1:]}{seen}") from None


def _known_keys(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        field = kind.model_fields.get(part)
        inner = MethodSettings if part == "methods" else field.annotation if field else None
        if part.isdigit():
            continue
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return list(kind.model_fields)
