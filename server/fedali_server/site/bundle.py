"""A bundle as a site trains it: the model, method and optimizer that its manifest names, run by an engine."""

from __future__ import annotations

from fedali.bundle.file import Bundle
from fedali.data.normalisation import Normalisation
from fedali.engines.base import Engine, TrainingSettings, Vector
from fedali.engines.choose import EngineName, build_engine
from fedali.errors import BundleError
from fedali.methods import SharedState
from fedali_server.export.bundle_source import model_of, optimizer_of
from fedali_server.gateway.rounds.bundles import RoundModel


def check_mode(bundle: Bundle) -> None:
    """Raise ``BundleError`` for a bundle that only devices train."""
    if bundle.manifest.mode != "full":
        raise BundleError(
            f"a site that holds data trains bundles of mode full, and this one is of mode {bundle.manifest.mode}"
        )


class TrainedBundle:
    """What clients of a bundle start from, and what trains them.

    Args:
        bundle: that was verified.
        rounds: what a round knows of it.

    Raises ``BundleError`` for a bundle of mode head, or whose model is not the one that this version makes.
    """

    def __init__(self, bundle: Bundle, rounds: RoundModel) -> None:
        check_mode(bundle)
        self.manifest, self.rounds = bundle.manifest, rounds
        self._state = bundle.state()
        self._bundle, self._model = bundle, model_of(bundle)
        if rounds.method.keeps_local_prototypes != self.manifest.keeps_local_prototypes:
            raise BundleError("the bundle keeps local prototypes otherwise than its method; export it again")
        self._engine: tuple[int, Engine] | None = None

    @property
    def normalisation(self) -> Normalisation:
        """Of raw samples; where it is each client's own, of clients that have none yet."""
        given = self.manifest.normalisation
        return Normalisation(given.mean, given.std)

    def received(self, shared: SharedState) -> SharedState:
        """The round's state as clients take it: what is personal of theta is as the bundle has it."""
        return SharedState(self._with_shared("shared_theta", shared), shared.prototypes)

    def start(self, shared: SharedState) -> tuple[Vector, Vector]:
        """Theta [P] and local prototypes [L] of a client that never trained."""
        keeps = self.rounds.method.keeps_local_prototypes
        return self._with_shared("theta", shared), self._state[
            "local_prototypes"
        ] if keeps else shared.prototypes

    def engine(self, name: EngineName, epochs: int, workers: int) -> Engine:
        """What trains ``epochs`` a round; made once."""
        if self._engine is None or self._engine[0] != epochs:
            manifest = self.manifest
            settings = TrainingSettings(epochs, manifest.batch)
            shape, decay = manifest.input_shape, manifest.hyper.decay
            parts = self._model, self.rounds.method, optimizer_of(self._bundle), settings
            self._engine = epochs, build_engine(name, *parts, input_shape=shape, decay=decay, workers=workers)
        return self._engine[1]

    def _with_shared(self, name: str, shared: SharedState) -> Vector:
        where, theta = self.rounds.shared, self._state[name].copy()
        theta[where] = shared.theta[where]
        return theta
