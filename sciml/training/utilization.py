"""How much of a device a training uses: the FLOPs of its model, against the time that they take."""

from __future__ import annotations

from dataclasses import dataclass

TERA = 1e12


@dataclass(frozen=True)
class ModelFlops:
    """Says what a model computes for a sample, and what its device could compute.

    Only what the model has to compute counts, forward and backward: neither what ``model.recompute`` computes again nor
    the optimizer. Of attention the five products of its backward kernel count, as in a plan, of which one are the
    scores again; the source counts four.

    Source: Chowdhery et al. (2022), https://doi.org/10.48550/arXiv.2204.02311, appendix B.

    Attributes:
        sample: FLOPs of a forward and a backward pass over a typical sample.
        peak: FLOP/s of a device; None where it is not known.
        peak_source: where the peak comes from, for people.
    """

    sample: float
    peak: float | None = None
    peak_source: str = ""

    @property
    def peak_text(self) -> str:
        """Returns, behind a comma, against what ``mfu`` is counted; nothing where the peak is not known."""
        return "" if self.peak is None else f", MFU of the {self.peak / TERA:.3g} TFLOP/s that {self.peak_source}"

    def record(self, samples_per_s: float) -> dict[str, float]:
        """Returns what the log says of a device that does so many samples a second: ``tflops_per_device``, and ``mfu``
        where the peak is known.
        """
        flops_per_s = self.sample * samples_per_s
        utilization = {} if self.peak is None else {"mfu": flops_per_s / self.peak}
        return {"tflops_per_device": flops_per_s / TERA, **utilization}
