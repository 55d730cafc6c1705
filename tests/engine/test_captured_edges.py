"""On torch: where a captured graph could differ from the eager step, and what prevents it."""

import contextlib
import threading
import warnings

import keras
import numpy as np
import pytest
from bad_batches import data, state, trained
from compared import X, agree
from keras import layers, ops
from toys import Pair, Scale, number, ones

import mlsystem as ml

if keras.backend.backend() != "torch":
    pytest.skip("only torch has a step that is captured", allow_module_level=True)

from torch.utils._python_dispatch import TorchDispatchMode

from mlsystem.engine.torch import graph_branches


class HostReads(TorchDispatchMode):
    """Counts the times that the host reads a number of a tensor."""

    count = 0

    def __torch_dispatch__(self, fn, types, args=(), kwargs=None):
        self.count += fn.overloadpacket.__name__ in ("item", "is_nonzero", "_local_scalar_dense")
        return fn(*args, **kwargs or {})


def host_reads(system):
    """The number of these in one compiled step of a system that `trained` has made."""
    x, y = data()
    batch = {"net": x[:4], "other": np.ones((4, 1), "float32")}, {"net": y[:4]}
    with HostReads() as reads:
        system.train_function(iter([batch]))
    return reads.count


class Through(ml.MLSystem):
    """Minimizes the mean square of what a function makes of a model's outputs."""

    def __init__(self, function):
        super().__init__()
        self.model, self.function = Scale(1.0), function

    def forward(self, x, training=None):
        return self.function(self.model(x))

    def compute_losses(self, x, y, outputs):
        return {"model": ops.mean(outputs**2)}


def test_a_gradient_through_a_branch_is_eager_and_finite():
    class Guarded(Through):
        def compute_losses(self, x, y, outputs):
            count = ops.sum(x) * 0
            mean = ops.cond(count > 0, lambda: ops.sum(outputs) / count, lambda: ops.sum(outputs))
            return {"mean": mean}

    system = Guarded(lambda x: x)
    with pytest.warns(UserWarning, match="runs eagerly"):
        system.fit(X, batch_size=6, verbose=0)
    assert np.isfinite(system.get_weights()[0]).all()


def test_an_update_inside_a_branch_is_eager():
    class Sometimes(Pair):
        def train_step(self, data):
            ops.cond(ops.mean(data[0]) > 0, lambda: (self.update(data), None)[1], lambda: None)
            return self.get_metrics_result()

    found = []
    for given in ({"run_eagerly": True}, {}):
        pair = Sometimes()
        pair.compile(**given)
        with contextlib.nullcontext() if given else pytest.warns(UserWarning, match="eagerly"):
            pair.fit(ones(8), batch_size=4, verbose=0)
        found.append(number(pair.a.weight))
    assert found[0] == found[1] != 1.0


def test_a_product_that_is_left_out_keeps_its_layout():
    agree(lambda: Through(lambda x: ops.reshape(x[:, :2] * 1.0, (-1, 1))), X)


def test_batches_of_another_layout_are_another_kind():
    system = Through(lambda x: ops.reshape(x, (-1, 1)))
    for x in (X[:4], np.asfortranarray(X[:4])):
        system.train_on_batch(x)


def test_batch_norm_takes_the_variance_it_is_given():
    def normalized(x):
        mean, variance = ops.moments(x, [0])
        return ops.batch_normalization(x, mean, ops.maximum(variance, 9.0), -1)

    agree(lambda: Through(normalized), X)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 2, 3)], ids=str)
def test_batch_norm_of_any_rank(shape):
    def build():
        inner = [layers.Dense(int(np.prod(shape))), layers.Reshape(shape)]
        net = keras.Sequential([*inner, layers.BatchNormalization(), layers.Dense(2)])
        return ml.MLModel(net, loss="mse", optimizer=keras.optimizers.SGD(0.1))

    agree(build, X, np.zeros((len(X), *shape[:-1], 2), "float32"))


