"""``draw``: the recorded graph as a picture (SVG, laid out here) or as text for Graphviz (DOT)."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

from .draw_boxes import Box, Picture, picture
from .draw_graph import named
from .draw_layout import Placement, place
from .tensor import Tensor

Format = Literal["svg", "dot"]

MOST = 2000  # boxes of an SVG; the beginning of a larger graph becomes one box

_TITLE, _LINE = 13.0, 11.0  # font sizes
_PADDING = 10.0
_MARGIN = 24.0
_LONGEST = 44  # characters of a title or line

# Fill, stroke and text of each class of box, on a light and on a dark ground.
_COLORS = {
    "operation": (("#f6f8fa", "#6e7781", "#1f2328"), ("#21262d", "#8b949e", "#e6edf3")),
    "parameter": (("#ddf4ff", "#0969da", "#0a3069"), ("#10233f", "#4493f8", "#cae8ff")),
    "frozen": (("#eaecef", "#afb8c1", "#656d76"), ("#1c2026", "#565d66", "#8b949e")),
    "module": (("#fbefff", "#8250df", "#3e1f79"), ("#271c3f", "#a371f7", "#e2c5ff")),
    "rest": (("#fff8c5", "#9a6700", "#4d2d00"), ("#2e2a1f", "#d29922", "#f8e3a1")),
    "output": (("#dafbe1", "#1a7f37", "#044f1e"), ("#12261e", "#3fb950", "#aff5b4")),
    "unreached": (("#ffebe9", "#cf222e", "#82071e"), ("#3a1d1d", "#f85149", "#ffdcd7")),
}
_MEANINGS = {
    "operation": "operation",
    "parameter": "parameter or other leaf",
    "module": "module, folded",
    "frozen": "frozen: no gradient",
    "unreached": "requires a gradient, not reached",
    "rest": "left out",
    "output": "output",
}
_GROUND = (("#ffffff", "#57606a"), ("#0d1117", "#8b949e"))


@overload
def draw(
    outputs: Tensor | Sequence[Tensor],
    path: None = None,
    *,
    params: Any = None,
    fold: int | None = None,
    format: Format | None = None,
) -> str: ...
@overload
def draw(
    outputs: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    *,
    params: Any = None,
    fold: int | None = None,
    format: Format | None = None,
) -> None: ...
def draw(
    outputs: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str] | None = None,
    *,
    params: Any = None,
    fold: int | None = None,
    format: Format | None = None,
) -> str | None:
    """Draws the graph that was recorded for ``outputs``, from the leaves at the top to the outputs at the bottom.

    A box says the operation and the shape of its result, a leaf its name and shape. What needs no gradient is grey: the
    operands of recorded operations that are constants or frozen parameters, and, apart from the graph, those frozen
    parameters of ``params`` that no recorded operation has kept. Parameters that require a gradient but do not lead to
    ``outputs`` are shown in red. Draw before ``backward``, which lets go of the constants.

    Args:
        outputs: a tensor with a history, such as a loss, or several.
        path: the file to write, ``.svg`` or ``.dot`` (also ``.gv``).
        params: the names of parameters: a dictionary of tensors, pairs as ``named_parameters()`` gives them, or a
            module.
        fold: puts the operations of a module into one box, taking the first ``fold`` parts of the dotted names for the
            module; 0 for one box an operation. None folds graphs of more than 60 boxes, as deep as leaves at most 60
            if a depth does, and puts rows of unnamed operations into one box too. The beginning of a graph that still
            has very many boxes is left out, and a note says so.
        format: "svg" or "dot" where the path does not say; SVG without both.

    Returns:
        The text without a ``path``; None with one.

    Raises:
        TypeError: ``outputs`` are no tensors, or ``params`` no names and tensors.
        RuntimeError: an output does not require a gradient.
        ValueError: no outputs, a negative ``fold``, or a format that is neither.
    """
    tensors = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if not tensors:
        raise ValueError("draw: outputs is empty; give it the loss, or a list of tensors")
    for number, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"draw: outputs are tensors, but output {number} is {type(tensor).__name__}")
        if not tensor.requires_grad:
            raise RuntimeError(
                f"draw: output {number} does not require grad and does not have a grad_fn, so no graph was recorded; "
                "is some parameter's requires_grad True, and was it computed outside of no_grad()?"
            )
    if fold is not None and (isinstance(fold, bool) or not isinstance(fold, int) or fold < 0):
        raise ValueError(f"draw: fold is None or a whole number from 0 on, not {fold!r}")
    kind = _format(path, format)
    shown = picture(tensors, named(params), fold, MOST if kind == "svg" else None)
    text = _svg(shown) if kind == "svg" else _dot(shown)
    if path is None:
        return text
    Path(path).write_text(text, encoding="utf-8")
    return None


def _format(path: str | os.PathLike[str] | None, format: str | None) -> str:
    suffix = "" if path is None else Path(path).suffix.lower()
    kind = format or {".svg": "svg", ".dot": "dot", ".gv": "dot"}.get(suffix, "svg" if path is None else suffix)
    if kind not in ("svg", "dot"):
        said = f"format={format!r}" if format else f"the path {str(path)!r}"
        raise ValueError(f'draw: the format is "svg" or "dot" (as is the end of a path), but {said} says neither')
    return kind


# ----------------------------------------------------------------------------------------------------------------- SVG


def _svg(shown: Picture) -> str:
    sizes = [_size(box) for box in shown.boxes]
    graph = place(sizes, shown.edges, _beside(shown))
    panels = [
        _panel(shown.frozen, "frozen", "frozen, not in the graph", graph.width),
        _panel(shown.unreached, "unreached", "require a gradient, but do not lead here", graph.width),
    ]
    panels = [panel for panel in panels if panel[0]]
    legend, legend_width, legend_height = _legend(shown)
    width = (
        max(graph.width, legend_width, *(panel[1] for panel in panels)) if panels else max(graph.width, legend_width)
    )
    parts: list[str] = []
    y = _MARGIN
    for text, panel_width, panel_height in panels:
        parts.append(f'<g transform="translate({_n(_MARGIN + (width - panel_width) / 2)} {_n(y)})">{text}</g>')
        y += panel_height + 22
    x = _MARGIN + (width - graph.width) / 2
    parts.append(f'<g transform="translate({_n(x)} {_n(y)})">')
    parts += _arrows(shown, graph)
    parts += [_drawn(box, f"n{i}", graph.centres[i], sizes[i]) for i, box in enumerate(shown.boxes)]
    parts.append("</g>")
    y += graph.height + 24
    parts.append(f'<g transform="translate({_n(_MARGIN)} {_n(y)})">{legend}</g>')
    y += legend_height
    operations = sum(box.kind == "operation" for box in shown.boxes)
    title = f"Recorded graph: {operations} operations in {len(shown.boxes)} boxes, {len(shown.edges)} arrows"
    whole = f"{_n(width + 2 * _MARGIN)} {_n(y + _MARGIN)}"
    size = 'width="{}" height="{}"'.format(*whole.split())
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole}" {size} role="img">',
            f"<title>{title}</title>",
            f"<style>{_style()}</style>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="head" d="M0 0.5 L8 4 L0 7.5 z"/></marker></defs>',
            '<rect class="ground" width="100%" height="100%"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _beside(shown: Picture) -> list[bool]:
    """Which boxes stand beside the main line: parameters, steps made of one alone (a transposed weight), constants.

    Not so what the main line begins with: a parameter on a way without other inputs, the batch of a first layer.
    """
    inputs: list[list[int]] = [[] for _ in shown.boxes]
    users: list[list[int]] = [[] for _ in shown.boxes]
    for source, target in shown.edges:
        inputs[target].append(source)
        users[source].append(target)
    made: list[bool] = []  # of one parameter
    for box, sources in zip(shown.boxes, inputs, strict=True):
        made.append(box.kind == "parameter" or (len(sources) == 1 and made[sources[0]]))
    beside = [False] * len(made)
    for number in range(len(made) - 1, -1, -1):
        if made[number]:
            beside[number] = all(beside[user] or len(inputs[user]) > 1 for user in users[number])
        elif shown.boxes[number].kind == "constant":
            others = {source for user in users[number] for source in inputs[user]} - {number}
            beside[number] = any(not made[source] for source in others)
    return beside


def _style() -> str:
    def rules(theme: int) -> str:
        ground, line = _GROUND[theme]
        found = [f".ground{{fill:{ground}}}.edge{{stroke:{line}}}.head{{fill:{line}}}.note{{fill:{line}}}"]
        for name, colors in _COLORS.items():
            fill, stroke, text = colors[theme]
            found.append(f".{name} rect{{fill:{fill};stroke:{stroke}}}.{name} text{{fill:{text}}}")
        return "".join(found)

    return (
        "text{font-family:Helvetica,Arial,'Liberation Sans',sans-serif;text-anchor:middle}"
        f".t{{font-size:{_TITLE:.0f}px;font-weight:600}}.l,.note{{font-size:{_LINE:.0f}px}}.note{{text-anchor:start}}"
        ".edge{fill:none;stroke-width:1.2}.dashed rect,.edge.dashed{stroke-dasharray:4 3}.panel{fill:none}"
        + rules(0)
        + "@media (prefers-color-scheme:dark){"
        + rules(1)
        + "}"
    )


def _class(box: Box) -> str:
    if box.kind == "constant" or box.frozen:
        return "frozen"
    return {"run": "rest"}.get(box.kind, box.kind)


def _size(box: Box) -> tuple[float, float]:
    widths = [_width(_short(box.title), _TITLE) * 1.1] + [_width(_short(line), _LINE) for line in box.lines]
    return max(56.0, max(widths) + 2 * _PADDING), 12.0 + 17.0 + 14.0 * len(box.lines)


def _drawn(box: Box, name: str, centre: tuple[float, float], size: tuple[float, float], look: str = "") -> str:
    """A box with its text; what does not fit and the names of parameters are in its tooltip."""
    (x, y), (width, height) = centre, size
    kind = look or _class(box)
    radius = {"output": height / 2, "parameter": 3.0, "frozen": 3.0}.get(kind, 7.0)
    classes = f"node {kind}" + " dashed" * (kind in ("frozen", "rest"))
    left, top = x - width / 2, y - height / 2
    tooltip = _xml("\n".join([box.title, *box.lines, *box.names]))
    parts = [f'<g id="{name}" class="{classes}"><title>{tooltip}</title>']
    if box.several:  # a stack
        parts.append(_rect(left + 3, top + 3, width, height, radius))
    parts.append(_rect(left, top, width, height, radius))
    parts.append(f'<text class="t" x="{_n(x)}" y="{_n(top + 19)}">{_xml(_short(box.title))}</text>')
    for number, line in enumerate(box.lines):
        parts.append(f'<text class="l" x="{_n(x)}" y="{_n(top + 34 + 14 * number)}">{_xml(_short(line))}</text>')
    return "".join([*parts, "</g>"])


def _rect(x: float, y: float, width: float, height: float, radius: float) -> str:
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="{_n(radius)}"/>'


def _arrows(shown: Picture, graph: Placement) -> list[str]:
    """The edges as splines, upright where they leave, pass and enter."""
    found = []
    for (source, target), line in zip(shown.edges, graph.lines, strict=True):
        commands = [f"M{_n(line[0][0])} {_n(line[0][1])}"]
        for number, ((x0, y0), (x1, y1)) in enumerate(itertools.pairwise(line)):
            if number % 2:  # through a layer
                commands.append(f"L{_n(x1)} {_n(y1)}")
            else:
                bend = (y1 - y0) / 2
                commands.append(f"C{_n(x0)} {_n(y0 + bend)} {_n(x1)} {_n(y1 - bend)} {_n(x1)} {_n(y1)}")
        dashed = " dashed" * (shown.boxes[source].kind == "constant")
        ends = f'data-from="n{source}" data-to="n{target}"'
        found.append(f'<path class="edge{dashed}" {ends} marker-end="url(#arrow)" d="{"".join(commands)}"/>')
    return found


def _panel(boxes: list[Box], look: str, heading: str, room: float) -> tuple[str, float, float]:
    """Boxes in rows inside a frame; the text, its width and its height."""
    if not boxes:
        return "", 0.0, 0.0
    room = max(room, 480.0)
    parts, x, y, row, width = [], _PADDING, 28.0, 0.0, 0.0
    for number, box in enumerate(boxes):
        size = _size(box)
        if x > _PADDING and x + size[0] + _PADDING > room:
            x, y, row = _PADDING, y + row + 12, 0.0
        parts.append(_drawn(box, f"{look}{number}", (x + size[0] / 2, y + size[1] / 2), size, look))
        x, row = x + size[0] + 14, max(row, size[1])
        width = max(width, x - 14 + _PADDING + 3)
    width, height = max(width, _width(heading, _LINE) + 2 * _PADDING), y + row + _PADDING + 3
    frame = f'<rect class="edge dashed panel" width="{_n(width)}" height="{_n(height)}" rx="9"/>'
    label = f'<text class="note" x="{_n(_PADDING)}" y="18">{_xml(heading)}</text>'
    return "".join([frame, label, *parts]), width, height


def _legend(shown: Picture) -> tuple[str, float, float]:
    """What the colours that occur mean, and the notes; the text, its width and its height."""
    looks = {_class(box) for box in shown.boxes}
    looks |= {"frozen"} if shown.frozen else set()
    looks |= {"unreached"} if shown.unreached else set()
    parts, x, y = [], 0.0, 12.0
    runs = any(box.kind == "run" for box in shown.boxes)
    for look, meaning in _MEANINGS.items():
        if look in looks:
            meaning = "several operations" if look == "rest" and runs else meaning
            parts.append(f'<g class="{look}">{_rect(x, y - 10, 16, 12, 3)}</g>')
            parts.append(f'<text class="note" x="{_n(x + 22)}" y="{_n(y)}">{_xml(meaning)}</text>')
            x += 22 + _width(meaning, _LINE) + 18
    width = x
    for note in ["Arrows follow the computation; gradients go against them.", *shown.notes]:
        y += 18
        parts.append(f'<text class="note" x="0" y="{_n(y)}">{_xml(note)}</text>')
        width = max(width, _width(note, _LINE))
    return "".join(parts), width, y


def _n(value: float) -> str:
    """A coordinate, as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")


