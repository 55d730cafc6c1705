"""The defaults of the base class of the engines, which a new backend starts from."""

from toys import Pair, number, ones

import mlsystem as ml
from mlsystem.engine import engine
from mlsystem.engine.base import Engine

# A step of torch has gradients switched off, and one of TensorFlow waits for its batch.
NEEDED = {*Engine.__abstractmethods__, "step_scope"}


def trained():
    """The logs of some epochs, and the weights after them."""
    pair = Pair()
    looks = ml.callbacks.GradientNorms(every=1)
    logs = pair.fit(ones(8), batch_size=4, epochs=2, verbose=0, callbacks=[looks]).history
    logs["evaluated"] = pair.evaluate(ones(8), verbose=0, return_dict=True)
    return logs, number(pair.a.weight), number(pair.b.weight)


def test_an_engine_trains_with_little_more_than_what_is_abstract(monkeypatch):
    expected = trained()
    own = {name: getattr(type(engine), name) for name in NEEDED}
    monkeypatch.setattr(engine, "__class__", type("Minimal", (Engine,), own))
    assert trained() == expected
