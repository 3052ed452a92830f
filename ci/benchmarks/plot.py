"""Pure: timings as a plot for people: horizontal bars in an SVG that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from ci.benchmarks.timing import Timing

_WIDTH: Final = 860
_LABEL: Final = 330
_ROW: Final = 24
_HEADING: Final = 40
_OURS: Final = ("plan", "sync", "apply, all new", "apply, one changed")
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.heading{font-weight:600}.ours{fill:#1f6feb}.peer{fill:#8c959f}"
    ".paper{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}.ours{fill:#58a6ff}}"
)


def svg(timings: Mapping[str, Sequence[Timing]], *, caption: str) -> str:
    """The medians, on a scale on which ten times as long is always equally far."""
    seconds = [timing.median for found in timings.values() for timing in found]
    low, high = math.log10(min(seconds)) - 0.3, math.log10(max(seconds))
    scale = (_WIDTH - _LABEL - 90) / (high - low)
    parts, y = [], 10
    for heading, found in timings.items():
        y += _HEADING
        parts.append(f'<text class="heading" x="10" y="{y - 12}">{escape(heading)}</text>')
        for timing in sorted(found, key=lambda one: one.median):
            width = (math.log10(timing.median) - low) * scale
            kind = "ours" if timing.name in _OURS else "peer"
            parts.append(
                f'<text x="{_LABEL - 10}" y="{y + 15}" text-anchor="end">{escape(timing.name)}</text>'
                f'<rect class="{kind}" x="{_LABEL}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 6}" rx="2"/>'
                f'<text x="{_LABEL + width + 8:.1f}" y="{y + 15}">{timing.median:.2f} s</text>'
            )
            y += _ROW
    y += _HEADING
    parts.append(f'<text x="10" y="{y - 14}">{escape(caption)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'aria-label="{escape(caption)}"><style>{_STYLE}</style><rect class="paper" width="100%" height="100%"/>'
        f"{''.join(parts)}</svg>\n"
    )
