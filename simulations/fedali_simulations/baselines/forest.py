"""Forest: a random forest on simple statistics of windows, of everybody's data together or of each client's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier

from fedali.cohort.newcomers import labelled, stream
from fedali.cohort.site import Cohort
from fedali.engines.base import Labels, Samples
from fedali_server.run.folder import RunFolder
from fedali_simulations.baselines.evaluating import Answer, Probabilities, evaluated, remembered, scores
from fedali_simulations.baselines.written import write_round
from fedali_simulations.data import load_federation, unseen_clients
from fedali_simulations.jobs import Job, Progress, Report
from fedali_simulations.metrics import MetricsFiles

_TREES = 200
_QUANTILES = (0.25, 0.5, 0.75)
Array = npt.NDArray[np.float32]


def statistics_of(x: Array) -> Array:
    """Features [n, f] of samples [n, *shape]: of windows [n, time, channels] each channel's mean, standard deviation, least, largest,
    quartiles and mean absolute step; of images and vectors their numbers as they are.

    >>> statistics_of(np.zeros((5, 128, 6), np.float32)).shape
    (5, 48)
    """
    if x.ndim != 3:
        return x.reshape(len(x), -1)
    parts = [x.mean(1), x.std(1), x.min(1), x.max(1), *np.quantile(x, _QUANTILES, axis=1)]
    steps = np.abs(np.diff(x, axis=1)).mean(1) if x.shape[1] > 1 else np.zeros_like(parts[0])
    return np.concatenate([*parts, steps], axis=1).astype(np.float32)


def run_forest(job: Job, folder: RunFolder, report: Report) -> dict[str, int]:
    """Grow and test the forests, which takes one round. Returns what there is to say of it."""
    federation = load_federation(job.scenario, job.seed)
    cohort, names = Cohort(federation), [client.name for client in federation.clients]
    unseen = unseen_clients(job.scenario, len(names), job.seed)
    seen = [client for client in range(len(names)) if client not in unseen]
    forests = _Forests(cohort, job.seed)
    pooled = job.line.name == "forest-pooled"
    answer = forests.everybodys(seen) if pooled else forests.each(seen)
    found = evaluated(cohort, seen, answer, everyone=True, shared=pooled)
    mean = write_round(folder, 1, {**found, "train_loss": [float("nan")] * len(seen)}, names)
    if unseen:
        counts = tuple(sorted(set(job.scenario.evaluation.unseen_samples)))
        adapted = [forests.newcomer(client, seen if pooled else [], counts) for client in unseen]
        columns: dict[str, list[Any]] = {name: [one[name] for one in adapted] for name in adapted[0]}
        MetricsFiles(folder.path).write_unseen({**columns, "client": [names[client] for client in unseen]})
    report(Progress(job.line.title, job.seed, 1, 1, mean["personalisation"]))
    return {"rounds": 1, "best_round": 1, "parameters": forests.nodes}


class _Forests:
    """Forests of a cohort's training data; features are made once."""

    def __init__(self, cohort: Cohort, seed: int) -> None:
        self._cohort, self._seed, self.nodes = cohort, seed, 0
        self._features: dict[
            int, tuple[Samples, Array]
        ] = {}  # by the identity of samples, which are kept for it

    def everybodys(self, clients: Sequence[int]) -> Answer:
        """What one forest of all clients' data says."""
        forest = self._counted([self._cohort.train[client] for client in clients])
        return remembered(lambda samples: self._says(forest, samples))

    def each(self, clients: Sequence[int]) -> Answer:
        """What each client's forest says."""
        grown = {client: self._counted([self._cohort.train[client]]) for client in clients}
        return lambda client, samples: self._says(grown[client], samples)

    def newcomer(self, client: int, others: Sequence[int], counts: Sequence[int]) -> dict[str, float]:
        """Accuracy of a client that was held out: of the forest of all ``others``, and of one of their samples and its labelled ones."""
        test, train = self._cohort.test[client], self._cohort.train[client]
        theirs = [self._cohort.train[other] for other in others]
        forests = {"before": self._grown(theirs) if theirs else None}
        if not theirs:  # nobody's forest says what its samples could be
            counts, forests = (
                [count for count in counts if count],
                forests | ({"after_0": None} if 0 in counts else {}),
            )

        def guess(samples: Samples) -> Labels:
            said: Labels = self._says(forests["before"], samples).argmax(1)
            return said

        for name, samples in labelled(train, counts, stream(self._seed, client), guess):
            forests[name] = self._grown([*theirs, samples])
        numbers: dict[str, float] = {"client": client, "samples": len(train)}
        for name, forest in forests.items():
            said = None if forest is None else self._says(forest, test)
            numbers |= (
                scores(self._cohort, name, test.y, said)
                if said is not None
                else {name: math.nan, f"{name}_f1": math.nan}
            )
        return numbers

    def _grown(self, sets: Sequence[Samples]) -> Any:
        x = np.concatenate([self._of(samples) for samples in sets])
        forest = RandomForestClassifier(_TREES, random_state=self._seed)
        forest.fit(x, np.concatenate([samples.y for samples in sets]))
        return forest

    def _counted(self, sets: Sequence[Samples]) -> Any:
        forest = self._grown(sets)
        self.nodes += sum(tree.tree_.node_count for tree in forest.estimators_)
        return forest

    def _says(self, forest: Any, samples: Samples) -> Probabilities:
        said = np.zeros((len(samples), self._cohort.classes))
        if len(samples):
            said[:, forest.classes_] = forest.predict_proba(self._of(samples))
        return said

    def _of(self, samples: Samples) -> Array:
        if id(samples) not in self._features:
            self._features[id(samples)] = samples, statistics_of(samples.batch(slice(None)))
        return self._features[id(samples)][1]
