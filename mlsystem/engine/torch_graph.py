"""A captured graph made ready to run: dead code and constants removed, noise drawn afresh."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

_SAME = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
_FRESH = torch.ops.aten.lift_fresh_copy.default


def simplified(module: GraphModule) -> GraphModule:
    """Removes what a run does not need."""
    for node in module.graph.nodes:
        if node.target in _SAME:
            node.replace_all_uses_with(node.args[0])
    _fold_constants(module)
    return _finished(module)


def _finished(module: GraphModule) -> GraphModule:
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


# Constants --------------------------------------------------------------------------------------


def _fold_constants(module: GraphModule) -> None:
    """Computes once what depends on nothing: numbers made tensors, and what is made of these."""
    written = {base for node in module.graph.nodes if _writes(node) for base in _inputs(node)}
    known: dict[Node, torch.Tensor] = {}
    for node in module.graph.nodes:
        if node not in written and _is_constant(node, known):
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: _value(module, n, known))
            known[node] = node.target(*args, **kwargs)
    for node, value in known.items():
        _replace(module, node, value)


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _inputs(node: Node) -> Iterator[Node]:
    """The inputs of an operation, and what these are views of."""
    for source in node.all_input_nodes:
        yield source
        if _is_view(source):
            yield from _inputs(source)


def _is_view(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.op == "call_function"  # one of several results
    return any(result.alias_info for result in node.target._schema.returns)


def _is_constant(node: Node, known: dict[Node, torch.Tensor]) -> bool:
    if node.target is _FRESH:  # a number, or an array, that became a tensor
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return (
        [str(result.type) for result in node.target._schema.returns] == ["Tensor"]
        and not _writes(node)
        and not _is_random(node)
        and all(source in known for source in node.all_input_nodes)
    )


def _value(module: GraphModule, node: Node, known: dict[Node, torch.Tensor]) -> Any:
    return getattr(module, str(node.target)) if node.op == "get_attr" else known[node]


def _replace(module: GraphModule, node: Node, value: torch.Tensor) -> None:
    name = f"constant_{node.name}"
    module.register_buffer(name, value)
    with module.graph.inserting_before(node):
        node.replace_all_uses_with(module.graph.get_attr(name))


# Noise ------------------------------------------------------------------------------------------


def seeded(module: GraphModule) -> GraphModule:
    """Draws as Keras does: each time from a generator seeded by the seed variable."""
    for mark, draw in _draws(module.graph):
        if draw is not None:
            with module.graph.inserting_before(draw):
                generator = module.graph.call_function(_Seeded(), mark.args)
            draw.target = _with_generator(draw.target)
            draw.kwargs = {**draw.kwargs, "generator": generator}
    return unseeded(module)


def unseeded(module: GraphModule) -> GraphModule:
    """Draws from torch's own generator, whatever the seed variable says."""
    for mark, _ in _draws(module.graph):
        module.graph.erase_node(mark)
    return _finished(module)


def _draws(graph: Graph) -> list[tuple[Node, Node | None]]:
    """Each mark of a draw from a seeded generator, with the operation that draws."""
    found: list[tuple[Node, Node | None]] = []
    for node in graph.nodes:
        if node.target is torch.ops.mlsystem.draw.default:
            found.append((node, None))
        elif found and found[-1][1] is None and _is_random(node):
            found[-1] = (found[-1][0], node)
    return found


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _with_generator(operation: Any) -> Any:
    """The overload of a random operation that takes a generator."""
    if any(argument.name == "generator" for argument in operation._schema.arguments):
        return operation
    name = operation._overloadname
    name = "generator" if name == "default" else f"{name}_generator"
    return getattr(operation.overloadpacket, name)


class _Seeded:
    """Seeds the generator of one draw."""

    __name__ = "seeded"

    def __init__(self) -> None:
        self.generator = torch.Generator()

    def __call__(self, seed: torch.Tensor) -> torch.Generator:
        return self.generator.manual_seed(int(seed) & 0xFFFFFFFF)
