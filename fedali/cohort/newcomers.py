"""Clients that come when training is over: the few samples that they have labels of, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from fedali.engines.base import Labels, Samples

_LABELS = 3  # what a random stream is for


def few(samples: Samples, count: int, random: np.random.Generator) -> Samples:
    """``count`` of the samples, or all where there are not more: one of each class in turn, as long as it has any; any where there are no classes.

    The same ``random`` gives for a larger ``count`` the same samples and more.
    """
    order = random.permutation(len(samples))
    if samples.y.ndim > 1:  # no classes
        chosen = np.sort(order[:count])
        return replace(samples, x=samples.x[chosen], y=samples.y[chosen])
    classes = random.permutation(np.unique(samples.y))
    turns = np.empty(len(samples), np.int64)  # in which turn of its class a sample comes
    places = np.empty(len(samples), np.int64)
    for place, label in enumerate(classes):
        mine = order[samples.y[order] == label]
        turns[mine], places[mine] = np.arange(len(mine)), place
    chosen = np.sort(
        np.lexsort((places, turns))[:count]
    )  # in their order: all of them train as they do without
    return replace(samples, x=samples.x[chosen], y=samples.y[chosen])


def labelled(
    samples: Samples,
    counts: Sequence[int],
    seed: np.random.SeedSequence,
    guess: Callable[[Samples], Labels],
) -> Iterator[tuple[str, Samples]]:
    """What a client has labels of, by what its accuracy is then called: ``after_<count>`` for each, and ``after`` of all.

    Of a count of 0 these are all of its samples with labels [n] that ``guess`` gives them: what others' model says of them (self-training,
    Lee, ICML workshops 2013).
    """
    for count in counts:
        if count == 0:
            yield "after_0", replace(samples, y=guess(samples).astype(samples.y.dtype))
        else:
            yield f"after_{count}", few(samples, count, np.random.default_rng(seed))
    yield "after", samples


def stream(seed: int, client: int) -> np.random.SeedSequence:
    """What chooses a client's labelled samples: the same for every method."""
    return np.random.SeedSequence([seed, _LABELS, client])
