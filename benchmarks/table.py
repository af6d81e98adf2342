"""The lines that the benchmarks print: what was measured, beside its limit and its budget.

Must not measure.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line. ``bare`` is the primitive's figure, None where there is none; ``budget`` is shown as it is."""

    what: str
    value: float
    unit: str
    bare: float | None = None
    budget: str = ""

    def __str__(self) -> str:
        bare = "" if self.bare is None else f"{self.bare:.2f}"
        ratio = "" if not self.bare else f"{self.value / self.bare:.2f}"
        return f"{self.what:<68} {self.value:>9.2f} {self.unit:<7} {bare:>9} {ratio:>6}   {self.budget}"


HEAD = f"{'':<68} {'svcd':>9} {'':<7} {'bare':>9} {'ratio':>6}   budget"
