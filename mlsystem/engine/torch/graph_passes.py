"""Passes over a captured graph: remove useless operations, and draw noise afresh in each run.

Operations write to tensors in place. So an operation may be removed or moved only if no operation
writes to its tensors (`_written`).
"""

from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

aten = torch.ops.aten

_SAME = (aten.detach.default, aten.alias.default)
_NEUTRAL = {aten.add.Tensor: 0, aten.sub.Tensor: 0, aten.mul.Tensor: 1, aten.div.Tensor: 1}
_FILLED = (aten.ones_like.default, aten.zeros_like.default)
_FRESH = aten.lift_fresh_copy.default
# Names of operations that cost less when called through torch's own Python functions.
_DIRECT = (
    *("add", "sub", "mul", "div", "rsub", "neg", "pow", "sqrt", "exp", "log", "eq", "where"),
    *("sum", "mean", "mm", "t", "permute", "view", "expand", "squeeze", "unsqueeze", "copy_"),
    *("relu", "sigmoid", "tanh"),
)

# Marks in a trace: where a branch begins and ends, and where Keras draws from a seed.
_library = torch.library.Library("mlsystem", "DEF")  # type: ignore[no-untyped-call]
for _mark in ("begin", "end", "draw"):
    # Declared to write to its argument. Otherwise it would be removed as dead code.
    _library.define(f"{_mark}(Tensor(a!) marked) -> ()")  # type: ignore[no-untyped-call]
    _library.impl(  # type: ignore[no-untyped-call]
        _mark, lambda marked: None, "CompositeExplicitAutograd"
    )


def simplified(module: GraphModule) -> GraphModule:
    """Remove the operations that a run does not need."""
    written = _written(module.graph)
    for node in module.graph.nodes:
        if node.target in _SAME or (_is_neutral(node) and written.isdisjoint([node, *node.args])):
            node.replace_all_uses_with(node.args[0])
    _fold_constants(module, written)
    return _finished(module)


def _finished(module: GraphModule) -> GraphModule:
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def direct(module: GraphModule) -> GraphModule:
    """Call operations through torch's Python functions, which read their arguments faster."""
    for node in module.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            name = node.target._schema.name.removeprefix("aten::")
            if name in _DIRECT:
                node.target = getattr(torch, name, None) or getattr(torch.Tensor, name)
    module.recompile()  # and no dead code is removed any more: what writes cannot be told now
    return module


# What is written to -----------------------------------------------------------------------------


def _written(graph: Graph) -> set[Node]:
    """Find the tensors that operations write to, and all that share their memory."""
    written = {base(source) for n in graph.nodes if _writes(n) for source in n.all_input_nodes}
    return {node for node in graph.nodes if base(node) in written}


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def base(node: Node) -> Any:
    """Find the tensor that owns the memory of a node, as far as it is known."""
    while _is_view(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node.target if node.op == "get_attr" else node  # a tensor may have many such nodes


def _is_view(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.op == "call_function"  # one of several results
    schema = node.target._schema
    return "unsafe_" in schema.name or any(result.alias_info for result in schema.returns)


# Constants --------------------------------------------------------------------------------------


def _is_neutral(node: Node) -> bool:
    """Tell whether a node only adds 0 or multiplies by 1."""
    if node.target not in _NEUTRAL or node.kwargs:
        return False
    source, other = node.args
    if isinstance(other, Node) or other != _NEUTRAL[node.target]:
        return False
    return isinstance(source, Node) and _form(source) == _form(node)


def _form(node: Node) -> Any:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return node
    return value.shape, value.dtype, value.stride()


def _fold_constants(module: GraphModule, written: set[Node]) -> None:
    """Compute once what depends on no input: tensors made of numbers, and their results."""
    known: dict[Node, torch.Tensor] = {}
    for node in module.graph.nodes:
        if node in written or _is_large(node):
            continue
        if node.target in _FILLED:
            known[node] = _filled(node)
        elif _is_constant(node, known):
            args, kwargs = map_arg((node.args, node.kwargs), lambda n: _value(module, n, known))
            known[node] = node.target(*args, **kwargs)
    for node, value in known.items():
        if not known.keys() >= node.users.keys():
            _replace(module, node, value)


def _is_large(node: Node) -> bool:
    """Tell whether it costs more to hold a tensor than to compute it again."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.numel() > 2**16


def _filled(node: Node) -> torch.Tensor:
    like = node.meta["val"]
    value = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)
    return value.fill_(int(node.target is aten.ones_like.default))


def _is_constant(node: Node, known: dict[Node, torch.Tensor]) -> bool:
    if node.target is _FRESH:  # a number, or an array, that became a tensor
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if node.target.namespace == "_c10d_functional":  # it needs the other processes
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
    """Draw as Keras does: each time from a generator seeded by the seed variable."""
    for mark, draw in _draws(module.graph):
        if draw is not None:
            with module.graph.inserting_before(draw):
                generator = module.graph.call_function(_Seeded(), mark.args)
            draw.target = _with_generator(draw.target)
            draw.kwargs = {**draw.kwargs, "generator": generator}
    return unseeded(module)


def unseeded(module: GraphModule) -> GraphModule:
    """Draw from torch's own generator, and ignore the seed variable."""
    for mark, _ in _draws(module.graph):
        module.graph.erase_node(mark)
    return _finished(module)


def _draws(graph: Graph) -> list[tuple[Node, Node | None]]:
    """List the marks of draws from a seed, each with the operation that draws."""
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
    """Find the overload of a random operation that takes a generator."""
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
