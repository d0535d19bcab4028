"""A bundle as a site trains it: the model, method and optimizer that its manifest names, run by an engine."""

from __future__ import annotations

from fedali.bundle.file import Bundle
from fedali.data.normalisation import Normalisation
from fedali.engines.base import Engine, Vector
from fedali.engines.choose import EngineName, build_engine
from fedali.engines.outputs import Outputs
from fedali.errors import BundleError
from fedali.methods import SharedState, build_method, personal_indices
from fedali.recipe import Recipe
from fedali_server.export.bundle_export import stretches
from fedali_server.export.bundle_source import model_of, optimizer_of, task_of
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
        method = self.manifest.method
        self.method = build_method(method.name, method.options, doors=False)
        personal = stretches(personal_indices(self.method, self.manifest.layouts.parameters))
        given = self.manifest
        here = personal, self.method.prototypes, self.method.keeps_local_prototypes, self.method.answer
        if here != (given.personal, given.prototypes, given.keeps_local_prototypes, given.answers_by):
            raise BundleError(
                "the bundle's clients keep or send otherwise than its method says; export it again"
            )
        self._engine: tuple[int, Engine] | None = None
        self.outputs = Outputs(self._model) if self.manifest.answers_by == "gate" else None

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
        keeps = self.method.keeps_local_prototypes
        return self._with_shared("theta", shared), self._state[
            "local_prototypes"
        ] if keeps else shared.prototypes

    def engine(self, name: EngineName, epochs: int, workers: int) -> Engine:
        """What trains ``epochs`` a round; made once."""
        if self._engine is None or self._engine[0] != epochs:
            manifest = self.manifest
            recipe = Recipe(
                self._model,
                self.method,
                optimizer_of(self._bundle),
                manifest.input_shape,
                epochs,
                manifest.batch,
                manifest.hyper.decay,
                task_of(self._bundle, doors=False),
            )
            self._engine = epochs, build_engine(name, recipe, workers=workers)
        return self._engine[1]

    def _with_shared(self, name: str, shared: SharedState) -> Vector:
        where, theta = self.rounds.shared, self._state[name].copy()
        theta[where] = shared.theta[where]
        return theta
