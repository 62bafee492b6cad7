"""``draw``: what the pictures show is the graph, and they can be read."""

from __future__ import annotations

import itertools
import re
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import distgrad
from distgrad import Tensor, nn
from distgrad.autograd import draw
from distgrad.autograd.draw_boxes import picture
from distgrad.autograd.draw_graph import read
from distgrad.autograd.draw_layout import place
from distgrad.autograd.engine import AccumulateGrad
from distgrad.models import resnet18

SVG = "{http://www.w3.org/2000/svg}"


class Drawn:
    """An SVG, parsed: its boxes by id and its arrows."""

    def __init__(self, text: str) -> None:
        self.root = ElementTree.fromstring(text)
        groups = [group for group in self.root.iter(f"{SVG}g") if group.get("id")]
        self.classes = {group.get("id", ""): set(group.get("class", "").split()) for group in groups}
        self.titles = {group.get("id", ""): group.findall(f"{SVG}text")[0].text or "" for group in groups}
        self.tooltips = {group.get("id", ""): group.findall(f"{SVG}title")[0].text or "" for group in groups}
        self.lines = {group.get("id", ""): [t.text or "" for t in group.findall(f"{SVG}text")[1:]] for group in groups}
        self.rects = {group.get("id", ""): group.findall(f"{SVG}rect")[-1].attrib for group in groups}
        self.edges = [
            (path.get("data-from", ""), path.get("data-to", ""))
            for path in self.root.iter(f"{SVG}path")
            if path.get("data-from")
        ]
        self.notes = [t.text or "" for t in self.root.iter(f"{SVG}text") if t.get("class") == "note"]

    def of(self, title: str) -> str:
        (found,) = [name for name, text in self.titles.items() if text == title]
        return found


def mlp() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    loss = nn.functional.cross_entropy(model(distgrad.randn(5, 4)), distgrad.tensor([0, 1, 2, 0, 1]))
    return model, loss


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return distgrad.randn(2, 3, 32, 32), distgrad.tensor([1, 2])


@pytest.fixture(scope="module")
def resnet(images: tuple[Tensor, Tensor]) -> tuple[nn.Module, Tensor]:
    model = resnet18(num_classes=5)
    return model, nn.functional.cross_entropy(model(images[0]), images[1])


# ------------------------------------------------------------------------------------------------------------- contents


def structure(titles: dict[str, str], edges: list[tuple[str, str]]) -> Counter[int]:
    """Every vertex as a hash of its title and, recursively, of what enters it: equal for equal graphs."""
    inputs: dict[str, list[str]] = {name: [] for name in titles}
    for source, target in edges:
        inputs[target].append(source)
    hashes: dict[str, int] = {}
    stack = list(titles)
    while stack:
        name = stack[-1]
        missing = [source for source in inputs[name] if source not in hashes]
        if missing:
            stack.extend(missing)
        else:
            hashes[name] = hash((titles[name], tuple(sorted(hashes[source] for source in inputs[name]))))
            stack.pop()
    return Counter(hashes.values())


