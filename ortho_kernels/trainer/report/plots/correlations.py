"""Which dimensions of the representation say the same: their correlations as maps."""

import base64
import html
import io
import math
from collections.abc import Sequence

import numpy as np

from ..groups import Group
from ..palette import NEGATIVE, POSITIVE
from .panels import MEDIUM, Panel, legend_of, side_by_side

MOST_MAPS = 12
LEVELS = 31  # of strength, in each direction


def correlation_maps(groups: Sequence[Group]) -> str:
    """The correlations of the first run of each group; empty where none was measured."""
    measured = [group for group in groups if group.runs[0].spectra.get("correlation")]
    panels = [
        Panel(f"{group.label}{_largest(group)}", _picture(group, group.runs[0].spectra["correlation"]))
        for group in measured[:MOST_MAPS]
    ]
    notes = []
    if len(measured) > MOST_MAPS:
        notes.append(f"{MOST_MAPS} of {len(measured)} groups are shown.")
    if any(len(group.runs) > 1 for group in measured):
        notes.append("Of each group the first run is shown.")
    swatch = (
        f'<span class="ramp" style="background: linear-gradient(90deg, {NEGATIVE}, transparent, {POSITIVE})"></span>'
    )
    legend = legend_of([(swatch, "correlation from −1 to 1")])
    return side_by_side(panels, MEDIUM, legend + "".join(f'<p class="note">{note}</p>' for note in notes))


def map_of(correlation: Sequence[Sequence[float]]) -> bytes:
    """A PNG, a pixel for each pair. Zero, and what is not finite, is transparent, so it has the color of the page."""
    from PIL import Image

    values = np.nan_to_num(np.asarray(correlation, dtype=float), posinf=0.0, neginf=0.0).clip(-1, 1)
    image = Image.fromarray((np.round(values * LEVELS) + LEVELS).astype(np.uint8), "P")
    image.putpalette(bytes.fromhex(NEGATIVE[1:]) * LEVELS + bytes.fromhex(POSITIVE[1:]) * (LEVELS + 1))
    strength = bytes(round(255 * abs(level) / LEVELS) for level in range(-LEVELS, LEVELS + 1))
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True, transparency=strength)
    return png.getvalue()


def _picture(group: Group, correlation: Sequence[Sequence[float]]) -> str:
    data = base64.b64encode(map_of(correlation)).decode()
    alt = html.escape(f"Correlations of the dimensions of {group.label}")
    return f'<img class="map" alt="{alt}" src="data:image/png;base64,{data}"/>'


def _largest(group: Group) -> str:
    largest = group.runs[0].spectra.get("summary", {}).get("largest_correlation")
    return "" if largest is None or not math.isfinite(largest) else f": at most {largest:.2f} off the diagonal"
