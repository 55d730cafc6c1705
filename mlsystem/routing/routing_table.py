"""The losses that each model follows: a matrix with one row per model. Plain Python, no tensors.

A routing is `"sum"`, `"own"` or a table `{model: {loss: weight}}`:

- `"sum"`: each model follows the sum of all losses.
- `"own"`: each model follows the loss of its own name, and the losses that have no model's name.
- A table: a loss in it may also be a term of a loss.

It is read into rows `{model: {loss: factors}}`. The factors (numbers, variables, schedules)
multiply to the weight of that loss for that model.
"""

import numbers
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from mlsystem.routing.model_names import by_name, named

Row = dict[str, tuple[Any, ...]]
Rows = dict[str, Row]


def read(
    routing: Any,
    models: Sequence[str],
    losses: Sequence[str],
    loss_weights: Any = None,
    others: Sequence[str] = (),
    terms: Sequence[str] = (),
) -> Rows:
    """Return the row of each model. The `others` are frozen and may also have a row in the table.

    If a term of a loss has its own weight, the `terms` (`encoder/kl`) replace the loss.

    >>> read("own", ["generator", "critic"], ["generator", "critic", "cycle"])["critic"]
    {'critic': (1.0,), 'cycle': (1.0,)}
    >>> read("sum", ["a"], ["a"], {"kl": 2.0}, terms=["a/kl", "a/fit"])["a"]
    {'a/kl': (1.0, 2.0), 'a/fit': (1.0,)}
    """
    known = [*models, *others]
    loss_weights = _spelled(loss_weights, losses, terms, "loss_weights")
    if isinstance(routing, Mapping):
        _check_axes(routing, known, losses, terms)
        what = "The routing of '{}'"
        routing = {m: _spelled(r, losses, terms, what.format(m)) for m, r in routing.items()}
    parts = _parts([loss_weights, *_rows_of(routing)], terms)
    losses, whole = [part for name in losses for part in parts.get(name, [name])], losses
    if isinstance(routing, Mapping):
        rows = _table(routing, models, losses, others)
    elif routing in ("sum", "own"):
        rows = {
            m: {p: (1.0,) for n in _followed(routing, m, known, whole) for p in parts.get(n, [n])}
            for m in models
        }
    else:
        raise ValueError(
            f"routing is {routing!r}. Give 'sum' (each model follows all losses), 'own' (each "
            "model follows the loss of its own name) or a table {model: {loss: weight}}."
        )
    return _without_zeros(_weighted(rows, loss_weights, losses))


def _spelled(row: Any, losses: Sequence[str], terms: Sequence[str], what: str) -> Any:
    """Return a table by loss in which each term has its full name (`encoder/kl`)."""
    if not isinstance(row, Mapping):
        return row
    logged = {t: "_".join(t.rsplit("/", 1)) for t in terms if not t.endswith("/")}
    found = {}
    for name, weight in row.items():
        same = [t for t in logged if name in (t, logged[t], t.rpartition("/")[2])]
        if named(name, losses) or not same:
            _check_loss(name, [*losses, *logged.values()], what)
            same = [name]
        if len(same) > 1:
            raise ValueError(
                f"{what} names the term {name!r}, which several losses have. Write "
                f"{' or '.join(repr(logged[t]) for t in same)}."
            )
        found[same[0]] = weight
    return found


def _check_loss(name: Any, losses: Sequence[str], what: str) -> None:
    if not isinstance(name, str) or not named(name, losses):
        raise ValueError(
            f"{what} names the loss {name!r}, which does not exist. The losses are "
            f"{', '.join(map(repr, losses)) or 'none'}."
        )


def _check_axes(
    routing: Mapping[str, Any], models: Sequence[str], losses: Sequence[str], terms: Sequence[str]
) -> None:
    """Raise an error if the rows of a table are losses and its columns models."""
    columns = [name for row in routing.values() if isinstance(row, Mapping) for name in row]
    short = [term.rpartition("/")[2] for term in terms]
    known = [*losses, *terms, *short, *("_".join(term.rsplit("/", 1)) for term in terms)]
    if _all_named(routing, models) and _all_named(columns, known):
        return
    if columns and _all_named(routing, known) and _all_named(columns, models):
        raise ValueError(
            f"The rows of routing, {', '.join(map(repr, routing))}, are losses, and its columns "
            "are models. Turn it round: rows are models and columns are losses, "
            "{model: {loss: weight}}."
        )


def _all_named(asked: Iterable[Any], names: Sequence[str]) -> bool:
    return all(isinstance(name, str) and named(name, names) for name in asked)


def _rows_of(routing: Any) -> list[Any]:
    return list(routing.values()) if isinstance(routing, Mapping) else []


def _parts(tables: Iterable[Any], terms: Sequence[str]) -> dict[str, list[str]]:
    """Return the terms of each loss, if some table names one of them."""
    asked = {name for table in tables if isinstance(table, Mapping) for name in table}
    owners = {term.rpartition("/")[0] for term in terms if term in asked}
    return {owner: [t for t in terms if t.rpartition("/")[0] == owner] for owner in owners}