def recorded(outputs: list[Tensor], params: dict[str, Tensor]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The graph by PyTorch's interface alone: ``grad_fn`` and ``next_functions``."""
    names = {id(tensor): name for name, tensor in params.items()}
    titles: dict[str, str] = {}
    edges: list[tuple[str, str]] = []
    stack = []
    for number, output in enumerate(outputs):
        end = f"output {number}" if len(outputs) > 1 else "output"
        titles[end] = end
        edges.append((str(id(output.grad_fn)), end))
        stack.append(output.grad_fn)
    while stack:
        node = stack.pop()
        if str(id(node)) in titles:
            continue
        leaf = isinstance(node, AccumulateGrad)
        titles[str(id(node))] = names.get(id(node.variable), "leaf") if leaf else node.name().removesuffix("Backward0")
        for following, _ in node.next_functions:
            if following is not None:
                edges.append((str(id(following)), str(id(node))))
                stack.append(following)
    return titles, edges


def without_constants(drawn: Drawn) -> tuple[dict[str, str], list[tuple[str, str]]]:
    titles = {name: title for name, title in drawn.titles.items() if "frozen" not in drawn.classes[name]}
    return titles, [edge for edge in drawn.edges if edge[0] in titles]


def test_the_arrows_are_the_edges_of_the_graph() -> None:
    model, loss = mlp()
    params = dict(model.named_parameters())
    drawn = Drawn(draw(loss, params=params))
    assert structure(*without_constants(drawn)) == structure(*recorded([loss], params))
    assert len(drawn.titles) > 10


def test_two_edges_between_the_same_nodes_are_two_arrows_and_outputs_may_be_several() -> None:
    x = distgrad.randn(3, requires_grad=True)
    y = x.exp()
    outputs = [y * y, (y + x).sum()]
    drawn = Drawn(draw(outputs, params={"x": x}))
    assert structure(*without_constants(drawn)) == structure(*recorded(outputs, {"x": x}))
    assert Counter(drawn.edges)[drawn.of("Exp"), drawn.of("Mul")] == 2


def test_the_arrows_of_a_resnet_are_the_edges_of_its_graph(resnet: tuple[nn.Module, Tensor]) -> None:
    model, loss = resnet
    params = dict(model.named_parameters())
    drawn = Drawn(draw(loss, params=model, fold=0))
    assert structure(*without_constants(drawn)) == structure(*recorded([loss], params))


def test_shapes_are_shown() -> None:
    x = distgrad.randn(3, 4, requires_grad=True)
    drawn = Drawn(draw(x.exp().sum(), params={"x": x}))
    assert drawn.lines[drawn.of("x")] == ["3×4"]
    assert drawn.lines[drawn.of("Exp")] == ["3×4"]
    assert drawn.lines[drawn.of("output")] == ["scalar"]


def test_a_leaf_without_a_name_and_an_output_that_is_a_leaf() -> None:
    x = distgrad.randn(3, requires_grad=True)
    drawn = Drawn(draw(x))
    assert sorted(drawn.titles.values()) == ["leaf", "output"]
    assert drawn.edges == [(drawn.of("leaf"), drawn.of("output"))]


@pytest.mark.parametrize("fold", [None, 0, 1, 2, 3, 9])
@pytest.mark.parametrize("format", ["svg", "dot"])
def test_every_parameter_is_named(resnet: tuple[nn.Module, Tensor], fold: int | None, format: str) -> None:
    model, loss = resnet
    text = draw(loss, params=model.named_parameters(), fold=fold, format=format)
    if format == "svg":
        text = "\n".join(Drawn(text).tooltips.values())
    for name, parameter in model.named_parameters():
        assert f"{name}" in text, name
        assert "×".join(map(str, parameter.shape)) in text


# --------------------------------------------------------------------------------------------------------------- frozen


def test_frozen_parameters_and_constants_are_grey() -> None:
    model, _ = mlp()
    model[2].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    model[4].bias.requires_grad_(False)
    loss = nn.functional.cross_entropy(model(distgrad.randn(5, 4)), distgrad.tensor([0, 1, 2, 0, 1]))
    drawn = Drawn(draw(loss, params=model))
    weight = drawn.of("2.weight")
    assert "frozen" in drawn.classes[weight] and drawn.lines[weight] == ["8×8, frozen"]
    assert [drawn.titles[target] for source, target in drawn.edges if source == weight]
    # Nothing has to keep a bias that needs no gradient, so these are apart.
    assert {"frozen"} <= drawn.classes[drawn.of("2.bias")] and {"frozen"} <= drawn.classes[drawn.of("4.bias")]
    assert not any(drawn.of("2.bias") in edge for edge in drawn.edges)
    assert "frozen, not in the graph" in drawn.notes
    for name in ("0.weight", "0.bias", "4.weight"):
        assert "parameter" in drawn.classes[drawn.of(name)]
    batch = drawn.of("constant")
    assert "frozen" in drawn.classes[batch] and drawn.lines[batch] == ["5×4 float32, no gradient"]


def test_a_frozen_backbone_is_apart_and_the_head_is_drawn(images: tuple[Tensor, Tensor]) -> None:
    model = resnet18()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.fc = nn.Linear(512, 5)
    drawn = Drawn(draw(nn.functional.cross_entropy(model(images[0]), images[1]), params=model))
    grey = {title for name, title in drawn.titles.items() if "frozen" in drawn.classes[name]}
    assert {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "constant"} == grey
    assert "parameter" in drawn.classes[drawn.of("fc.weight")]
    assert "layer3.1.bn2.bias 256, frozen" in drawn.tooltips[drawn.of("layer3")].splitlines()


def test_frozen_modules_that_a_gradient_passes_are_grey(images: tuple[Tensor, Tensor]) -> None:
    model = resnet18(num_classes=5)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("conv1", "fc")) or name == "layer3.0.conv1.weight")
    drawn = Drawn(draw(nn.functional.cross_entropy(model(images[0]), images[1]), params=model, fold=1))
    looks = {title: drawn.classes[name] for name, title in drawn.titles.items()}
    assert "frozen" in looks["layer1"] and "frozen" in looks["layer2"] and "frozen" in looks["layer4"]
    assert "module" in looks["layer3"] and "module" in looks["conv1"] and "module" in looks["fc"]
    assert "15 parameters" in drawn.lines[drawn.of("layer3")][-1] and "frozen" in drawn.lines[drawn.of("layer3")][-1]


