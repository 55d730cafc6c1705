"""The terms of a loss have weights of their own, in `loss_weights` and in `routing`."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import Scale, number, ones

import mlsystem as ml


class Encoder(Scale):
    """fit = mean(encoder), kl = 10 mean(encoder) + 100 mean(decoder), and a regularizer."""

    def forward(self, x):
        self.add_loss(1000 * self.weight)
        return super().forward(x)

    def loss(self, x, y, outputs):
        own, other = ops.mean(outputs["encoder"]), ops.mean(outputs["decoder"])
        return {"fit": own, "kl": 10 * own + 100 * other}


class Decoder(Scale):
    def loss(self, x, y, outputs):
        return {"fit": ops.mean(outputs["decoder"])}


class VAE(ml.MLSystem):
    """Outputs are the weights, of which each gradient is a constant."""

    def __init__(self, **given):
        super().__init__()
        self.encoder = Encoder(optimizer=keras.optimizers.SGD(1.0))
        self.decoder = Decoder(optimizer=keras.optimizers.SGD(1.0))
        for name, value in given.items():
            setattr(self, name, value)

    def forward(self, x):
        return {"encoder": self.encoder(x), "decoder": self.decoder(x)}


def moved(system, loss_weights=None, **given):
    """How far a step moves the two models, and its logs."""
    system.compile(loss_weights=loss_weights, run_eagerly=True, **given)
    system.setup(ones())
    inner = getattr(system, "vae", system)
    models = inner.encoder, inner.decoder
    for model in models:
        model.weight.assign(1.0)
    logs = system.fit(ones(), verbose=0).history
    return [round(1 - number(model.weight), 3) for model in models], logs


def test_a_term_is_weighed_and_the_logs_are_not():
    plain, logs = moved(VAE())
    assert plain == [1011, 101]
    for name in ("kl", "encoder_kl"):
        found, weighed = moved(VAE(), {name: 0.5})
        assert found == [1 + 5 + 1000, 50 + 1] and weighed == logs
    assert logs["encoder_kl"] == [110] and logs["encoder_loss"] == [1111]


@pytest.mark.once
def test_the_weight_of_a_term_counts_in_place_of_that_of_its_loss():
    assert moved(VAE(), {"encoder": 2.0, "kl": 0.5})[0] == [2 + 5 + 2000, 50 + 1]
    assert moved(VAE(), {"encoder": 2.0, "kl": 0})[0] == [2 + 2000, 1]
    assert moved(VAE(), 2.0)[0] == [2022, 202]
    schedule = keras.optimizers.schedules.PolynomialDecay(0.5, 10, end_learning_rate=1.0)
    assert moved(VAE(), {"kl": schedule})[0] == [1006, 51]


def test_a_term_is_routed():
    table = {"encoder": {"encoder": 1.0, "kl": -1.0}, "decoder": {"decoder_fit": 2.0}}
    found, logs = moved(VAE(routing=table), {"kl": 0.5})
    assert found == [1 - 5 + 1000, 2]
    assert logs["decoder_loss"] == [1] and logs["encoder_kl"] == [110]
    assert moved(VAE(routing="own"), {"kl": 0.5})[0] == [1006, 1]


@pytest.mark.once
def test_names_that_are_no_terms_say_which_are():
    for given in ({"loss_weights": {"kk": 1.0}}, {"routing": {"encoder": {"kk": 1.0}}}):
        system = VAE(**{n: v for n, v in given.items() if n == "routing"})
        with pytest.raises(ValueError, match=r"'kk', which does not exist.*'encoder_kl'"):
            moved(system, given.get("loss_weights"))
    with pytest.raises(ValueError, match=r"routing of 'encoder' names the loss 'kk', .*losses are"):
        moved(VAE(routing={"encoder": {"kk": 1.0}}))
    with pytest.raises(ValueError, match=r"are losses, .*rows are models and columns are losses"):
        moved(VAE(routing={"encoder": {"decoder": 1.0}, "kl": {"encoder": 1.0}}))
    with pytest.raises(ValueError, match="'encoder_fit' or 'decoder_fit'"):
        moved(VAE(), {"fit": 1.0})


class Nested(ml.MLSystem):
    def __init__(self, loss_weights):
        super().__init__()
        self.vae = VAE()
        self.vae.compile(loss_weights=loss_weights)

    def forward(self, x):
        return {"vae": self.vae(x)}


@pytest.mark.once
def test_in_a_nested_system():
    found, logs = moved(Nested({"kl": 0.5}))
    assert found == [1006, 51] and logs["vae/encoder_kl"] == [110]


@pytest.mark.once
def test_beside_a_balance_a_condition_and_the_summary(capsys):
    system = VAE(balance=ml.balance.Uncertainty(["encoder", "decoder"]))
    system.update_when = {"decoder": lambda losses: losses["encoder_kl"] > 0}
    found, logs = moved(system, {"kl": 0.5})
    assert found == [503, 25.5]  # half of it, where the balance starts
    assert logs["decoder_updated"] == [1]
    assert system.gradient_report(ones()).dead == [("decoder", "encoder")]  # not reached
    system.summary()
    assert "encoder/kl * 0.5" in capsys.readouterr().out


class Alone(ml.MLModel):
    def __init__(self):
        super().__init__(optimizer=keras.optimizers.SGD(1.0))
        self.weight = self.add_weight(shape=(), initializer="ones", regularizer=lambda w: 1000 * w)

    def forward(self, x):
        return x * self.weight

    def loss(self, x, y, outputs):
        return {"fit": ops.mean(outputs), "kl": 10 * ops.mean(outputs)}


@pytest.mark.once
def test_of_a_model_alone():
    for weights, expected in (({"kl": 0.5}, 1006), (None, 1011), (2.0, 2022)):
        model = Alone()
        model.compile(keras.optimizers.SGD(1.0), loss_weights=weights, run_eagerly=True)
        logs = model.fit(ones(), verbose=0).history
        assert round(1 - number(model.weight), 3) == expected and logs["loss"] == [1011]
    with pytest.raises(ValueError, match="which does not exist"):
        model.compile("sgd", loss_weights={"kk": 1.0})
        model.fit(ones(), verbose=0)
    with pytest.raises(ValueError, match="Give a number"):
        model.compile("sgd", loss_weights={"kl": keras.Variable(1.0)})
    np.testing.assert_equal(number(model.weight), 1 - 2022)
