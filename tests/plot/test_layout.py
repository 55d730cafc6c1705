"""The layout of a picture, on random systems: plain numbers, no tensors."""

import itertools
import random

import pytest

from mlsystem.diagnostics.description import (
    COPY,
    FROZEN,
    CallFacts,
    Description,
    LossFacts,
    ModelFacts,
    Route,
)
from mlsystem.plot.drawing import draw
from mlsystem.plot.lanes import lanes, spread
from mlsystem.plot.layout import layout
from mlsystem.plot.shapes import Rect, Text
from mlsystem.plot.text_width import width

pytestmark = pytest.mark.once
seeds = pytest.mark.parametrize("seed", range(30))


def a_system(seed):
    """The facts of a random system of up to 12 models."""
    rng = random.Random(seed)
    names = [
        f"{rng.choice(['critic', 'encoder', 'a_model_with_a_long_name'])}{i}" for i in range(12)
    ]
    names = names[: rng.randint(1, 12)]
    frames = ["inner", "inner/deep"][: rng.randint(0, 2)] if len(names) > 3 else []
    start = rng.randint(0, len(names) - 3) if frames else 0
    for i, frame in enumerate(frames):
        names[start + i : start + 3] = [
            f"{frame}/{n.rpartition('/')[2]}" for n in names[start + i : start + 3]
        ]
    models = [a_model(rng, name, names) for name in names]
    sources = [*names, "noise", "images", "labels/of/a/stream"]
    calls = [CallFacts(n, rng.sample(sources, rng.randint(0, min(3, len(sources))))) for n in names]
    trained = [model.name for model in models if model.trained]
    own = [name for name in trained if rng.random() < 0.6]
    losses = [a_loss(rng, name, names) for name in [*own, *["cycle", "kl"][: rng.randint(0, 2)]]]
    phases = [("1–3", trained[:1]), ("4", trained[1:])] if rng.random() < 0.4 else [("1", trained)]
    return Description(
        "Random",
        "table",
        models,
        losses,
        routes(rng, trained, losses),
        calls,
        [(source, call.model) for call in calls for source in call.sources],
        frames,
        phases,
        backward_passes=2,
    )


def a_model(rng, name, names):
    kind = rng.random()
    if kind < 0.15:
        return ModelFacts(name, COPY, 100, source=rng.choice(names), momentum="0.99")
    if kind < 0.3:
        return ModelFacts(name, FROZEN, 10**7)
    badges = ["every 2 batches", "after 1,000 batches", "when critic > 0.5"][: rng.randint(0, 3)]
    return ModelFacts(name, weights=1234, trained=1234, optimizer="Adam 2e-4", badges=badges)


def a_loss(rng, name, names):
    terms = ["real", "fake", "penalty"][: rng.randint(0, 3)]
    read = rng.sample(names, rng.randint(0, min(3, len(names))))
    return LossFacts(name, terms, read, ["y"] if rng.random() < 0.3 else [])


def routes(rng, trained, losses):
    density = rng.choice([0.2, 0.5, 1.0])
    measured = rng.random() < 0.3
    return [
        Route(
            loss.name,
            model,
            *rng.choice([("× 1", False), ("× −0.5", True)]),
            moves=rng.choice(["", "", "PolynomialDecay"]),
            norm=rng.choice([0.0, 0.1, 2.0]) if measured else None,
        )
        for loss in losses
        for model in trained
        if rng.random() < density
    ]


def rectangles(found):
    boxes = found.boxes
    inputs = {f"input {' '.join(key)}": box for key, box in boxes.inputs.items()}
    losses = {f"loss {name}": box for name, box in boxes.losses.items()}
    return {
        name: (box.x, box.y, box.right, box.bottom)
        for name, box in {**boxes.models, **inputs, **losses}.items()
    }


def label(one):
    return one.x - one.width / 2, one.y - 9, one.x + one.width / 2, one.y + 9


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def segments(found):
    for wire in found.wires:
        for (x1, y1), (x2, y2) in itertools.pairwise(wire.points):
            yield wire, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


@seeds
def test_no_boxes_or_labels_overlap(seed):
    found = layout(a_system(seed))
    boxes = rectangles(found)
    boxes |= {f"label {i}": label(one) for i, one in enumerate(found.labels)}
    for (name, one), (other_name, other) in itertools.combinations(boxes.items(), 2):
        assert not overlap(one, other), (name, other_name)
    for x1, y1, x2, y2 in boxes.values():
        assert x1 >= 0 and y1 >= 0 and x2 <= found.width and y2 <= found.height


@seeds
def test_no_line_crosses_a_box_or_the_label_of_another_line(seed):
    found = layout(a_system(seed))
    inner = {n: (a + 1, b + 1, c - 1, d - 1) for n, (a, b, c, d) in rectangles(found).items()}
    for wire, (x1, y1, x2, y2) in segments(found):
        line = (x1 - 0.1, y1 - 0.1, x2 + 0.1, y2 + 0.1)
        for name, box in inner.items():
            assert not overlap(line, box), (wire, name)
        for one in found.labels:
            if overlap(line, label(one)):
                assert wire.route == one.route and wire.loss == one.loss


@seeds
def test_lines_that_are_not_connected_do_not_run_in_one_another(seed):
    assert_lines_apart(layout(a_system(seed)))