def test_a_step_that_failed_leaves_no_warning():
    net = keras.Sequential([layers.Input((3,)), layers.Dense(1)])
    model = ml.MLModel(net, loss="mse", optimizer="sgd")
    good, bad = (np.ones((4, 3)), np.ones((4, 1))), (np.ones((4, 2)), np.ones((4, 1)))
    with pytest.raises(ValueError, match="incompatible"):
        model.fit((batch for batch in (good, bad)), shuffle=False, verbose=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(*good, batch_size=4, verbose=0)
    assert not [each for each in caught if "runs eagerly" in str(each.message)]


def test_many_kinds_of_batches_are_not_all_captured():
    system = Through(lambda x: x)
    system.setup((X,))
    with pytest.warns(UserWarning, match="16 kinds of batches"):
        for n in range(1, 19):
            system.train_on_batch(np.ones((n, X.shape[1]), "float32"))


def test_a_loaded_model_is_captured_as_the_first_was(tmp_path):
    model = ml.MLModel(keras.Sequential([layers.Dense(1)]), loss="mse")
    model.fit(X, X[:, :1], verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_compile_config()["jit_compile"] == "auto"


def test_a_number_in_an_attribute_may_change():
    class Weighted(Pair):
        beta = 0.0

        def compute_losses(self, x, y, outputs):
            return {"a": ops.mean(outputs["b"]) * (1.0 + self.beta) + self.a.goal}

    def change(model, batch):
        model.beta, model.a.goal = float(batch == 1), float(batch)

    agree(Weighted, ones(16), act=change)


def test_a_step_that_counts_in_an_attribute_is_eager():
    class Counting(Through):
        calls = 0

        def forward(self, x, training=None):
            self.calls += 1
            return self.model(x) * self.calls

    system = Counting(None)
    with pytest.warns(UserWarning, match="sets an attribute to a number") as caught:
        system.fit(X, batch_size=6, epochs=2, verbose=0)
    ours = [warning for warning in caught if "runs eagerly" in str(warning.message)]
    assert system.calls > 6 and len(ours) == 1


def test_numpy_noise_is_eager():
    system = Through(lambda x: x + np.random.normal())
    with pytest.warns(UserWarning, match=r"np.random, once for all steps. Use keras.random"):
        system.fit(X, batch_size=6, verbose=0)


def test_nothing_is_captured_anew_between_fits():
    pair = Pair()
    for _ in range(3):
        pair.fit(ones(8), batch_size=4, verbose=0, validation_data=(ones(8), None))
        pair.predict(ones(8), batch_size=4, verbose=0)
    assert len(next(iter(pair.train_function.steps.values())).programs) == 1
    assert len(pair.test_function.programs) == 1


@pytest.mark.parametrize("wrong", ["wrong", 1, None])
def test_jit_compile_is_checked(wrong):
    with pytest.raises(ValueError, match="jit_compile"):
        Pair().compile(jit_compile=wrong)


def test_run_eagerly_may_be_set_later():
    calls = []
    system = Through(lambda x: calls.append(1) or x)
    system.fit(X, batch_size=6, verbose=0)
    system.run_eagerly = True
    before = len(calls)
    system.fit(X, batch_size=6, verbose=0)
    assert len(calls) == before + 3


def test_scalars_may_be_among_the_inputs():
    class Tempered(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.model = Scale(1.0)

        def forward(self, x, training=None):
            return self.model(x["x"]) * x["beta"]

        def compute_losses(self, x, y, outputs):
            return {"model": ops.mean(outputs**2, axis=-1)}

    Tempered().train_on_batch({"beta": np.float32(0.5), "x": X})


@pytest.mark.parametrize("name", ["adam", "averaging", "decaying", "momentum"])
def test_a_gpu_skips_updates_without_waiting_for_the_host(name, monkeypatch):
    assert host_reads(trained((), name)[0]) > 0  # a branch on a CPU
    monkeypatch.setattr(graph_branches, "has", lambda condition: False)  # as on a GPU
    expected, _, _ = trained((1, 3), name, drop=True)
    found, _, _ = trained((1, 3), name)
    for a, b in zip(state(expected, expected.net), state(found, found.net), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert host_reads(found) == 0


def test_two_threads_capture_in_turn_and_others_draw_as_ever():
    """One system is trained, and numbers are drawn, while another system is captured."""
    found, caught = [], []
    entered = threading.Event()

    def train(system):
        try:
            system.fit(ones(8), batch_size=4, verbose=0)
        except Exception as error:  # warnings too
            caught.append(error)

    def draw():
        keras.utils.set_random_seed(1)
        found.append(number(keras.random.normal((), seed=keras.random.SeedGenerator(3))))

    class Second(Pair):
        def forward(self, x):
            if graph_branches.is_traced():
                entered.set()
            return super().forward(x)

    class First(Pair):
        def forward(self, x):
            if graph_branches.is_traced() and not other.is_alive() and not found:
                drawing.start()
                drawing.join()
                other.start()
                entered.wait(1)  # in vain: the other one waits until this one is captured
            return super().forward(x)

    drawing = threading.Thread(target=draw)
    other = threading.Thread(target=train, args=(Second(),))
    draw()
    found, expected = [], found
    train(First())
    other.join()
    assert not caught and found == expected