def test_parameters_that_the_graph_does_not_reach_are_shown() -> None:
    model, loss = mlp()
    unused = distgrad.zeros(2, requires_grad=True)
    drawn = Drawn(draw(loss, params={**dict(model.named_parameters()), "unused": unused}))
    assert "unreached" in drawn.classes[drawn.of("unused")]
    assert any("do not lead here" in note for note in drawn.notes)


def test_after_backward_the_graph_is_still_drawn() -> None:
    model, loss = mlp()
    before = Drawn(draw(loss, params=model))
    loss.backward()
    after = Drawn(draw(loss, params=model))
    assert structure(*without_constants(before)) == structure(*without_constants(after))


# -------------------------------------------------------------------------------------------------------------- folding


def test_a_resnet_is_folded_to_few_boxes(resnet: tuple[nn.Module, Tensor]) -> None:
    model, loss = resnet
    drawn = Drawn(draw(loss, params=model))
    assert 10 < len(drawn.titles) <= 60
    for block in ("conv1", "layer1.0", "layer4.1", "fc"):
        assert "module" in drawn.classes[drawn.of(block)]
    box = drawn.of("layer2.0")
    assert drawn.lines[box][1:] == ["→ 2×128×4×4", "9 parameters, 230,144 values"]
    assert any("folded by module to depth 2" in note for note in drawn.notes)
    # Both ways of a residual block end in it, so that blocks follow one another.
    assert (drawn.of("layer1.0"), drawn.of("layer1.1")) in drawn.edges


def test_the_depth_is_chosen_by_fold(resnet: tuple[nn.Module, Tensor]) -> None:
    model, loss = resnet
    sizes = [len(Drawn(draw(loss, params=model, fold=depth)).titles) for depth in (1, 2, 3, 4)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[1] < sizes[2]
    assert len(Drawn(draw(loss, params=model, fold=0)).titles) > 100


class Parts(nn.Module):
    """Modules by name."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class Block(nn.Module):
    """Attention and a residual multilayer perceptron, in the order of GPT-2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out, self.up, self.down = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.query(x) @ self.key(x).transpose(-1, -2)).softmax(-1)
        x = x + self.out(weights @ self.value(x))
        return x + self.down(self.up(x).relu())


