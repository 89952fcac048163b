"""A Markdown report as one HTML file that can be mailed: its pictures inside, no script, nothing fetched."""

import base64
import html
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from wafer_lab.files import write_text

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1c1c1c; background: #fff;
  max-width: 76rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #d5d5d5; padding-bottom: .25rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; margin: 1rem 0; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #999; white-space: nowrap; }
td { white-space: nowrap; }
table:has(th:nth-child(6)) { font-size: .78rem; }
td:nth-child(2):last-child { white-space: normal; overflow-wrap: anywhere; }
img { max-width: min(100%, 56rem); height: auto; display: block; margin: 1.5rem auto .25rem; }
p > em:only-child { display: block; text-align: center; color: #555; font-size: .875rem; }
code { font: .875em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { background: #f5f5f5; padding: .75rem 1rem; overflow-x: auto; border-radius: 4px; }
pre code { white-space: pre-wrap; }
a { color: #0060a8; }
@media print { body { max-width: none; margin: 0; } h2 { break-after: avoid; } img, tr { break-inside: avoid; } }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""


def write_html(report: Path) -> Path:
    """Write ``report.html`` beside a Markdown report.

    Args:
        report: the ``report.md`` of a run; its pictures lie where it says.

    Returns:
        What a person opens: the page, or the report where markdown-it-py is not installed.
    """
    if find_spec("markdown_it") is None:
        return report
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    text = report.read_text(encoding="utf-8")
    tokens = parser.parse(text)
    for token in tokens:
        for child in token.children or []:
            if child.type == "image":
                child.attrSet("src", _inline(report.parent, str(child.attrGet("src"))))
    body: Any = parser.renderer.render(tokens, parser.options, {})
    return write_text(report.with_suffix(".html"), page(text.partition("\n")[0].lstrip("# "), body))


def page(title: str, body: str, style: str = "") -> str:
    """A whole page that fetches nothing and runs no script.

    Args:
        title: Plain text.
        body: HTML.
        style: CSS beside that of every report.
    """
    return _PAGE.format(policy=_POLICY, title=html.escape(title), style=_STYLE + style, body=body)


def _inline(folder: Path, source: str) -> str:
    """A picture of the report's folder as a data address; any other address is dropped."""
    file = folder / unquote(source)
    if not file.is_file() or folder.resolve() not in file.resolve().parents:
        return ""
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
