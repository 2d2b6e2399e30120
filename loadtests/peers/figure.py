"""The values of one figure over the rounds, and how they are shown: the median with the smallest and the largest."""

import statistics


class Figure:
    def __init__(self, values: list[float] | None = None) -> None:
        self.values = list(values or [])

    def add(self, value: float) -> None:
        self.values.append(value)

    def __bool__(self) -> bool:
        return bool(self.values)

    def median(self) -> float:
        """The middle one, or between the middle two; 0 where there is none."""
        return statistics.median(self.values) if self.values else 0.0

    def show(self, digits: int = 0) -> str:
        if not self.values:
            return ""
        low, high = min(self.values), max(self.values)
        return f"{self.median():,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"

    def per(self, other: "Figure") -> "Figure":
        """The ratio within each round, so that what slowed a whole round down does not count."""
        return Figure([mine / theirs for mine, theirs in zip(self.values, other.values) if theirs])