def test_a_transformer_folds_into_its_blocks() -> None:
    model = Parts(blocks=nn.Sequential(*[Block(4) for _ in range(7)]), head=nn.Linear(4, 2))
    x = distgrad.randn(3, 4)
    drawn = Drawn(draw(model.head(model.blocks(x)).sum(), params=model))
    assert len(drawn.titles) <= 60
    chain = [drawn.of(f"blocks.{number}") for number in range(7)] + [drawn.of("head")]
    assert set(itertools.pairwise(chain)) <= set(drawn.edges)
    matmuls = [name for name, title in drawn.titles.items() if title in ("Matmul", "Softmax")]
    assert not matmuls  # between query and out, so they belong to the block


def test_a_module_that_is_used_again_later_is_several_boxes() -> None:
    model = Parts(cell=nn.Linear(4, 4), read=nn.Linear(4, 4))
    x = distgrad.randn(2, 4)
    for _ in range(3):
        x = model.read(model.cell(x).tanh())
    drawn = Drawn(draw(x.sum(), params=model, fold=1))
    cells = [drawn.of(f"cell ({number} of 3)") for number in (1, 2, 3)]
    reads = [drawn.of(f"read ({number} of 3)") for number in (1, 2, 3)]
    assert "parameter" in drawn.classes[drawn.of("cell.weight")]  # which all three share
    assert {(drawn.of("cell.weight"), cell) for cell in cells} <= set(drawn.edges)
    assert reach(drawn.edges, reads[0]) >= {cells[1], reads[1], cells[2], reads[2]}
    assert cells[0] not in reach(drawn.edges, reads[0])


def test_a_recurrence_is_one_box() -> None:
    cell = Parts(input=nn.Linear(2, 4), state=nn.Linear(4, 4))
    h = distgrad.zeros(1, 4)
    for _ in range(50):
        h = (cell.input(distgrad.randn(1, 2)) + cell.state(h)).tanh()
    params = {f"cell.{name}": parameter for name, parameter in cell.named_parameters()}
    assert len(Drawn(draw(h.sum(), params=params)).titles) < 10
    drawn = Drawn(draw(h.sum(), params=params, fold=1))
    box = drawn.of("cell")
    assert drawn.lines[box][-1] == "4 parameters, 32 values"
    assert drawn.of("output") in reach(drawn.edges, box)


def reach(edges: list[tuple[str, str]], start: str) -> set[str]:
    following: dict[str, list[str]] = {}
    for source, target in edges:
        following.setdefault(source, []).append(target)
    found: set[str] = set()
    stack = [start]
    while stack:
        for target in following.get(stack.pop(), ()):
            if target not in found:
                found.add(target)
                stack.append(target)
    return found


