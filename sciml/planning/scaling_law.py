"""Scaling laws: how the error of a family of models falls with their size and with the samples of their training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

HUBER = 1e-3
"""Residuals of the logarithm beyond which a training counts less than by its square."""
RESAMPLES = 200
CONFIDENCE = 0.9
_STARTS = [(share, alpha, beta) for share in (0.1, 0.5, 0.9) for alpha in (0.2, 0.5) for beta in (0.3, 0.8)]


@dataclass(frozen=True)
class Point:
    """Holds what one training of a family came to.

    Attributes:
        parameters: of the model.
        samples: that it was trained on, repeated ones counted again.
        flops: of all forward and backward passes.
        loss: at its end, on the validation split.
    """

    parameters: float
    samples: float
    flops: float
    loss: float


@dataclass(frozen=True)
class ScalingLaw:
    """Says that the loss is ``floor + a / parameters**alpha + b / samples**beta``.

    What a sample costs is ``flops * parameters**power``, fitted to the family too: convolutions and attention do not
    cost six operations a parameter.

    Source: Hoffmann et al. (2022), https://doi.org/10.48550/arXiv.2203.15556, approach 3.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    flops: float
    power: float

    @classmethod
    def fit(cls, points: Sequence[Point]) -> ScalingLaw:
        """Fits it to trainings of at least two sizes and two numbers of samples, by the logarithms of their losses."""
        sizes, samples, cost, losses = (
            np.log(np.array([getattr(point, name) for point in points], dtype=float))
            for name in ("parameters", "samples", "flops", "loss")
        )
        power, flops = np.polyfit(sizes, cost - samples, 1)
        # Around their means the exponents and the factors hardly depend on each other.
        size, sample = sizes - sizes.mean(), samples - samples.mean()

        def misfit(x: Float[np.ndarray, "5"]) -> tuple[float, Float[np.ndarray, "5"]]:
            """Returns the misfit and its derivatives."""
            alpha, beta = np.exp(x[2]), np.exp(x[4])
            terms = np.array([np.full_like(size, x[0]), x[1] - alpha * size, x[3] - beta * sample])
            predicted = np.logaddexp.reduce(terms, axis=0)
            residual = predicted - losses
            far = np.abs(residual)
            values = np.where(far < HUBER, residual**2 / (2 * HUBER), far - HUBER / 2)
            floor, a, b = np.exp(terms - predicted) * np.clip(residual / HUBER, -1, 1)
            slopes = [floor, a, -a * alpha * size, b, -b * beta * sample]
            return float(values.sum()), np.array([slope.sum() for slope in slopes])

        least = losses.min()
        starts = (
            np.array([least + np.log(share), least - 2, np.log(alpha), least - 1, np.log(beta)])
            for share, alpha, beta in _STARTS
        )
        bounds = [(least - 8, least), (least - 12, least + 2), (-5, 1), (least - 12, least + 2), (-5, 1)]
        fits = (minimize(misfit, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts)
        best = min(fits, key=lambda fit: fit.fun)
        floor, a, alpha, b, beta = best.x
        alpha, beta = np.exp(alpha), np.exp(beta)
        a, b = np.exp(a + alpha * sizes.mean()), np.exp(b + beta * samples.mean())
        return cls(*map(float, (np.exp(floor), a, alpha, b, beta, np.exp(flops), power)))

    def loss(self, parameters: float, samples: float) -> float:
        """Returns the loss of a model of some size after some samples."""
        return self.floor + self.a / parameters**self.alpha + self.b / samples**self.beta

    def samples_for(self, parameters: float, flops: float) -> float:
        """Returns the samples on which a model of some size can be trained for some operations."""
        return flops / (self.flops * parameters**self.power)

    def loss_at(self, parameters: float, flops: float) -> float:
        """Returns the loss of a model of some size that is trained for some operations."""
        return self.loss(parameters, self.samples_for(parameters, flops))

    def best_size(self, flops: float) -> float:
        """Returns the parameters of the model that has the lowest loss after some operations."""
        # d(loss)/d(parameters) = 0 with samples = flops / cost.
        exponent = self.alpha + self.beta * self.power
        ratio = self.alpha * self.a / (self.beta * self.power * self.b)
        return float((ratio * (flops / self.flops) ** self.beta) ** (1 / exponent))

    def best_loss(self, flops: float) -> float:
        """Returns the lowest loss that any size has after some operations."""
        return self.loss_at(self.best_size(flops), flops)


@dataclass(frozen=True)
class ScalingStudy:
    """Holds the law of a family, the trainings that it was fitted to, and one that it was not.

    Attributes:
        drawn: laws that are as likely: fits to the same trainings, drawn with replacement.
        check: a larger training, whose loss the law predicts.
    """

    points: tuple[Point, ...]
    law: ScalingLaw
    drawn: tuple[ScalingLaw, ...]
    check: Point | None = None

    @classmethod
    def fit(cls, points: Sequence[Point], resamples: int = RESAMPLES) -> ScalingStudy:
        """Fits the law, and as many again to what a bootstrap draws."""
        generator = np.random.default_rng(0)
        drawn: list[ScalingLaw] = []
        while len(drawn) < resamples:
            chosen = [points[n] for n in generator.integers(len(points), size=len(points))]
            if all(len({getattr(point, name) for point in chosen}) > 2 for name in ("parameters", "samples")):
                drawn.append(ScalingLaw.fit(chosen))
        return cls(tuple(points), ScalingLaw.fit(points), tuple(drawn))

    def interval(self, value: Callable[[ScalingLaw], float]) -> tuple[float, float, float]:
        """Returns a value of the law with the ends of its interval."""
        edge = 50 * (1 - CONFIDENCE)
        low, high = np.percentile([value(law) for law in self.drawn], [edge, 100 - edge])
        return value(self.law), float(low), float(high)

    def document(self, target: float) -> dict[str, Any]:
        """Returns all of it as plain values, with what it predicts for a budget."""
        check = None
        if self.check is not None:
            point = self.check
            predicted = self.interval(lambda law: law.loss(point.parameters, point.samples))
            check = {**asdict(point), "predicted": predicted}
        return {
            "points": [asdict(point) for point in self.points],
            "law": {field.name: self.interval(attrgetter(field.name)) for field in fields(ScalingLaw)},
            "check": check,
            "target": {
                "flops": target,
                "parameters": self.interval(lambda law: law.best_size(target)),
                "loss": self.interval(lambda law: law.best_loss(target)),
            },
        }


def crossing(first: ScalingLaw, second: ScalingLaw, flops: Float[np.ndarray, "budget"]) -> float | None:
    """Returns the operations within a range at which one family's best loss begins to be below the other's, or None."""
    differences = np.array([first.best_loss(c) - second.best_loss(c) for c in flops])
    changes = np.flatnonzero(np.diff(np.sign(differences)))
    if not len(changes):
        return None
    n = changes[0]
    share = differences[n] / (differences[n] - differences[n + 1])
    return float(np.exp(np.log(flops[n]) + share * np.log(flops[n + 1] / flops[n])))
