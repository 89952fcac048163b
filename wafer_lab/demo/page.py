"""Answers as HTML: everything that comes from outside is escaped, and no style or picture is fetched."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from wafer_lab.demo.answer import Answer
from wafer_lab.demo.causes import SOURCES, Cause, cause_of
from wafer_lab.evaluation.palette import HOT, LEGEND, colours

# Pictures are enlarged to about this many pixels a side, by whole blocks, so that a saved one can be read again.
_SIDE = 480

_LEFT_OUT = "The set goes by probability alone; the decision rule weighs classes, too, and names one that is not in it."

#: For the page's head. Blue and vermilion are Okabe and Ito's; signs and words always say the same as colours do.
CSS = """
.gradio-container {max-width: 1080px !important; margin: 0 auto}
.wl {line-height: 1.45; color: var(--body-text-color)}
.wl h2 {font-size: 1.6rem; margin: 0; overflow-wrap: anywhere}
.wl h3 {font-size: 1rem; margin: 1.1rem 0 .35rem}
.wl p {margin: .25rem 0}
.wl .quiet {color: var(--body-text-color); opacity: .82; font-size: .875rem}
.wl .small {font-size: .875rem}
#filters, #filters .form {flex-wrap: wrap}
.wl .columns {display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 0 2rem}
.wl .wafers {display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .8rem}
.wl figure {margin: 0; flex: 1 1 200px; max-width: 340px; min-width: 0}
.wl figure img {width: 100%; aspect-ratio: 1; image-rendering: pixelated; background: #fff; padding: 4%;
  border: 1px solid var(--border-color-primary); border-radius: 8px; box-sizing: border-box; display: block}
