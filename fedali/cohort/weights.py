"""How much a client may weigh in a round: bounded by what the clients of a federation have, and by what it said before.

A client says itself how many samples it has, and they are its weight. Bounds are known before a round begins, so that sums stay sums: whoever
answers first, whatever is killed, they are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Weights:
    """Samples that an update may weigh at most, whatever it says: ``own`` by the client's number, ``most`` for others; 0 for as many as it says.

    >>> Weights(100, {3: 20}).of(3, 50), Weights(100).of(3, 50), Weights().of(3, 50)
    (20, 50, 50)
    """

    most: int = 0
    own: Mapping[int, int] = field(default_factory=dict)

    def of(self, number: int, samples: int) -> int:
        """Samples that client ``number`` counts as, which says that it has ``samples``."""
        most = self.own.get(number, self.most)
        return min(samples, most) if most else samples


def weights_of(claims: Mapping[int, int], times: float, unknown: int = 0) -> Weights:
    """What each client may weigh: ``times`` what the median client has, and ``times`` what it said before.

    Args:
        claims: samples that clients said they have, by number; 0 where one did not say.
        times: 1 or more; 0 for no bound.
        unknown: clients besides that said nothing yet. They count as if they had more than all others, so that not knowing
            them makes the bound larger and never smaller; where too few are known for that, the median is that of the known.

    Of an even number the lower of the two in the middle is taken: of two clients, one cannot lift the other's bound. Where nobody
    said anything there is nothing to compare with, and no bound: devices do not know how many windows a CSV has before they have a bundle.

    >>> weights_of({0: 30, 1: 50, 2: 10**9, 3: 4}, 10)
    Weights(most=300, own={3: 40})
    >>> weights_of({0: 0, 1: 0}, 10) == Weights()
    True
    """
    if not times:
        return Weights()
    known = sorted(samples for samples in claims.values() if samples > 0)
    if not known:
        return Weights()
    everybody = len(known) + unknown + sum(samples <= 0 for samples in claims.values())
    place = (everybody - 1) // 2
    median = known[place if place < len(known) else (len(known) - 1) // 2]
    most = int(times * median)
    own = {number: int(times * samples) for number, samples in sorted(claims.items()) if samples > 0}
    return Weights(most, {number: bound for number, bound in own.items() if bound < most})


def only(weights: Weights, numbers: Collection[int]) -> Weights:
    """The same for those clients alone: what others have is not theirs to know."""
    return Weights(weights.most, {number: most for number, most in weights.own.items() if number in numbers})
