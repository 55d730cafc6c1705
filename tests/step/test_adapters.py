"""`ml.without_adapters`: what a model with LoRA computes with its adapters off."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import mlsystem as ml

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(size=(8, 4, 6)).astype("float32")
WORDS = RNG.integers(0, 5, (8, 4)).astype("int32")
KINDS = {
    "dense": (lambda: layers.Dense(3), FLOATS),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 3)), FLOATS),
    "conv": (lambda: layers.Conv1D(3, 2), FLOATS),
    "embedding": (lambda: layers.Embedding(5, 6), WORDS),
}


def moved(layer, by=0.3):
    """The layer, with adapters that change what it computes."""
    for weight in layer.trainable_weights:
        if "lora" in weight.name:
            weight.assign(weight.value + by)
    return layer


def numpy(value):
    return ops.convert_to_numpy(value)


@pytest.mark.parametrize(
    "kind, quantized",
    [*((kind, False) for kind in KINDS), *((kind, True) for kind in KINDS if kind != "conv")],
)
@pytest.mark.spread
def test_inside_a_layer_computes_what_it_did_before_its_adapter(kind, quantized):
    make, x = KINDS[kind]
    layer = make()
    layer.build(x.shape)
    if quantized:
        layer.quantize("int8")
    before = numpy(layer(x))
    layer.enable_lora(2)
    after = numpy(moved(layer)(x))
    with ml.without_adapters(layer):
        inside = numpy(layer(x))
    np.testing.assert_array_equal(inside, before)
    np.testing.assert_array_equal(numpy(layer(x)), after)
    assert np.abs(after - before).max() > 0.1


def quantize(net, quantized):
    for layer in net.layers if quantized else ():
        layer.quantize("int8")


class Policy(ml.MLSystem):
    """A policy with adapters, drawn to targets and to itself without adapters."""

    def __init__(self, quantized=False, stop=True):
        super().__init__()
        net = keras.Sequential([layers.Input((6,)), layers.Dense(5, "tanh"), layers.Dense(3)])
        for i, weight in enumerate(net.weights):
            weight.assign(np.random.default_rng(i).normal(size=weight.shape))
        self.net = ml.MLModel(net, optimizer=keras.optimizers.SGD(0.1), name="net")
        quantize(net, quantized)
        self.before = numpy(net(FLOATS[:, 0]))
        for layer in net.layers:
            layer.bias.trainable = not stop
            layer.enable_lora(2)
            for weight in (layer.lora_kernel_a, layer.lora_kernel_b):
                weight.assign(np.random.default_rng(7).normal(size=weight.shape))
        self.stop = ops.stop_gradient if stop else lambda value: value

    def reference(self, x):
        with ml.without_adapters(self.net):
            return self.net(x)

    def forward(self, x):
        return {"policy": self.net(x), "reference": self.stop(self.reference(x))}

    def compute_losses(self, x, y, outputs):
        apart = ops.mean((outputs["policy"] - outputs["reference"]) ** 2)
        return {"net": ops.mean((outputs["policy"] - y) ** 2) + 0.1 * apart}


class TwoCopies(Policy):
    """The same with a second, frozen copy of the policy as it was before."""

    def __init__(self, quantized=False):
        super().__init__(quantized)
        [first, second] = self.net.net.layers
        copies = [layers.Dense(5, "tanh"), layers.Dense(3)]
        self.copy = keras.Sequential([layers.Input((6,)), *copies])
        quantize(self.copy, quantized)
        for copy, layer in zip(copies, (first, second), strict=True):
            known = {weight.name: weight for weight in layer.weights}
            for weight in copy.weights:
                weight.assign(known[weight.name])
        self.copy.trainable = False

    def reference(self, x):
        return self.copy(x)


X, Y = FLOATS[:, 0], np.ones((8, 3), "float32")


@pytest.mark.parametrize("quantized, eager", [(False, False), (True, False), (False, True)])
@pytest.mark.spread
def test_training_equals_training_with_a_second_copy(quantized, eager):
    weights = []
    for cls in (Policy, TwoCopies):
        system = cls(quantized)
        system.compile(run_eagerly=eager)
        system.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append([numpy(weight) for weight in system.net.trainable_weights])
        inside = system.reference(X)
        np.testing.assert_allclose(numpy(inside), system.before, rtol=1e-6, atol=1e-6)
        assert np.abs(numpy(system.net(X)) - system.before).max() > 0.1
    for mine, other in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_no_gradient_reaches_adapters_inside():
    class Reference(Policy):
        def compute_losses(self, x, y, outputs):
            return {"net": ops.mean((outputs["reference"] - y) ** 2)}

    system = Reference(stop=False)
    before = {weight.path: numpy(weight).copy() for weight in system.net.trainable_weights}
    assert len(before) == 6
    system.fit(X, Y, epochs=2, verbose=0)
    for weight in system.net.trainable_weights:
        moves = np.abs(numpy(weight) - before[weight.path]).max() > 1e-6
        assert moves == ("lora" not in weight.name), weight.path


def test_predict_and_evaluate_follow_the_context():
    system = Policy()
    net, plain = system.net, keras.Sequential([layers.Input((6,)), layers.Dense(3)])
    plain.layers[0].enable_lora(2)
    moved(plain.layers[0])
    for model in (net, plain, system):
        inner = net if model is system else model
        tensor = (lambda out: out["policy"]) if model is system else (lambda out: out)
        on = tensor(model.predict(X, verbose=0))
        with ml.without_adapters(inner):
            off = tensor(model.predict(X, verbose=0))
            expected = numpy(tensor(model(X)))
        np.testing.assert_allclose(off, expected, rtol=1e-5, atol=1e-6)
        assert np.abs(on - off).max() > 0.1
        np.testing.assert_array_equal(tensor(model.predict_on_batch(X)), on)
    on = system.evaluate(X, Y, return_dict=True, verbose=0)["loss"]
    with ml.without_adapters(net):
        off = system.evaluate(X, Y, return_dict=True, verbose=0)["loss"]
    assert off == pytest.approx(np.mean((system.before - Y) ** 2), rel=1e-4)
    assert system.evaluate(X, Y, return_dict=True, verbose=0)["loss"] == on != off


def test_contexts_nest_and_an_error_puts_adapters_back():
    net = Policy().net
    layers_of = net.net.layers
    with ml.without_adapters(net):
        with ml.without_adapters(layers_of[0]):
            assert not any(layer.lora_enabled for layer in layers_of)
        assert not any(layer.lora_enabled for layer in layers_of)
    assert all(layer.lora_enabled for layer in layers_of)
    with pytest.raises(ZeroDivisionError), ml.without_adapters(net):
        raise ZeroDivisionError
    assert all(layer.lora_enabled for layer in layers_of)


def test_a_layer_that_is_built_inside_keeps_its_adapter():
    layer = layers.Dense(3, lora_rank=2)
    with ml.without_adapters(layer):
        inside = numpy(layer(X))
    assert layer.lora_enabled
    np.testing.assert_array_equal(numpy(layer(X)), inside)


def test_a_model_without_adapters_is_an_error():
    model = keras.Sequential([layers.Dense(1)], name="policy")
    with (
        pytest.raises(ValueError, match=r"'policy' has no LoRA adapters.*enable_lora\(rank\)"),
        ml.without_adapters(model),
    ):
        pass
    with pytest.raises(TypeError, match="got 3"), ml.without_adapters(3):
        pass


def test_fit_inside_the_context_is_an_error():
    system = Policy()
    before = [numpy(weight) for weight in system.weights]
    with (
        ml.without_adapters(system.net),
        pytest.raises(ValueError, match="where the adapters of"),
    ):
        system.fit(X, Y, verbose=0)
    for old, weight in zip(before, system.weights, strict=True):
        np.testing.assert_array_equal(old, numpy(weight))
    system.fit(X, Y, verbose=0)