.wl figure img.image {padding: 0; aspect-ratio: auto; image-rendering: auto}
.wl figcaption {font-size: .875rem; margin-top: .3rem}
.wl .key {display: inline-block; width: .85em; height: .85em; border: 1px solid #767676; vertical-align: -.08em}
.wl .key.ramp {width: 4em}
.wl .note {border-left: 5px solid #E69F00; background: var(--background-fill-secondary); padding: .5rem .8rem;
  margin: .8rem 0; border-radius: 4px}
.wl .error {border-left: 5px solid #D55E00; background: var(--background-fill-secondary); padding: .7rem .9rem;
  border-radius: 4px; overflow-wrap: anywhere}
.wl table {width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; border: 0 !important}
.wl tr {border: 0 !important; background: none !important}
.wl th, .wl td {text-align: left; font-weight: normal; padding: .16rem .4rem .16rem 0; border: 0 !important}
.wl .rows {contain: inline-size; overflow: auto; max-height: 30rem; border-radius: 8px;
  border: 1px solid var(--border-color-primary)}
.wl .rows th, .wl .rows td {padding: .3rem .7rem; vertical-align: top}
.wl .rows thead th {position: sticky; top: 0; background: var(--background-fill-secondary); font-weight: 600}
.wl .rows tbody tr {border-top: 1px solid var(--border-color-primary) !important}
.wl .rows .wide {overflow-wrap: anywhere; min-width: 9rem}
.wl td.number {text-align: right; white-space: nowrap; width: 4.6em}
.wl td.bar {width: 45%}
.wl td.bar div {background: var(--border-color-primary); border-radius: 3px}
.wl td.bar span {display: block; height: .8rem; border-radius: 3px; background: #0072B2; min-width: 2px}
.wl tr.chosen th, .wl tr.chosen td {font-weight: 600}
.dark .wl td.bar span {background: #56B4E9}
.wl .chip {display: inline-block; border: 1px solid var(--body-text-color); border-radius: 1em; padding: .05rem .7rem;
  margin: .15rem .3rem .15rem 0}
.wl dl {display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: .6rem; margin: 0}
.wl dl div {background: var(--background-fill-secondary); border-radius: 8px; padding: .5rem .8rem}
.wl dt {font-size: .875rem} .wl dd {margin: 0; font-size: 1.25rem; font-weight: 600; overflow-wrap: anywhere}
.wl ul {margin: .25rem 0; padding-left: 1.2rem; list-style: disc}
"""


def error_page(message: str) -> str:
    """A user's mistake, in words."""
    return _page(f'<div class="error" role="alert"><strong>Not judged.</strong> {escape(message)}</div>')


def waiting_page(text: str) -> str:
    """What to do first."""
    return _page(f'<p class="quiet">{escape(text)}</p>')


def answer_page(said: Answer, kind: str, method: str, origin: str) -> str:
    """Everything that is said of one wafer.

    Args:
        said: The answer.
        kind: `maps` or `images`.
        method: How the activation map was made.
        origin: Where the wafer comes from, such as a file's name.
    """
    head = (
        f"<h2>{escape(said.prediction)}</h2>"
        f'<p class="quiet">{escape(origin)}, {_size(said.wafer, kind)}. Decided by the rule: {escape(said.rule)}.</p>'
    )
    warning = f'<div class="note" role="note">⚠ {escape(said.warning)}</div>' if said.warning else ""
    columns = f'<div class="columns"><div>{_chances(said)}</div><div>{_set(said)}{_points_to(said)}</div></div>'
    return _page(head + warning + _figures(said, kind, method) + columns)


def chart(values: Mapping[str, float], chosen: set[str], heading: str, caption: str) -> str:
    """A table of names, bars and percents, which a screen reader reads as numbers.

    Args:
        values: Name -> share in [0, 1].
        chosen: Names that are set in bold.
        heading: Of the first column.
        caption: Of the table.
    """
    rows = "".join(
        f'<tr{_class(name in chosen)}><th scope="row">{escape(name)}</th>'
        f'<td class="bar" aria-hidden="true"><div><span style="width:{100 * value:.1f}%"></span></div></td>'
        f'<td class="number">{escape(percent(value))}</td></tr>'
        for name, value in values.items()
    )
    return f'<table aria-label="{escape(caption)}, by {escape(heading)}">{rows}</table>'


def picture(wafer: NDArray[np.uint8], heat: NDArray[np.floating] | None, kind: str) -> str:
    """A wafer as a PNG in a data URI, each die a block of equal pixels."""
    from PIL import Image

    shown = np.zeros(wafer.shape) if heat is None else np.asarray(heat, dtype=np.float64)
    if kind == "maps":
        shown = shown * (wafer > 0)
    pixels = (colours(wafer, shown, kind) * 255).round().astype(np.uint8)
    across = max(1, _SIDE // max(wafer.shape))
    pixels = pixels.repeat(across, axis=0).repeat(across, axis=1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def legend() -> str:
    """The colours that a picture of a map may have."""
    return _page(f'<p class="small">A picture of a map has one of these colours per die: {_keys(codes=True)}</p>')


def rows_page(headers: Sequence[str], rows: Sequence[Sequence[object]], told: str) -> str:
    """A table that scrolls by itself, under a line that says what it shows.

    Args:
        headers: Of its columns.
        rows: Of its cells.
        told: The line.
    """
    top = "".join(f'<th scope="col">{escape(header)}</th>' for header in headers)
    wide = [' class="wide"' if header in ("file", "error") else "" for header in headers]
    body = "".join(
        f"<tr>{''.join(f'<td{css}>{escape(str(cell))}</td>' for css, cell in zip(wide, row, strict=True))}</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    scrolling = f'<div class="rows" role="region" aria-label="Answers" tabindex="0">{table}</div>' if rows else ""
    return _page(f"<p>{escape(told)}</p>{scrolling}")


def _keys(codes: bool = False) -> str:
    """Swatches of the die states, with their colours' codes if asked for."""
    return "".join(
        f'<span class="key" style="background:{colour}"></span> {escape(state)}{f" {colour}" if codes else ""}&ensp;'
        for state, colour in LEGEND.items()
    )


def percent(share: float) -> str:
    """One decimal, but never 0 for something nor 100 for less than all."""
    if 0 < share < 0.001:
        return "<0.1 %"
    return ">99.9 %" if 0.999 < share < 1 else f"{100 * share:.1f} %"


def _page(inside: str) -> str:
    return f'<div class="wl">{inside}</div>'


def _class(chosen: bool) -> str:
    return ' class="chosen"' if chosen else ""


def _size(wafer: NDArray[np.uint8], kind: str) -> str:
    height, width = wafer.shape
    if kind == "images":
        return f"{height:,} &times; {width:,} pixels"
    dies = int((wafer > 0).sum())
    return f"{height} &times; {width} cells, {dies:,} dies, {int((wafer == 2).sum()):,} of them fail"


def _figures(said: Answer, kind: str, method: str) -> str:
    what = "wafer map" if kind == "maps" else "image"
    css = ' class="image"' if kind == "images" else ""
    keys = _keys() if kind == "maps" else "The image"
    plain = (
        f'<figure><img{css} src="{picture(said.wafer, None, kind)}" alt="The {what}, '
        f'{_size(said.wafer, kind)}"><figcaption>{keys}</figcaption></figure>'
    )
    if said.heat is None:
        return f'<div class="wafers">{plain}</div><p class="quiet">This model cannot show where it looks.</p>'
    ramp = ",".join(f"rgb({r} {g} {b})" for r, g, b in ((_cold_pass() * 255).round(), (HOT[1] * 255).round()))
    ramp = f'<span class="key ramp" style="background:linear-gradient(90deg,{ramp})"></span>'
    shown = escape(said.looked_for)
    nothing = "" if said.heat.any() else ": nothing does"
    heated = (
        f'<figure><img{css} src="{picture(said.wafer, said.heat, kind)}" alt="The same, with what speaks for {shown} '
        f'in orange"><figcaption>What speaks for {shown}{nothing}: little {ramp} much'
        f' <span class="quiet">({escape(method)})</span></figcaption></figure>'
    )
    return f'<div class="wafers">{plain}{heated}</div>'


def _cold_pass() -> NDArray[np.float64]:
    return np.asarray(colours(np.ones((1, 1)), np.zeros((1, 1)), "maps")[0, 0])


def _chances(said: Answer) -> str:
    chosen = set(said.prediction.split("+"))
    table = chart(said.probabilities, chosen, "class", "Calibrated probabilities")
    return f"<h3>Calibrated probabilities</h3>{table}"


def _set(said: Answer) -> str:
    chips = "".join(f'<span class="chip">{escape(name)}</span>' for name in said.sets.names)
    none = "empty: no class is probable enough, which is a sign of a wafer unlike those the model knows"
    left_out = [
        name for name in said.prediction.split("+") if name in said.probabilities and name not in said.sets.names
    ]
    rule = f" {_LEFT_OUT}" if left_out else ""
    return f'<h3>Prediction set</h3><p>{chips or none}</p><p class="quiet">{escape(said.sets.promise)}{rule}</p>'


def _points_to(said: Answer) -> str:
    """What is publicly known of the patterns that were named."""
    known = [(name, cause) for name in said.prediction.split("+") if (cause := cause_of(name))]
    if not known:
        return ""
    items = "".join(f"<li><strong>{escape(name)}.</strong> {_cause(cause)}</li>" for name, cause in known)
    cited = [key for key in SOURCES if any(key in cause.sources for _, cause in known)]
    sources = "".join(f"<li>{escape(key)}: {escape(SOURCES[key])}</li>" for key in cited)
    return (
        "<h3>What such a pattern usually points to</h3>"
        '<p class="quiet">Illustrative, from public literature; not a diagnosis of this wafer.</p>'
        f'<ul>{items}</ul><ul class="quiet">{sources}</ul>'
    )


def _cause(cause: Cause) -> str:
    return f"{escape(cause.text)} [{escape('; '.join(cause.sources))}]"
