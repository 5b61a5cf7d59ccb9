"""Samples to rows: A and B taken in turn in the same run, the median of their ratios, and the table."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Sample = Callable[[], Awaitable[float]]


async def alternate(rounds: int, sides: Mapping[str, Sample]) -> dict[str, list[float]]:
    """Take a sample of each side, `rounds` times, every other time in the opposite order."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            taken[name].append(await sides[name]())
    return taken


@dataclass(frozen=True, slots=True)
class Target:
    """What a value is held against: at least or at most so much."""

    value: float
    at_least: bool = True

    def is_met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.value if self.at_least else value <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `met` is None where there is nothing to meet, or nothing was measured."""

    measure: str
    workload: str
    ours: str
    reference: str = "–"
    ratio: str = "–"
    target: str = "reported"
    met: bool | None = None


def against(
    measure: str,
    workload: str,
    unit: str,
    ours: Sequence[float],
    reference: tuple[str, Sequence[float]],
    target: Target | None = None,
) -> Row:
    """Our samples over those of a reference, pair by pair: the median ratio, and how far the pairs spread."""
    name, theirs = reference
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    ratio = median(ratios)
    return Row(
        measure,
        workload,
        shown(median(ours), unit),
        f"{name} {shown(median(theirs), unit)}",
        f"{ratio:.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})",
        "reported" if target is None else f"{target} ×",
        None if target is None else target.is_met(ratio),
    )


def alone(measure: str, workload: str, unit: str, ours: Sequence[float], target: Target | None = None) -> Row:
    """Our samples against a number: their median, and how far they spread (in the column of the ratio)."""
    return Row(
        measure,
        workload,
        shown(median(ours), unit),
        ratio=f"({shown(min(ours), '')}–{shown(max(ours), '')})",
        target="reported" if target is None else f"{target} {unit}",
        met=None if target is None else target.is_met(median(ours)),
    )


def skipped(measure: str, workload: str, missing: str) -> Row:
    """A comparison that cannot be made here, and what is missing for it."""
    return Row(measure, workload, "skipped", f"{missing} is not here")


def shown(value: float, unit: str) -> str:
    """A value with three significant digits: 1.23 k/s, 0.0456 ms."""
    for limit, letter in ((1e6, " M"), (1e4, " k")):
        if value >= limit:
            return f"{value / (1e6 if letter == ' M' else 1e3):.3g}{letter}{unit}"
    return f"{value:.3g} {unit}".rstrip() if value < 1000 else f"{value:.0f} {unit}".rstrip()


def printed(rows: Sequence[Row]) -> str:
    """All rows under one head, as wide as they need to be."""
    marks = {True: "met", False: "NOT MET", None: ""}
    lines = [("", "workload", "ours", "reference", "ratio (spread)", "target", "")]
    lines += [(r.measure, r.workload, r.ours, r.reference, r.ratio, r.target, marks[r.met]) for r in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
