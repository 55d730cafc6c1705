"""Conditional updates in a captured graph, as branches. `TorchEngine.apply` makes them.

A trace has no branches. So marks in the trace say where a branch begins and ends. The operations in
between become a graph of their own, which runs only if the condition holds. A branch may write to
tensors from outside. Its own results are unknown outside.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from mlsystem.engine import select
from mlsystem.engine.torch import graph_passes

# Whether the present trace may hold branches, which a compiler does not take. None outside a trace.
_has_branches: contextvars.ContextVar[bool | None] = contextvars.ContextVar(
    "has_branches", default=None
)
_BEGIN, _END = torch.ops.mlsystem.begin.default, torch.ops.mlsystem.end.default


@contextlib.contextmanager
def allowed(has_branches: bool) -> Iterator[None]:
    """Set whether a trace may hold branches."""
    before = _has_branches.set(has_branches)
    try:
        yield
    finally:
        _has_branches.reset(before)


def is_traced() -> bool:
    """Tell whether a step is being traced, on tensors without numbers."""
    return _has_branches.get() is not None


def has(condition: torch.Tensor) -> bool:
    """Tell whether the trace can branch on a condition. On a GPU the host would wait for it."""
    return bool(_has_branches.get()) and condition.device.type == "cpu"


@contextlib.contextmanager
def only(condition: torch.Tensor, variables: list[Any]) -> Iterator[None]:
    """Let the code inside change variables only if a condition holds, in a trace."""
    if not has(condition):
        with select.only(condition, variables, torch.clone):
            yield
        return
    torch.ops.mlsystem.begin(condition)
    yield
    torch.ops.mlsystem.end(condition)


def branched(module: GraphModule) -> GraphModule:
    """Make a graph of its own of each branch. Remove no dead code after that."""
    inside: list[Node] | None = None
    for node in list(module.graph.nodes):
        if node.target is _BEGIN:
            inside = []
        elif node.target is _END and inside is not None:
            _outline(module, inside, node)
            inside = None
        elif inside is not None and node.op != "get_attr":
            inside.append(node)
    for node in [node for node in module.graph.nodes if node.target in (_BEGIN, _END)]:
        module.graph.erase_node(node)
    module.recompile()
    return module


def _outline(module: GraphModule, inside: list[Node], end: Node) -> None:
    """Move nodes into a graph of their own, and call it where they end."""
    known = set(inside)
    given = list(
        dict.fromkeys(n for node in inside for n in node.all_input_nodes if n not in known)
    )
    branch = _graph_of(module, inside, given)
    with module.graph.inserting_before(end):
        module.graph.call_function(_Branch(branch), (end.args[0], *given))
    for node in reversed(inside):
        if set(node.users) - known:
            node.replace_all_uses_with(_written(node, known), lambda user: user not in known)
        module.graph.erase_node(node)


def _graph_of(module: GraphModule, inside: list[Node], given: list[Node]) -> GraphModule:
    graph = Graph()
    copies = {node: graph.placeholder(node.name) for node in given}
    for node in inside:
        copies[node] = graph.node_copy(node, lambda source: copies[source])
    graph.output(None)
    return graph_passes.direct(GraphModule(module, graph))


def _written(node: Node, inside: set[Node]) -> Node:
    """Find the tensor from outside that a node has written to in place."""
    base = graph_passes.base(node)
    if not isinstance(base, Node) or base in inside:
        raise RuntimeError(f"What the branch computes in {node} is used outside of it.")
    return base


class _Branch:
    """Runs a graph if a condition holds."""

    __name__ = "branch"

    def __init__(self, graph: GraphModule) -> None:
        self.run = graph.forward

    def __call__(self, condition: torch.Tensor, *given: Any) -> None:
        if condition:
            self.run(*given)