def random_graph(seed: int, operations: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Operations on what was computed before, some of them with a parameter of some module, all leading to one sum."""
    random = np.random.default_rng(seed)
    paths = ["a", "a.b", "a.b.c", "a.b.d", "a.e", "f", "f.g", "f.h", ""]
    params = {f"{path}.w".lstrip("."): distgrad.ones(2, requires_grad=bool(random.random() < 0.7)) for path in paths}
    names = list(params)
    made = [params["a.w"] * distgrad.ones(2, requires_grad=True)]
    for _ in range(operations):
        # Mostly what came last, as in networks.
        first = made[max(0, len(made) - 1 - int(random.geometric(0.5)))]
        kind = random.random()
        if kind < 0.4:
            made.append(first * params[names[random.integers(len(names))]])
        elif kind < 0.7:
            made.append(first + made[random.integers(len(made))])
        else:
            made.append(first.tanh())
    total = made[-1]
    for other in made[:-1]:
        if random.random() < 0.1:
            total = total + other
    return total.sum(), params


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("fold", [None, 1, 2, 3])
def test_folding_keeps_what_leads_where(seed: int, fold: int | None) -> None:
    loss, params = random_graph(seed, 150)
    vertices = read([loss], params)
    shown = picture([loss], params, fold, None)
    box_of = {vertex: number for number, box in enumerate(shown.boxes) for vertex in box.vertices}
    assert sorted(box_of) == list(range(len(vertices)))
    assert sum(len(box.vertices) for box in shown.boxes) == len(vertices)
    assert len(shown.boxes) < len(vertices)
    edges = {(box_of[source], box_of[v]) for v, vertex in enumerate(vertices) for source in vertex.inputs}
    assert set(shown.edges) == {(a, b) for a, b in edges if a != b}  # so a way between vertices is a way between boxes
    assert all(source < target for source, target in shown.edges)  # and there are no circles
    Drawn(draw(loss, params=params, fold=fold))


def test_a_long_chain_without_modules_becomes_one_box() -> None:
    x = distgrad.ones((), requires_grad=True)
    y = x
    for _ in range(50_000):
        y = (y * x).tanh()
    begin = time.perf_counter()
    drawn = Drawn(draw(y, params={"x": x}))
    taken = time.perf_counter() - begin
    run = drawn.of("100,000 operations")
    assert drawn.lines[run] == ["Mul ×50,000, Tanh ×50,000", "→ scalar"]
    assert drawn.edges == [(drawn.of("x"), run), (run, drawn.of("output"))]
    assert taken < 60  # 4 s on a machine with nothing else to do; minutes if anything were quadratic


def test_what_cannot_be_folded_is_cut_off_with_a_note() -> None:
    x = distgrad.ones((), requires_grad=True)
    y = z = x
    for _ in range(1500):
        y, z = y * z, y + z
    params = {"x": x}
    drawn = Drawn(draw(y, params=params))
    assert len(drawn.titles) <= 202
    rest = drawn.of(f"{2999 - 199:,} earlier operations")
    assert "x scalar" in drawn.tooltips[rest]
    assert drawn.of("output") in reach(drawn.edges, rest)
    assert any("2999 operations; only the last ones are shown" in note for note in drawn.notes)
    every = Drawn(draw(y, params=params, fold=0))
    assert 1990 < len(every.titles) <= 2001  # as many as a picture may have
    assert draw(y, params=params, fold=0, format="dot").count("label=") > 3000  # text may have all


# --------------------------------------------------------------------------------------------------------------- layout


def test_boxes_do_not_overlap_and_arrows_go_down(resnet: tuple[nn.Module, Tensor]) -> None:
    model, loss = resnet
    for drawn in (Drawn(draw(loss, params=model, fold=fold)) for fold in (0, None, 3)):
        boxes = {name: tuple(float(r[k]) for k in ("x", "y", "width", "height")) for name, r in drawn.rects.items()}
        placed = [(name, *box) for name, box in boxes.items()]
        for number, (name, x, y, width, height) in enumerate(placed):
            for other, x2, y2, width2, height2 in placed[:number]:
                apart = x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y
                assert apart, (drawn.titles[name], drawn.titles[other])
        for source, target in drawn.edges:
            assert boxes[source][1] + boxes[source][3] < boxes[target][1]


def test_text_fits_its_box(resnet: tuple[nn.Module, Tensor]) -> None:
    model, loss = resnet
    drawn = Drawn(draw(loss, params=model, fold=0))
    for name, title in drawn.titles.items():
        # DejaVu Sans Bold, among the widest fonts that browsers fall back to: 0.69 of the size for a mean letter.
        assert 13 * 0.66 * len(title) < float(drawn.rects[name]["width"]), title


@pytest.mark.parametrize("seed", range(5))
def test_the_layout_places_any_graph(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = 60
    edges = [tuple(sorted(random.choice(count, 2, replace=False).tolist())) for _ in range(110)]
    sizes = [(float(width), float(height)) for width, height in random.uniform(20, 120, (count, 2))]
    beside = (random.random(count) < 0.2).tolist()
    placed = place(sizes, edges, beside)
    for a in range(count):
        (x, y), (width, height) = placed.centres[a], sizes[a]
        assert width / 2 <= x + 1e-6 and x + width / 2 <= placed.width + 1e-6
        assert height / 2 <= y + 1e-6 and y + height / 2 <= placed.height + 1e-6
        for b in range(a):
            dx, dy = abs(x - placed.centres[b][0]), abs(y - placed.centres[b][1])
            assert dx + 1e-6 >= (width + sizes[b][0]) / 2 or dy + 1e-6 >= (height + sizes[b][1]) / 2
    for (source, target), line in zip(edges, placed.lines, strict=True):
        ys = [y for _, y in line]
        assert ys == sorted(ys) and len(line) % 2 == 0
        assert line[-1][1] == pytest.approx(placed.centres[target][1] - sizes[target][1] / 2)
        assert abs(line[-1][0] - placed.centres[target][0]) <= sizes[target][0] / 2
        assert line[0][1] >= placed.centres[source][1] + sizes[source][1] / 2 - 1e-6


def test_the_layout_draws_a_chain_straight_and_without_crossings() -> None:
    chain = [(0, 1), (1, 2), (2, 3), (3, 4)]
    placed = place([(50.0, 20.0), (90.0, 20.0), (30.0, 20.0), (70.0, 20.0), (50.0, 20.0)], [*chain, (0, 4)])
    assert len({round(x, 6) for x, _ in placed.centres}) == 1
    skip = placed.lines[-1]
    x = [point[0] for point in skip[1:-1]]
    assert len(set(x)) == 1 and abs(x[0] - placed.centres[1][0]) > 45  # upright, outside of the widest box


def test_the_layout_refuses_a_circle_and_takes_nothing() -> None:
    with pytest.raises(ValueError, match="cycle"):
        place([(1.0, 1.0)] * 2, [(0, 1), (1, 0)])
    assert place([], []).centres == []


# ------------------------------------------------------------------------------------------------------ XML and the DOT

STRANGE = ['a<b>&"c"', "back\\slash", "new\nline", "日本語.重み", "nul\x00\x1b", "half \ud800", "]]>", "x" * 300]


def test_names_are_escaped() -> None:
    params = {name: distgrad.ones(2, requires_grad=True) for name in STRANGE}
    total = sum((parameter.exp() for parameter in params.values()), distgrad.zeros(2)).sum()
    drawn = Drawn(draw(total, params=params, fold=0))
    tooltips = "\n".join(drawn.tooltips.values())
    for name in STRANGE:
        assert re.sub("[\x00\x1b\ud800]", "\ufffd", name) in tooltips
    assert max(map(len, drawn.titles.values())) < 60  # what is long is cut on the box
    draw(total, params=params, fold=0).encode()
    statements = parse_dot(draw(total, params=params, fold=0, format="dot"))
    labels = [attributes["label"] for _, attributes in statements["nodes"].items()]
    for name in STRANGE:
        assert any(re.sub("[\x00\x1b\ud800]", "\ufffd", name) in label for label in labels), name


def parse_dot(text: str) -> dict:
    """A reader of the part of the DOT language that is needed: strings, names, attribute lists, edges, subgraphs."""
    token = re.compile(
        r'\s*(?:("(?:[^"\\]|\\.)*")|([A-Za-z_][A-Za-z_0-9]*|-?\d+(?:\.\d+)?)|(->|[{}\[\];,=]))', re.DOTALL
    )
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = token.match(text, position)
        assert match, text[position : position + 60]
        tokens.append(match)
        position = match.end()
    values = [m.group(1) or m.group(2) or m.group(3) for m in tokens]
    at = 0

    def take(expected: str | None = None) -> str:
        nonlocal at
        value = values[at]
        assert expected is None or value == expected, (expected, values[at - 3 : at + 3])
        at += 1
        return value

    def name() -> str:
        value = take()
        assert value[0] == '"' or value[0].isalnum() or value[0] in "_-", value
        if value[0] != '"':
            return value
        return re.sub(r"\\(.)", lambda m: "\n" if m.group(1) == "n" else m.group(1), value[1:-1], flags=re.DOTALL)

    def attributes() -> dict[str, str]:
        found = {}
        take("[")
        while values[at] != "]":
            key = name()
            take("=")
            found[key] = name()
            if values[at] in ",;":
                take()
        take("]")
        return found

    nodes: dict[str, dict[str, str]] = {}
    edges: list[tuple[str, str]] = []
    take("digraph")
    name()
    take("{")
    depth = 1
    while depth:
        if values[at] == "}":
            take()
            depth -= 1
            continue
        if values[at] == "subgraph":
            take()
            name()
            take("{")
            depth += 1
            continue
        first = name()
        if values[at] == "=":
            take()
            name()
        elif values[at] == "->":
            take()
            edges.append((first, name()))
            if values[at] == "[":
                attributes()
        else:
            found = attributes()
            if first not in ("node", "edge", "graph"):
                assert first not in nodes
                nodes[first] = found
        take(";")
    assert at == len(values)
    assert all(node in nodes for edge in edges for node in edge)
    return {"nodes": nodes, "edges": edges}


@pytest.mark.parametrize("fold", [None, 0, 1])
def test_the_dot_text_is_dot_and_shows_what_the_picture_shows(resnet: tuple[nn.Module, Tensor], fold: int) -> None:
    model, loss = resnet
    statements = parse_dot(draw(loss, params=model, fold=fold, format="dot"))
    drawn = Drawn(draw(loss, params=model, fold=fold))
    titles = {name: attributes["label"].split("\n")[0] for name, attributes in statements["nodes"].items()}
    assert structure(titles, statements["edges"]) == structure(drawn.titles, drawn.edges)


def test_frozen_parts_are_grey_in_the_dot_text_too() -> None:
    model, _ = mlp()
    model[0].weight.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    nodes = parse_dot(draw(model(distgrad.randn(5, 4)).sum(), params=model, format="dot"))["nodes"]
    color = {attributes["label"].split("\n")[0]: attributes["fillcolor"] for attributes in nodes.values()}
    assert color["2.weight"] == color["0.weight"] != color["4.weight"]


# ----------------------------------------------------------------------------------------------------- files and errors


def test_a_path_is_written_by_its_ending(tmp_path: Path) -> None:
    model, loss = mlp()
    assert draw(loss, tmp_path / "graph.svg", params=model) is None
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == draw(loss, params=model)
    for ending in ("dot", "gv"):
        assert draw(loss, str(tmp_path / f"graph.{ending}"), params=model) is None
        assert (tmp_path / f"graph.{ending}").read_text(encoding="utf-8") == draw(loss, params=model, format="dot")
    draw(loss, tmp_path / "graph.txt", format="dot")
    assert (tmp_path / "graph.txt").read_text().startswith("digraph")


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    x = distgrad.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="output 1 does not require grad"):
        draw([x * 2, distgrad.ones(2)])
    with pytest.raises(TypeError, match="output 0 is float"):
        draw([1.0])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="outputs is empty"):
        draw([])
    for fold in (-1, 1.5, True):
        with pytest.raises(ValueError, match="fold is None or a whole number"):
            draw(x * 2, fold=fold)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r'"svg" or "dot".*graph\.png'):
        draw(x * 2, tmp_path / "graph.png")
    with pytest.raises(ValueError, match="format='pdf'"):
        draw(x * 2, format="pdf")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="params takes names and tensors"):
        draw(x * 2, params={"x": 1.0})
    with pytest.raises(TypeError, match="params takes names and tensors"):
        draw(x * 2, params=[x])