def _followed(
    routing: str, model: str, models: Sequence[str], losses: Sequence[str]
) -> Iterable[str]:
    if routing == "sum":
        return losses
    return [name for name in losses if not (owners := named(name, models)) or model in owners]


def _table(
    routing: Mapping[str, Any],
    models: Sequence[str],
    losses: Sequence[str],
    others: Sequence[str],
) -> Rows:
    if wrong := {m: row for m, row in routing.items() if not isinstance(row, Mapping)}:
        raise ValueError(
            f"routing gives {wrong!r}; the row of a model is a dict {{loss: weight}} "
            f"of the losses {list(losses)}."
        )
    table = by_name(routing, list(dict.fromkeys([*models, *others])), "routing")
    if missing := [m for m in models if m not in table]:
        raise ValueError(
            f"routing has no row for {', '.join(repr(m) for m in missing)}: say which of the "
            f"losses {list(losses)} each model follows, or freeze it with `trainable = False`."
        )
    return {m: _row(m, row, losses) for m, row in table.items() if m in models}


def _row(model: str, row: Mapping[str, Any], losses: Sequence[str]) -> Row:
    weights = by_name(row, losses, f"The routing of '{model}'")
    for name, weight in weights.items():
        _check_weight(weight, f"The routing of '{model}' weighs the loss '{name}'")
    return {name: (weight,) for name, weight in weights.items()}


def _check_weight(weight: Any, where: str) -> None:
    schedule = callable(weight) and hasattr(weight, "get_config")
    number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
    if not (number or schedule or hasattr(weight, "assign")):
        raise ValueError(
            f"{where} with {weight!r}; give a number, a Keras variable or a Keras schedule."
        )


def _weighted(rows: Rows, loss_weights: Any, losses: Sequence[str]) -> Rows:
    if loss_weights is None:
        return rows
    given = (
        loss_weights if isinstance(loss_weights, Mapping) else dict.fromkeys(losses, loss_weights)
    )
    weights = by_name(given, losses, "loss_weights")
    for name, weight in weights.items():
        _check_weight(weight, f"loss_weights weighs the loss '{name}'")
    extra = {name: (weight,) for name, weight in weights.items()}
    return {m: {n: f + extra.get(n, ()) for n, f in row.items()} for m, row in rows.items()}


def _without_zeros(rows: Rows) -> Rows:
    """Drop losses of weight 0. Raise an error if a model is left without a loss."""
    rows = {m: {n: f for n, f in row.items() if not _zero(f)} for m, row in rows.items()}
    if lost := [m for m, row in rows.items() if not row]:
        raise ValueError(
            f"The routing leaves {', '.join(repr(m) for m in lost)} without a loss to follow. Give "
            "the model a loss, route one to it, or freeze it with `trainable = False`."
        )
    return rows


def _zero(factors: tuple[Any, ...]) -> bool:
    return any(isinstance(f, numbers.Real) and f == 0 for f in factors)


def expand(rows: Rows, inner: Mapping[str, Mapping[str, Row | None]]) -> Rows:
    """Replace the row of each nested system by the rows of its own models.

    The row of `vae/encoder` is the outer row of `vae`, with the loss `vae` replaced by the inner
    row of `encoder`. If the inner row is None, it is the outer row unchanged.
    """
    expanded: Rows = {}
    for model, row in rows.items():
        if model not in inner:
            expanded[model] = row
            continue
        for leaf, inner_row in inner[model].items():
            expanded[f"{model}/{leaf}"] = (
                row if inner_row is None else _substitute(row, model, inner_row)
            )
    return expanded


def _substitute(row: Row, loss: str, inner_row: Row) -> Row:
    substituted: Row = {}
    for name, factors in row.items():
        if name == loss:
            substituted |= {f"{loss}/{n}": factors + f for n, f in inner_row.items()}
        else:
            substituted[name] = factors
    return substituted


def followed(row: Iterable[str], losses: Iterable[str]) -> set[str]:
    """Return the losses that a row follows, including the sum of a nested system."""
    paths = [name.split("/") for name in row]
    names = {"/".join(path[: i + 1]) for path in paths for i in range(len(path))}
    return names.intersection(losses)


def groups(rows: Rows, scaled: Container[str]) -> list[tuple[Row, list[str]]]:
    """Return the distinct rows, each with the models that share it. Each needs one backward pass.

    A model whose optimizer scales the loss shares a row only with other such models.
    """
    shared: dict[Any, tuple[Row, list[str]]] = {}
    for model, row in rows.items():
        key = (frozenset((n, *map(_identity, f)) for n, f in row.items()), model in scaled)
        shared.setdefault(key, (row, []))[1].append(model)
    return list(shared.values())


def _identity(factor: Any) -> Any:
    return factor if isinstance(factor, numbers.Real) else id(factor)
