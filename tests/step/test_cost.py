"""One forward pass a phase, one pruned backward pass for each distinct row of the routing."""

import keras
import parity_systems as systems
import pytest
from toys import Critics, Target, TinyGAN, ones

import mlsystem as ml

BACKEND = keras.backend.backend()


def test_a_gan_takes_two_backward_passes_each_into_its_own_model(backward_passes):
    gan = systems.GAN().setup({k: v[:16] for k, v in systems.data()[0].items()})
    gan.compile(run_eagerly=BACKEND == "tensorflow")
    gan.train_on_batch({k: v[:16] for k, v in systems.data()[0].items()})
    generator, discriminator = (len(m.trainable_weights) for m in gan._mlsystem.models().values())
    assert backward_passes[-2:] == [generator, discriminator]
    assert len(backward_passes) == 4  # the rehearsal and the step


@pytest.mark.parametrize("count", [1, 7])
def test_the_sum_takes_one_backward_pass_for_any_number_of_models(backward_passes, count):
    class Many(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.models = [Target() for _ in range(count)]

        def forward(self, x):
            return {f"models/{i}": model(x) for i, model in enumerate(self.models)}

    Many().train_on_batch(ones())
    assert backward_passes == [count, count]


def test_models_with_equal_rows_share_a_pass(backward_passes):
    system = Critics()
    system.routing = {
        "critics": {"critics/0": 1, "critics/1": 1},
        "heads": {"heads/left": 1},
        "self": {"heads/left": 1},
    }
    system.train_on_batch(ones())
    assert backward_passes == [2, 2] * 2


def test_each_forward_is_run_once_a_phase():
    gan = TinyGAN()
    gan.train_on_batch(ones())
    assert gan.forwards.count(True) == 2  # the rehearsal, and the step or its trace
    gan = TinyGAN()
    gan.phases = ["discriminator", "generator"]
    gan.train_on_batch(ones())
    assert gan.forwards.count(True) == 4


@pytest.mark.skipif(BACKEND != "jax", reason="what XLA makes of the step is a question of jax")
def test_the_compiled_step_holds_no_second_forward_pass():
    x = {k: v[:16] for k, v in systems.data()[0].items()}
    gan = systems.GAN().setup(x)
    gan.train_on_batch(x)
    text = next(iter(gan.train_function.steps.values())).lower((x, None, None)).compile().as_text()
    # forward: 4 products and 2 convolutions; into the discriminator 4 and 2, into the generator
    # 1 and 1 through the discriminator and 3 of its own
    assert text.count(" dot(") <= 12
    assert text.count(" convolution(") <= 5
