"""The colors of pages and figures, each as it is on a light page and on a dark one."""

# Text has a contrast of 4.5 with its page at least, lines have 3.
COLORS: dict[str, tuple[str, str]] = {
    "ink": ("#22262e", "#e4e6eb"),
    "soft": ("#5c6370", "#a2a9b6"),  # text that is second in rank
    "axis": ("#9aa0aa", "#666e7c"),
    "line": ("#dfe2e8", "#343942"),
    "grid": ("#e8eaee", "#282c34"),
    "paper": ("#ffffff", "#16181d"),
    "ground": ("#f4f5f7", "#0e1013"),  # around the paper
    "tint": ("#f7f8fa", "#1d2026"),  # behind code
    "accent": ("#b0431e", "#ee7d54"),
    "alarm": ("#fbf1ed", "#2d1f1a"),
    # Curves. Any two differ by 0.09 in OKLab at least, also for readers who do not see red, green or blue
    # (simulated as in Machado et al., 2009).
    "series-1": ("#737a88", "#a3abba"),
    "series-2": ("#b4451f", "#ee7d55"),
    "series-3": ("#1a2f90", "#649ffe"),
    "series-4": ("#59a274", "#8fd18f"),
    "series-5": ("#572350", "#7f64dd"),
    "series-6": ("#c87701", "#eebd0a"),
    "series-7": ("#0e64ae", "#83e2fb"),
    "series-8": ("#7d4773", "#ba628c"),
}
SERIES = tuple(name for name in COLORS if name.startswith("series-"))
# From the first layer to the last; from least to largest. They do for light pages and for dark ones.
RAMP = ("#3569c0", "#6a5cc2", "#9a4fb3", "#bd4a8f", "#cf5465", "#d4683b", "#c98414")
NEGATIVE, POSITIVE = "#2f7fd0", "#d9591f"


def variable(name: str) -> str:
    """The color as a style sheet refers to it: the page's, or the light one where no page has set it."""
    return f"var(--{name}, {COLORS[name][0]})"


def variables(dark: bool) -> str:
    """The declarations of all colors."""
    return " ".join(f"--{name}: {colors[dark]};" for name, colors in COLORS.items())
