"""The frame and the style sheet of every page: reports and live pages."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
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

STYLE = """
:root { color-scheme: light; --ink: #22262e; --soft: #646b78; --line: #dfe2e8; --paper: #fff; --accent: #b4451f; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f5f7; color: var(--ink); font: 16px/1.55 Charter, Georgia, "Times New Roman", serif; }
main { max-width: 61rem; margin: 2.5rem auto; padding: 3rem 3.5rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: 4px; }
h1 { font-size: 1.85rem; line-height: 1.2; margin: 0 0 .4rem; }
.alarm { margin: 1rem 0 0; padding: .6rem .9rem; border-left: 4px solid var(--accent); background: #fbf1ed; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
.lead { color: var(--soft); margin: 0; }
p { max-width: 46rem; }
.note { color: var(--soft); font-size: .9rem; }
table { border-collapse: collapse; width: 100%; font: 14px/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid var(--ink); }
tbody th { font-weight: 400; }
td.difference { color: var(--soft); }
tr.headline > * { font-weight: 600; }
figure { margin: 1rem 0; }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
pre { overflow-x: auto; padding: 1rem; background: #f7f8fa; border: 1px solid var(--line); font-size: 12.5px;
  line-height: 1.45; }
@media (max-width: 50rem) { main { margin: 0; padding: 1.5rem; border: 0; } table { font-size: 12px; } }
@media print { body { background: #fff; } main { margin: 0; border: 0; padding: 0; } }
"""
