"""The examples with networks of KerasHub, on each backend. `tox -e ship` has the package."""

import keras
import numpy as np
import pytest
from optional import needs
from test_examples import FOLDER, HUB, load, numbers

# KerasHub 0.32 and what it imports call functions in old ways. Keras 3.15 transposes the scales of
# quantized layers by `x.T` on torch.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors:UserWarning"),
]

# What `main` of each example is given, so that it takes seconds.
TINY = {
    "hub_distillation": {"steps": 2, "epochs": 1, "few": 64, "held_out": 64},
    "hub_dpo": {"steps": 2, "epochs": 1, "count": 40},
    "hub_grpo": {"steps": 2, "rounds": 2, "prompts": 2, "held_out": 16},
}


def example(name):
    needs("keras_hub")
    return load(FOLDER / f"{name}.py")


@pytest.mark.parametrize("name", sorted(HUB))
def test_runs(name):
    figures = example(name).main(**TINY[name])
    assert np.isfinite(numbers(figures)).all()
    if name == "hub_dpo":  # the policy starts as the reference
        assert figures["loss before"] == pytest.approx(np.log(2), abs=1e-6)
        assert figures["margin before"] == pytest.approx(0, abs=1e-5)
        assert abs(figures["margin after"]) > 1e-5


def test_dpo_follows_the_gradient_of_the_paper():
    """Equation 7: -beta * sigmoid(-margin) times the difference of the two gradients."""
    dpo = example("hub_dpo")
    net = dpo.llama()
    net.backbone.enable_lora(2)
    for weight in net.trainable_weights:
        weight.assign(np.random.default_rng(0).normal(0, 0.1, weight.shape))
    model = dpo.DPO(net, beta=0.5)
    pairs = dpo.documentation(0)[:6].reshape(3, 2, dpo.LENGTH)
    outputs = {k: keras.ops.convert_to_numpy(v) for k, v in model(pairs).items()}
    ratios = outputs["policy"] - outputs["reference"]
    margin = 0.5 * (ratios[:, 0] - ratios[:, 1])
    weight = (0.5 / (1 + np.exp(margin)) / 3).astype("float32")

    def by_hand():
        chances = model(pairs)["policy"]
        return keras.ops.sum(keras.ops.multiply(-weight, chances[:, 0] - chances[:, 1]))

    model.setup(pairs)
    check_gradients(model, pairs, by_hand)


def check_gradients(model, data, by_hand):
    [found], [expected] = (model.gradients(of).values() for of in (data, by_hand))
    assert len(found) == len(expected) == 8  # two factors of two kernels in two layers
    for pair in zip(found, expected, strict=True):
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, pair), atol=1e-5)


def test_grpo_starts_at_zero_and_follows_the_advantages():
    """At the start, the gradient is that of the mean advantage times the log probability."""
    grpo = example("hub_grpo")
    assert np.allclose(grpo.advantages(np.arange(8.0)).mean(), 0)
    net = grpo.llama()
    net.backbone.enable_lora(2)
    model = grpo.GRPO(net)
    x = {"tokens": grpo.documentation(0)[:8], "advantage": grpo.advantages(np.arange(8.0))}
    x["advantage"] = x["advantage"].astype("float32")

    def by_hand():
        chances = model(x)["policy"]
        return -keras.ops.mean(keras.ops.multiply(chances, x["advantage"][:, None]))

    divergence = model.evaluate(x, verbose=0, return_dict=True)["divergence"]
    assert divergence == pytest.approx(0, abs=1e-6)
    check_gradients(model, x, by_hand)


def test_rewards_are_the_share_of_known_words():
    grpo = example("hub_grpo")
    row = np.full(grpo.LENGTH, ord(" "))
    row[grpo.PROMPT :] = np.frombuffer(b"class xqzt return a is the if   ", "uint8")
    assert grpo.rewards(row[None]) == pytest.approx(18 / 32)
