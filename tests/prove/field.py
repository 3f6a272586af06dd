"""Numbers of two prime fields at once, in which a rewritten graph is exactly equal or, almost surely, not at all.

Two different polynomials of degree d agree at a random point of a field of p elements with a probability of at most
d / p (Schwartz and Zippel). To let softmax take part, the exponent lives in a second field: with q a prime that
divides p - 1 and w of order q, exp(x) = w^x takes a number modulo q to one modulo p, and exp(a + b) = exp(a) exp(b).
A number that has been through exp has no part modulo q any more. Source: Wu et al. 2024,
Mirage, arXiv:2405.05751. Functions with no algebra that rules use (erf, tanh, sqrt ..) are random: of equal arguments
they are equal, and of others not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Q = 1_073_740_463  # primes, with P = 2 Q + 1, so that squares modulo P have the order Q; both have a root of 2
P = 2 * Q + 1
ORDER_Q = 4  # modulo P
BIG = 5e3  # constants beyond stand for infinity: masks are made with them

Ints = NDArray[np.int64]


class Unproved(Exception):
    """The graph does something that the fields cannot express."""


@dataclass(frozen=True)
class Element:
    """An array of numbers: ``p`` modulo P, ``q`` modulo Q or None behind exp, and the sign of infinite ones."""

    p: Ints
    q: Ints | None
    infinite: Ints

    @property
    def shape(self) -> tuple[int, ...]:
        return self.p.shape

    def map(self, change: Any) -> Element:
        """The same movement of data in all parts."""
        return Element(change(self.p), None if self.q is None else change(self.q), change(self.infinite))

    def __add__(self, other: Element) -> Element:
        if np.any(self.infinite * other.infinite < 0):
            raise Unproved("infinity minus infinity")
        infinite = np.sign(self.infinite + other.infinite)
        q = None if self.q is None or other.q is None else (self.q + other.q) % Q
        return _still(Element((self.p + other.p) % P, q, infinite))

    def __neg__(self) -> Element:
        return Element(-self.p % P, None if self.q is None else -self.q % Q, -self.infinite)

    def __sub__(self, other: Element) -> Element:
        return self + -other

    def __mul__(self, other: Element) -> Element:
        q = None if self.q is None or other.q is None else self.q * other.q % Q
        return _still(Element(self.p * other.p % P, q, self._sign(other)))

    def _sign(self, other: Element) -> Ints:
        """Infinity times 0 is 0 here: masks are flags times the lowest number."""
        if not self.infinite.any() and not other.infinite.any():
            return np.zeros(np.broadcast_shapes(self.shape, other.shape), np.int64)
        return _small(self) * _small(other)

    def inverse(self) -> Element:
        if self.infinite.any() or not self.p.all():
            raise Unproved("division by zero or infinity")
        q = None if self.q is None or not self.q.all() else power(self.q, Q - 2, Q)
        return replace(self, p=power(self.p, P - 2, P), q=q)

    def __matmul__(self, other: Element) -> Element:
        """Of matrices in the last two axes."""
        if self.infinite.any() or other.infinite.any():
            raise Unproved("a product of infinities")
        q = None if self.q is None or other.q is None else _matmul(self.q, other.q, Q)
        p = _matmul(self.p, other.p, P)
        return Element(p, q, np.zeros_like(p))

    def sum(self, axes: tuple[int, ...], keep: bool) -> Element:
        if self.infinite.any():
            raise Unproved("a sum of infinities")
        p = self.p.sum(axes, keepdims=keep) % P
        q = None if self.q is None else self.q.sum(axes, keepdims=keep) % Q
        return Element(p, q, np.zeros_like(p))

    def exp(self) -> Element:
        """Of numbers that were through exp before, a random function: no rule takes their sums apart."""
        if np.any(self.infinite > 0):
            raise Unproved("exp of infinity")
        if self.q is None:
            return self._finite().random("Exp").map(lambda part: part * (self.infinite == 0))
        p = np.where(self.infinite < 0, 0, power(np.full(self.shape, ORDER_Q), self.q, P))
        return Element(p, None, np.zeros_like(p))

    def _finite(self) -> Element:
        return Element(self.p, self.q, np.zeros_like(self.infinite))

    def random(self, function: str) -> Element:
        """A random function of each number."""
        if self.infinite.any():
            raise Unproved(f"{function} of infinity")
        mixed = _mix(self.p.astype(np.uint64) + np.uint64(hash_of(function)))
        none = np.zeros_like(self.p)
        if self.q is None:
            return Element(_below(mixed, P), None, none)
        mixed = _mix(mixed ^ self.q.astype(np.uint64))
        return Element(_below(mixed, P), _below(_mix(mixed), Q), none)

    def __eq__(self, other: object) -> bool:
        """Equal in every part that both have."""
        if not isinstance(other, Element) or self.shape != other.shape:
            return False
        same = np.array_equal(self.p, other.p) and np.array_equal(self.infinite, other.infinite)
        return same and (self.q is None or other.q is None or np.array_equal(self.q, other.q))


def _small(x: Element) -> Ints:
    """The sign of each number, of those known to be 0, infinite, or a small power of two."""
    known = {_residue(Fraction(n, 8) * s, P): s for n in (1, 2, 4, 8, 16, 32, 64) for s in (1, -1)}
    plus, minus = ([r for r, sign in known.items() if sign == s] for s in (1, -1))
    kinds = [x.infinite != 0, x.p == 0, np.isin(x.p, plus), np.isin(x.p, minus)]
    if not np.any(kinds, axis=0).all():
        raise Unproved("infinity times a number of unknown sign")
    found: Ints = np.select(kinds, [x.infinite, 0, 1, -1])
    return found


def _still(x: Element) -> Element:
    """What is infinite has no other value."""
    if not x.infinite.any():
        return x
    finite = x.infinite == 0
    return Element(x.p * finite, None if x.q is None else x.q * finite, x.infinite)


def power(base: Ints, exponent: int | Ints, modulus: int) -> Ints:
    """base ** exponent by squaring; products of two numbers below 2^31 fit into 63 bits."""
    result, base, left = np.ones_like(base), base % modulus, np.asarray(exponent, np.int64)
    while left.any():
        result = np.where(left & 1, result * base % modulus, result)
        base, left = base * base % modulus, left >> 1
    return result


def _matmul(a: Ints, b: Ints, modulus: int) -> Ints:
    products = a[..., :, :, None] * b[..., None, :, :] % modulus
    found: Ints = products.sum(-2) % modulus
    return found


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _below(x: NDArray[np.uint64], modulus: int) -> Ints:
    return (x % np.uint64(modulus)).astype(np.int64)


def hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")


def random(shape: tuple[int, ...], rng: np.random.Generator) -> Element:
    p, q = rng.integers(2, P - 1, shape), rng.integers(2, Q - 1, shape)
    return Element(p, q, np.zeros(shape, np.int64))


def exactly(array: NDArray[Any]) -> Element:
    """Floating-point or whole numbers as what they stand for: simple fractions, and roots as roots."""
    wide = np.asarray(array, np.float64)
    infinite = np.where(np.abs(wide) > BIG, np.sign(wide), 0).astype(np.int64)
    near = _NEAR if array.dtype.itemsize > 2 else _NEAR_HALF
    numbers = {float(x): _fraction(float(x), near) for x in np.unique(wide) if abs(x) <= BIG}
    parts = [np.vectorize(lambda x, i=i: numbers[x][i] if x in numbers else 0, otypes=[np.int64])(wide) for i in (0, 1)]
    return Element(parts[0].reshape(wide.shape), parts[1].reshape(wide.shape), infinite)


def _root_of_two(modulus: int) -> int:
    root = pow(2, (modulus + 1) // 4, modulus)
    assert root * root % modulus == 2
    return root


# What float32 constants stand for, in both fields: multiples of the root of 2, of 1 / sqrt(pi), a number of its own of
# which nothing is known, and decimal fractions.
_ROOTS = (_root_of_two(P), _root_of_two(Q))
_OF_PI = tuple(x * root for x, root in zip((314_159_265, 271_828_182), _ROOTS, strict=True))
_IRRATIONAL = ((2**0.5, _ROOTS), ((2 / np.pi) ** 0.5, _OF_PI))
_TIMES = [Fraction(n, 4) * m for n in (1, 2, 4, 8, 16) for m in (1, Fraction(44715, 1_000_000))]
_NEAR = 1e-6
_NEAR_HALF = 5e-4
_ROUNDING = 1.2e-7  # of float32


def _fraction(x: float, near: float) -> tuple[int, int]:
    for irrational, roots in _IRRATIONAL:
        for times in _TIMES:
            if abs(abs(x) - irrational * times) < near * irrational * times:
                signed = times * int(np.sign(x))
                p, q = (_residue(signed, m) * root % m for m, root in zip((P, Q), roots, strict=True))
                return p, q
    exact = next(f for f in _simple(x) if abs(f - x) <= _ROUNDING * abs(x))
    return _residue(exact, P), _residue(exact, Q)


def _simple(x: float) -> Iterator[Fraction]:
    """What a float32 may have been written as, the likelier first: 1/3, 0.044715, 1 / 0.044715; itself at last."""
    exact = Fraction(x)
    yield from (exact.limit_denominator(most) for most in (1, 10, 100))
    yield Fraction(f"{x:.6g}")
    yield 1 / Fraction(f"{1 / x:.6g}")
    yield from (exact.limit_denominator(most) for most in (1000, 10_000))
    yield exact


def _residue(x: Fraction, modulus: int) -> int:
    return x.numerator * pow(x.denominator, -1, modulus) % modulus
