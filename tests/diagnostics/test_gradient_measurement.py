"""The measurement of gradients while models are unfrozen, and in phases."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import TinyGAN, approx, ones

import mlsystem as ml
from mlsystem.diagnostics.gradient_measurement import FollowedNorms


class Unfreeze(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.generator.trainable = epoch >= 1


def test_a_model_that_is_unfrozen_during_fit_is_measured():
    norms, advice = ml.callbacks.GradientNorms(every=1), ml.callbacks.Advice(every=1, warn=False)
    gan = TinyGAN()
    history = gan.fit(
        ones(8), batch_size=4, epochs=2, verbose=0, callbacks=[Unfreeze(), norms, advice]
    ).history
    assert history["generator_gradient_norm_generator"][-1] > 0
    assert {"discriminator", "generator"} == set(advice._run.ratios)


def test_the_followed_gradient_of_a_model_that_is_unfrozen():
    gan = TinyGAN()
    gan.setup(ones())
    measured = FollowedNorms(gan._mlsystem)
    gan.generator.trainable = False
    gan.setup(ones())
    assert set(measured(ones())) == {"discriminator"}
    gan.generator.trainable = True
    gan.setup(ones())
    assert measured(ones())["generator"] == approx(3.0)


class Phased(TinyGAN):
    """The fake of the phase that updates the discriminator is cut from the generator."""

    phases = (("discriminator",), ("generator",))

    def forward(self, x, phase=None):
        fake = self.generator(x)
        if phase == 0:
            fake = ops.stop_gradient(fake)
        return {"real": self.discriminator(x), "fake": self.discriminator(fake)}


def test_each_model_is_measured_in_a_phase_that_updates_it():
    gan = Phased()
    report = gan.gradient_report(ones())
    assert report.dead == []
    assert report["generator"]["generator"] == approx(3.0)  # dL/dg = -d
    assert report["discriminator"]["discriminator"] == approx(1.0)  # dL/dd = g - 1
    assert FollowedNorms(gan._mlsystem)(ones()) == approx({"discriminator": 1.0, "generator": 3.0})


@pytest.mark.once
def test_advice_finds_no_dead_route_in_a_phase_that_does_not_update_the_model():
    advice = ml.callbacks.Advice(every=1, warn=False, update_ratios=None)
    Phased().fit(np.ones((16, 1)), batch_size=4, verbose=0, callbacks=[advice])
    assert advice.sentences() == []