_NARROW, _WIDE = set("iljtfrI.,:;'|!()[] "), set("mwMW@%")


def _width(text: str, size: float) -> float:
    """About how wide ``text`` is in a sans-serif font; enough for the wide ones among them, such as DejaVu."""
    total = 0.0
    for character in text:
        if character in _NARROW:
            total += 0.38
        elif character in _WIDE:
            total += 0.95
        elif unicodedata.east_asian_width(character) in "WF":
            total += 1.0
        else:
            total += 0.72 if character.isupper() else 0.63
    return total * size


def _short(text: str) -> str:
    """The beginning and, as it tells more in a dotted name, more of the end of a long text."""
    if len(text) <= _LONGEST:
        return text
    return text[: _LONGEST // 3] + "…" + text[-(_LONGEST - _LONGEST // 3 - 1) :]


def _writable(text: str) -> str:
    """Without the characters that XML 1.0 has no way to write, escaped or not: controls and halves of surrogates."""
    if text.isprintable():
        return text
    ranges = ((" ", "\ud7ff"), ("\ue000", "\ufffd"), ("\U00010000", "\U0010ffff"))
    return "".join(c if c in "\t\n\r" or any(a <= c <= z for a, z in ranges) else "\ufffd" for c in text)


def _xml(text: str) -> str:
    return _writable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# ----------------------------------------------------------------------------------------------------------------- DOT


def _dot(shown: Picture) -> str:
    lines = [
        "digraph recorded {",
        f"  label={_quoted(_dot_note(shown))}; labelloc=b; fontname=Helvetica; fontsize=11; rankdir=TB;",
        '  node [shape=box, style="rounded,filled", fontname=Helvetica, fontsize=11];',
        '  edge [color="#57606a", arrowsize=0.7];',
    ]
    lines += [f"  {_dot_node(f'n{number}', box, _class(box))}" for number, box in enumerate(shown.boxes)]
    for source, target in shown.edges:
        dashed = " [style=dashed]" if shown.boxes[source].kind == "constant" else ""
        lines.append(f"  n{source} -> n{target}{dashed};")
    panels = (("frozen", "frozen, not in the graph", shown.frozen), ("unreached", "not reached", shown.unreached))
    for look, heading, boxes in panels:
        if boxes:
            lines.append(f"  subgraph cluster_{look} {{")
            lines.append(f"    label={_quoted(heading)}; style=dashed;")
            lines += [f"    {_dot_node(f'{look}{number}', box, look)}" for number, box in enumerate(boxes)]
            lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _dot_note(shown: Picture) -> str:
    return "\n".join(["Arrows follow the computation; gradients go against them.", *shown.notes])


def _dot_node(name: str, box: Box, look: str) -> str:
    fill, stroke, text = _COLORS[look][0]
    label, tooltip = "\n".join([box.title, *box.lines]), "\n".join([box.title, *box.lines, *box.names])
    style = ' style="rounded,filled,dashed",' if look in ("frozen", "rest") else ""
    colors = f'fillcolor="{fill}", color="{stroke}", fontcolor="{text}"'
    return f"{name} [label={_quoted(label)},{style} {colors}, tooltip={_quoted(tooltip)}];"


def _quoted(text: str) -> str:
    """A string of DOT, in which a backslash begins an escape and a line end is written as one."""
    return '"' + _writable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
