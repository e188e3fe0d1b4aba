"""What a method has learned to draw: the pictures that its run has left."""

import base64
import html
from collections.abc import Sequence

from ..groups import Group
from .panels import LARGE, Panel, side_by_side

MOST = 6


def illustrations(groups: Sequence[Group]) -> str:
    """Those of the first run of each group; empty where none has any."""
    shown = [group for group in groups if group.runs[0].illustration]
    panels = [Panel(group.label, _picture(group.label, group.runs[0].illustration)) for group in shown[:MOST]]
    notes = []
    if len(shown) > MOST:
        notes.append(f"{MOST} of {len(shown)} groups are shown.")
    if any(len(group.runs) > 1 for group in shown):
        notes.append("Of each group the first run is shown.")
    return side_by_side(panels, LARGE, "".join(f'<p class="note">{note}</p>' for note in notes))


def _picture(label: str, png: bytes) -> str:
    alt = html.escape(f"Test pictures, masked, and reconstructed by {label}")
    return f'<img class="map" alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}"/>'
