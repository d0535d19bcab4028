"""The order of samples from nothing but integers: numpy's SeedSequence, PCG64 and shuffle, for whoever has no numpy.

SeedSequence and its constants: numpy/random/bit_generator.pyx; PCG64: O'Neill, HMC-CS-2014-0905 (XSL RR 128/64).
"""

from __future__ import annotations

_M32, _M64, _M128 = (1 << 32) - 1, (1 << 64) - 1, (1 << 128) - 1
_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645


def words_of(entropy):
    """Each number as 32-bit words, the lowest first, one at least; one after another."""
    found = []
    for number in entropy:
        parts = [number & _M32]
        while number := number >> 32:
            parts.append(number & _M32)
        found += parts
    return found


def seed_words(entropy, count=4):
    """``SeedSequence(entropy).generate_state(count, uint64)``."""
    constant = 0x43B0D7E5

    def hashed(value):
        nonlocal constant
        value ^= constant
        constant = constant * 0x931E8875 & _M32
        value = value * constant & _M32
        return value ^ value >> 16

    def mixed(one, other):
        found = (one * 0xCA01F9DD - other * 0x4973F715) & _M32
        return found ^ found >> 16

    words = words_of(entropy)
    pool = [hashed(words[i] if i < len(words) else 0) for i in range(4)]
    for source in range(4):
        for target in range(4):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source]))
    for word in words[4:]:
        for target in range(4):
            pool[target] = mixed(pool[target], hashed(word))
    constant, halves = 0x8B51F9DD, []
    for i in range(2 * count):
        value = pool[i % 4] ^ constant
        constant = constant * 0x58F38DED & _M32
        value = value * constant & _M32
        halves.append(value ^ value >> 16)
    return [halves[2 * i] | halves[2 * i + 1] << 32 for i in range(count)]


class Generator:
    """``numpy.random.default_rng(SeedSequence(entropy))``, as far as permutations need it."""

    def __init__(self, entropy):
        high, low, high_inc, low_inc = seed_words(entropy)
        self._increment = ((high_inc << 64 | low_inc) << 1 | 1) & _M128
        self._state = 0
        self._step()
        self._state = self._state + (high << 64 | low) & _M128
        self._step()
        self._half = None

    def _step(self):
        self._state = (self._state * _MULTIPLIER + self._increment) & _M128

    def next64(self):
        """64 random bits."""
        self._step()
        value = (self._state >> 64 ^ self._state) & _M64
        turn = self._state >> 122
        return (value >> turn | value << (64 - turn)) & _M64

    def next32(self):
        """32 random bits: the lower half of 64, and the upper half the next time."""
        if self._half is not None:
            half, self._half = self._half, None
            return half
        both = self.next64()
        self._half = both >> 32
        return both & _M32

    def below(self, most):
        """0 to ``most``, less than 2^32: bits are masked, and drawn again while they are too many."""
        mask = (1 << most.bit_length()) - 1
        while (value := self.next32() & mask) > most:
            pass
        return value

    def permutation(self, count):
        """0 to ``count`` - 1, shuffled from the last place down."""
        found = list(range(count))
        for i in range(count - 1, 0, -1):
            j = self.below(i)
            found[i], found[j] = found[j], found[i]
        return found
