"""The frame and the style sheet of every page: reports, live pages, propagation. Nothing is loaded from elsewhere."""

import html

from .palette import variables

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{head}<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="lead">{lead}</p>
{alarms}
{sections}
</main>
</body>
</html>
"""

STYLE = f"""
:root {{ color-scheme: light; {variables(dark=False)} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark; {variables(dark=True)} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.55 Charter, "Bitstream Charter", Georgia, "Times New Roman", serif; }}
main {{ max-width: 62rem; margin: 2.5rem auto; padding: 3rem 3.5rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: 4px; }}
h1 {{ font-size: 1.85rem; line-height: 1.2; margin: 0 0 .4rem; text-wrap: balance; }}
h2 {{ font-size: 1.2rem; margin: 2.8rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 1.6rem 0 .4rem; }}
p {{ max-width: 46rem; }}
a {{ color: var(--accent); }}
:focus-visible {{ outline: 2px solid var(--accent); outline-offset: 2px; }}
.lead {{ color: var(--soft); margin: 0; }}
.note {{ color: var(--soft); font-size: .9rem; }}
.alarm {{ margin: 1rem 0 0; padding: .6rem .9rem; border-left: 4px solid var(--accent); background: var(--alarm); }}
/* The shade at the right says that a table goes on there; where it ends the first layer, which scrolls along, hides it. */
.wide {{ overflow-x: auto; margin: 1rem 0;
  background: linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--line), transparent) right / 1rem 100% no-repeat scroll; }}
.wide th:first-child {{ position: sticky; left: 0; background: var(--paper); }}
table {{ border-collapse: separate; border-spacing: 0; width: 100%; font: 14px/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: .38rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: baseline; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
thead th {{ border-bottom: 2px solid var(--ink); vertical-align: bottom; }}
td {{ white-space: nowrap; }}
tbody th {{ font-weight: 400; min-width: 8rem; }}
td.difference {{ color: var(--soft); }}
tr.headline > * {{ font-weight: 600; }}
figure {{ margin: 1rem 0; }}
figure > svg, figure > img {{ width: 100%; height: auto; display: block; }}
figcaption {{ color: var(--soft); font-size: .9rem; max-width: 46rem; }}
.legend {{ display: flex; flex-wrap: wrap; gap: .15rem 1.3rem; margin: .4rem 0 .9rem; padding: 0; list-style: none;
  font: 13px/1.5 system-ui, sans-serif; }}
.legend li {{ display: flex; align-items: center; gap: .45rem; min-width: 0; }}
.legend span {{ min-width: 0; overflow-wrap: anywhere; }}
.swatch {{ flex: none; width: 28px; height: 12px; vertical-align: -1px; }}
.legend .ramp {{ flex: none; width: 6rem; height: 8px; border-radius: 4px; }}
.panels {{ --least: 15rem; display: grid; gap: 1.3rem 1.6rem; margin: .6rem 0 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--least)), 1fr)); }}
.panels.small {{ --least: 9rem; gap: .9rem 1rem; }}
.panels.large {{ --least: 22rem; }}
.panels figure {{ display: flex; flex-direction: column; justify-content: flex-end; margin: 0; min-width: 0; }}
.panels figcaption {{ color: var(--ink); margin-bottom: .25rem; font: 600 13px/1.4 system-ui, sans-serif; }}
.panels.small figcaption {{ font-size: 11.5px; font-weight: 500; }}
.panels svg {{ overflow: visible; }}
.panels .map {{ image-rendering: pixelated; border: 1px solid var(--line); }}
details {{ margin: .6rem 0; }}
summary {{ cursor: pointer; }}
pre {{ overflow-x: auto; padding: 1rem; background: var(--tint); border: 1px solid var(--line); font-size: 12.5px;
  line-height: 1.45; }}
@media (max-width: 50rem) {{
  main {{ margin: 0; padding: 1.4rem 1.1rem 2rem; border: 0; }}
  h1 {{ font-size: 1.5rem; }}
  table {{ font-size: 12.5px; }}
}}
@media print {{
  @page {{ size: A4; margin: 16mm 14mm; }}
  body {{ background: none; font-size: 10.5pt; }}
  main {{ max-width: none; margin: 0; padding: 0; border: 0; }}
  h2, h3, thead, .legend {{ break-after: avoid; }}
  tr, .alarm, .legend, .panels figure, figcaption {{ break-inside: avoid; }}
  figure > .panels + figcaption {{ break-before: avoid; }}
  thead {{ display: table-header-group; }}
  .panels {{ --least: 11rem; gap: 1rem; }}
  .panels.small {{ --least: 6rem; }}
  .panels.large {{ --least: 16rem; }}
  .wide, pre {{ overflow: visible; }}
  .wide {{ background: none; }}
  .wide th:first-child {{ position: static; }}
  pre {{ white-space: pre-wrap; }}
  details:not([open]), section:has(> details):not(:has(> :not(h2, details:not([open])))) {{ display: none; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
}}
"""


def figure(drawn: str, title: str, caption: str) -> str:
    """A plot and the words below it; `drawn` is what the functions of plots return."""
    return (
        f'<figure role="group" aria-label="{html.escape(title)}">{drawn}'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def section(title: str, *parts: str) -> str:
    """A part of the page under its heading."""
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def note(text: str) -> str:
    """A sentence of small print."""
    return f'<p class="note">{html.escape(text)}</p>'


def details(summary: str, content: str, is_open: bool = False) -> str:
    """What is shown when its summary is clicked, or at once."""
    return f"<details{' open' * is_open}><summary>{html.escape(summary)}</summary>{content}</details>"