def assert_lines_apart(found):
    """No two lines of different losses share a piece, upright or level."""
    for (one, a), (two, b) in itertools.combinations(segments(found), 2):
        if (one.kind, one.loss) != (two.kind, two.loss):
            for across, along in ((0, 1), (1, 0)):
                near = max(s[across + 2] for s in (a, b)) - min(s[across] for s in (a, b)) < 3
                shared = min(a[along + 2], b[along + 2]) - max(a[along], b[along])
                assert not (near and shared > 0.5), (one, two)


def test_two_losses_of_all_models_have_lines_of_their_own():
    reads = [["a"], ["b"], ["c"], ["a", "c"], ["a", "b", "c"]]
    for first, second in itertools.product(reads, reads):
        losses = [LossFacts("one", models=first), LossFacts("two", models=second)]
        models = [ModelFacts(name, weights=1, trained=1, optimizer="SGD 0.1") for name in "abc"]
        each = [Route(loss.name, model.name) for loss in losses for model in models]
        assert_lines_apart(layout(Description("Sum", '"sum"', models, losses, each)))


@seeds
def test_a_frame_holds_its_own_models_only(seed):
    found = layout(a_system(seed))
    for frame, box in found.boxes.frames.items():
        around = (box.x, box.y, box.right, box.bottom)
        for name, model in found.boxes.models.items():
            is_inside = box.x < model.x and box.y < model.y and model.bottom < box.bottom
            assert is_inside == name.startswith(f"{frame}/")
            if not is_inside:
                assert not overlap(around, (model.x, model.y, model.right, model.bottom))


@seeds
def test_each_route_and_each_edge_has_its_lines(seed):
    facts = a_system(seed)
    found = layout(facts)
    phases = {m.name: sum(m.name in group for _, group in facts.phases) for m in facts.models}
    labelled = sum(
        int(one.text.split(" ")[0]) if "losses" in one.text else 1 for one in found.labels
    )
    assert labelled == sum(max(1, phases[route.model]) for route in facts.routes)
    ends = [wire for wire in found.wires if wire.has_arrow and wire.kind == "forward"]
    into = [w for w in ends if any(w.points[-1][0] == box.x for box in found.boxes.models.values())]
    down = [w for w in ends if len(w.points) == 2 and w.points[0][0] == w.points[1][0]]
    assert len(set(map(id, into)) | set(map(id, down))) == len(set(facts.edges))


def test_models_stand_in_the_order_of_forward_and_own_losses_beside_them():
    names = ["b", "a", "c"]
    facts = Description(
        "Three",
        '"own"',
        [ModelFacts(name, weights=1, trained=1, optimizer="SGD 0.1") for name in names],
        [LossFacts(name, models=[name]) for name in "abc"],
        [Route(name, name) for name in "abc"],
    )
    found = layout(facts).boxes
    tops = [box.y for box in found.models.values()]
    assert list(found.models) == names and tops == sorted(tops)
    for name in names:  # the line of each loss to its model is straight
        model, loss = found.models[name], found.losses[name]
        assert model.port("out") == loss.port("in")
        assert model.port(("gradient", (name,), 0)) == loss.port("out")


@seeds
def test_texts_fit_into_their_boxes_and_the_page(seed):
    drawing = draw(a_system(seed))
    boxes = [shape for shape in drawing.shapes if isinstance(shape, Rect)]
    for text in (shape for shape in drawing.shapes if isinstance(shape, Text)):
        wide = width(text.text, text.size, text.bold)
        left = text.x - {"start": 0, "middle": wide / 2}[text.anchor]
        around = [
            box
            for box in boxes
            if box.x <= text.x <= box.x + box.width and box.y <= text.y <= box.y + box.height
        ]
        box = min(around, key=lambda box: box.width * box.height)
        assert box.x <= left and left + wide <= box.x + box.width, text


def framed(name, above):
    """A frame around one model, with or without a model above that feeds it."""
    names = [*(["first"] if above else []), f"{name}/inner"]
    models = [ModelFacts(name, weights=1, trained=1, optimizer="SGD 0.1") for name in names]
    edges = [(names[0], names[1])] if above else []
    drawing = draw(Description("Framed", '"own"', models, edges=edges, frames=[name]))
    return [shape.text for shape in drawing.shapes if isinstance(shape, Text)]


def test_the_name_of_a_frame_is_cut_only_for_lack_of_room():
    for above in (False, True):
        assert "adversarial" in framed("adversarial", above)
    assert "a_longer_name_of_a_frame" in framed("a_longer_name_of_a_frame", above=False)
    assert "a_longer_name_of_a_frame" not in framed("a_longer_name_of_a_frame", above=True)


def test_lanes_are_free_for_each_span():
    rng = random.Random(0)
    spans = [tuple(sorted(rng.sample(range(400), 2))) for _ in range(40)]
    found = lanes(spans)
    for (one, lane), (two, other) in itertools.combinations(zip(spans, found, strict=True), 2):
        assert lane != other or one[1] < two[0] or two[1] < one[0]


def test_boxes_spread_without_overlap_and_those_that_matter_stay():
    assert spread([10, 100], [20, 20], [1, 1], gap=5, top=0) == [0, 90]
    assert spread([50, 52], [20, 20], [1e9, 1], gap=10, top=0) == pytest.approx([40, 70], abs=1e-4)
