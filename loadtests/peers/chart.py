"""The chart of a run: a bar for each server, drawn for light and for dark pages alike."""

from dataclasses import dataclass
from html import escape

WIDTH, LABELS, FIGURES, RATIOS = 760, 196, 74, 110
TOP, PITCH, THICK, BOTTOM = 84, 32, 20, 28

# Of middling lightness: legible on white and on black, and no question to the viewer's system which of them it is.
OURS, THEIRS, BOUND, TEXT = "#2f81f7", "#9a6dd7", "#8b949e", "#768390"
FONT = "-apple-system, BlinkMacSystemFont, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Bar:
    name: str
    value: float
    ratio: float  # ours by this one's
    bound: bool  # not a model server: what the web stack can do at most


def draw(bars: list[Bar], ours: str, cores: int) -> str:
    height = TOP + PITCH * len(bars) + BOTTOM
    longest = max(bar.value for bar in bars)
    title = "Answers a second: one row of 30 numbers as JSON, 16 connections"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(title)}" font-family="{FONT}" font-size="13" fill="{TEXT}">',
        f'<text x="0" y="20" font-size="16" font-weight="600">{escape(title)}</text>',
        f'<text x="0" y="42">The same gradient boosting model in ONNX Runtime, {cores} cores shared with the load generator</text>',
        f'<text x="{WIDTH}" y="70" text-anchor="end" font-size="12">{escape(ours)} / it</text>',
    ]
    for i, bar in enumerate(bars):
        y = TOP + PITCH * i
        length = max(2.0, (WIDTH - LABELS - FIGURES - RATIOS) * bar.value / longest)
        mine = bar.name == ours
        colour = OURS if mine else BOUND if bar.bound else THEIRS
        weight = ' font-weight="700"' if mine else ""
        baseline = y + THICK - 5
        parts += [
            f'<text x="{LABELS - 10}" y="{baseline}" text-anchor="end"{weight}>{escape(bar.name)}</text>',
            f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{THICK}" rx="3" fill="{colour}"/>',
            f'<text x="{LABELS + length + 8:.1f}" y="{baseline}"{weight}>{bar.value:,.0f}</text>',
            f'<text x="{WIDTH}" y="{baseline}" text-anchor="end"{weight}>{"" if mine else times(bar.ratio)}</text>',
        ]
    foot = "The empty handler reads the same body and runs no model. Median of all rounds; linear scale."
    parts += [f'<text x="0" y="{height - 8}" font-size="12">{foot}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def times(ratio: float) -> str:
    return f"{ratio:.{0 if ratio >= 10 else 1 if ratio >= 1 else 2}f} ×"
