"""The step in words."""

import keras
import pytest
from keras import ops
from toys import Critics, Pair, TinyGAN, ones

import mlsystem as ml
from mlsystem.diagnostics import wording

COMPILED = {
    "jax": "whole, by jax.jit",
    "torch": "whole, by torch (captured graph)",
    "tensorflow": "whole, by tf.function",
}


def test_what_one_batch_does():
    gan = TinyGAN()
    gan.averaged = ml.EMA(gan.generator, 0.995)
    gan.update_when = {"discriminator": lambda losses: losses["discriminator"] > 0.5}
    found = gan.setup(ones()).explain()
    assert repr(found) == str(found)
    assert found.splitlines() == [
        "TinyGAN, one batch",
        "  forward    discriminator(x) → real",
        "             generator(x)",
        "             discriminator(generator) → fake",
        "             1 forward pass, shared by all losses",
        "  losses     generator, from discriminator",
        "             discriminator = fake + real, from discriminator",
        "  gradients  discriminator follows discriminator × 1",
        "             generator follows generator × 1",
        "             2 backward passes",
        "  update     discriminator  SGD 0.01           when discriminator > 0.5",
        "             generator      SGD 0.1            every batch",
        "             averaged       follows generator  momentum 0.995",
        f"  compiled   {COMPILED[keras.backend.backend()]}",
    ]


def test_how_the_step_is_compiled():
    gan = TinyGAN()
    gan.fit(ones(), verbose=0)
    compiled = str(gan.explain()).splitlines()[-1]
    assert COMPILED[keras.backend.backend()].rstrip(")") in compiled
    assert ("operations" in compiled) == (keras.backend.backend() == "torch")
    gan.compile(run_eagerly=True)
    assert "not compiled: runs eagerly" in gan.setup(ones()).explain()


@pytest.mark.once
def test_many_models_take_few_lines():
    found = str(Critics().setup(ones()).explain())
    assert "critics/0, critics/1, heads/left and self" not in found  # `self` has no loss
    assert all(len(line) <= 100 for line in found.splitlines())
    pair = str(Pair().setup(ones()).explain())
    assert "a and b follow a × 1 and b × 1" in pair and "1 backward pass" in pair


@pytest.mark.once
def test_conditions_are_written_as_formulas_where_they_are_some():
    names = ["a", "b"]
    level = 0.25

    def is_close(losses):
        return ops.abs(losses["a"]) < 1

    assert wording.condition(lambda n: n["a"] > level, names) == "a > 0.25"
    assert wording.condition(lambda n: 2 * n["a"] <= n["b"], names) == "its condition holds"
    assert wording.condition(lambda n: n["a"] - n["b"] <= 1, names) == "a − b ≤ 1"
    assert wording.condition(lambda n: (n["a"] - n["b"]) / n["b"] > 1, names) == "(a − b) / b > 1"
    assert wording.condition(lambda n: n["a"] - n["b"] / 2 > 1, names) == "a − b / 2 > 1"
    assert wording.condition(lambda n: n["a"] - (n["b"] - 2) > 1, names) == "a − (b − 2) > 1"
    moved = keras.Variable(0.5)
    assert wording.condition(lambda n: n["a"] > moved, names) == "a > 0.5 now (variable)"
    assert wording.condition(lambda n: n["a"] > 0 and n["b"] > 0, names) == "its condition holds"
    assert wording.condition(is_close, names) == "is_close is true"
