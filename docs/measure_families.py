"""Measures the numbers on the page "What should I see?" (docs/what_to_see.md).

    KERAS_BACKEND=jax python docs/measure_families.py [FAMILY ...]

Each family of systems is trained several times on small data: once so that it works, and once for
each common way to fail. The systems are those of examples/.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

# isort: split
import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits


def example(name):
    path = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def show(title, history, names, result):
    print(f"\n{title}: {result}", flush=True)
    count = len(next(iter(history.values())))
    for epoch in sorted({0, count // 8, count // 2, count - 1}):
        values = (f"{name} {history[name][epoch]:.4g}" for name in names)
        print(f"  epoch {epoch + 1:3d}: " + ", ".join(values), flush=True)


def digits(flat=True):
    images, labels = load_digits(return_X_y=True)
    images = images.astype("float32") / 16
    return (images if flat else images.reshape(-1, 8, 8, 1)), labels


def gan():
    module = example("balanced_gan")
    rates = {
        "works": (1e-3, 1e-3),
        "the discriminator wins": (1e-5, 1e-3),
        "the discriminator is too fast": (1e-3, 1e-1),
        "the discriminator is too slow": (1e-3, 1e-5),
    }
    for title, (rate, other) in rates.items():
        keras.utils.set_random_seed(0)
        system = module.GAN()
        system.generator = module.Generator(
            module.net(2), optimizer=keras.optimizers.Adam(rate, 0.5)
        )
        system.discriminator = module.Discriminator(
            module.net(1), optimizer=keras.optimizers.Adam(other, 0.5)
        )
        points = module.ring(np.random.default_rng(0), 12800)
        norms = ml.callbacks.GradientNorms(every=20)
        history = system.fit(
            points, batch_size=128, epochs=40, verbose=0, callbacks=[norms]
        ).history
        z = np.random.default_rng(1).normal(size=(2000, system.latent)).astype("float32")
        modes, hits = module.covered(system.generator.predict(z, verbose=0))
        names = ["generator_loss", "discriminator_loss", "generator_gradient_norm_generator"]
        show(
            f"GAN, {title}",
            history,
            names,
            f"{modes} of 8 Gaussians, {hits:.0%} of the samples on one",
        )


def wgan_gp():
    module = example("wgan_gp")
    images, _ = digits()

    class Unpenalized(module.Critic):
        def loss(self, x, y, outputs):
            return super().loss(x, y, outputs) | {"penalty": ops.zeros(())}

    for title, critic in {"works": module.Critic, "without the penalty": Unpenalized}.items():
        keras.utils.set_random_seed(0)
        system = module.WGAN()
        system.critic = critic(module.mlp("leaky_relu", 1), optimizer=module.adam())
        history = system.fit(images, batch_size=64, epochs=60, verbose=0).history
        z = np.random.default_rng(1).normal(size=(1000, 16)).astype("float32")
        samples = system.generator.predict(z, verbose=0)
        nearest = ((samples[:, None] - images[None]) ** 2).sum(-1).min(-1).mean()
        spread = ((samples[:500, None] - samples[None, 500:]) ** 2).sum(-1).mean()
        names = ["critic_wasserstein", "critic_penalty", "generator_loss"]
        real = ((images[:500, None] - images[None, 500:1000]) ** 2).sum(-1).mean()
        show(
            f"WGAN-GP, {title}", history, names,
            f"squared distance of a sample to the nearest digit {nearest:.1f}, between samples "
            f"{spread:.1f} (between digits {real:.1f})",
        )  # fmt: skip


def vae():
    module = example("vae")
    images, _ = digits()
    for title, weight in {"works": 1.0, "KL weight 20": 20.0, "KL weight 0.001": 1e-3}.items():
        keras.utils.set_random_seed(0)
        system = module.VAE()
        system.compile(loss_weights={"kl": weight})
        history = system.fit(images[360:], batch_size=64, epochs=40, verbose=0).history
        names = ["encoder_kl", "decoder_reconstruction"]
        found = system.evaluate(images[:360], verbose=0, return_dict=True)
        show(f"VAE, {title}", history, names, f"ELBO of unseen digits {-found['loss']:.1f} nats")


def byol():
    module = example("byol")
    images, labels = digits(flat=False)
    for title in ("works", "no predictor, target without average"):
        keras.utils.set_random_seed(0)
        system = module.BYOL() if title == "works" else module.BYOL(momentum=0.0)
        if title != "works":
            system.predictor = keras.layers.Identity()
        history = system.fit(images, batch_size=64, epochs=20, verbose=0).history
        projected = ops.normalize(system.online(images, training=False), axis=-1)
        spread = float(ops.mean(ops.std(projected, axis=0)))
        accuracy = module.probe(system.online.layers[0], images, labels)
        result = f"probe {accuracy:.3f}, spread of normalized projections {spread:.3f}"
        show(f"BYOL, {title}", history, ["byol_loss"], result)


def distillation():
    images, labels = digits()

    def net(*units):
        return keras.Sequential(
            [layers.Dense(n, activation="relu") for n in units] + [layers.Dense(10)]
        )

    class Distillation(ml.MLSystem):
        def __init__(self, teacher, student, temperature=4.0):
            super().__init__()
            self.teacher, self.student, self.temperature = teacher, student, temperature
            self.teacher.trainable = False

        def forward(self, x):
            return {"teacher": self.teacher(x), "student": self.student(x)}

        def compute_losses(self, x, y, outputs):
            soft = ops.softmax(outputs["teacher"] / self.temperature)
            logits = outputs["student"] / self.temperature
            kl = keras.losses.kl_divergence(soft, ops.softmax(logits))
            hard = keras.losses.sparse_categorical_crossentropy(
                y, outputs["student"], from_logits=True
            )
            return {"distillation": self.temperature**2 * kl, "labels": hard}

    for title in ("works", "the teacher is not trained"):
        keras.utils.set_random_seed(0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        teacher = ml.MLModel(net(256, 256), loss=loss)
        if title == "works":
            teacher.fit(images[360:], labels[360:], epochs=20, verbose=0)
        system = Distillation(teacher, net(16)).setup((images[:2], labels[:2]))
        system.compile(loss_weights={"labels": 0.1})
        history = system.fit(images[360:], labels[360:], epochs=40, verbose=0).history
        right = [
            np.mean(np.argmax(model.predict(images[:360], verbose=0), -1) == labels[:360])
            for model in (system.teacher, system.student)
        ]
        names = ["distillation_loss", "labels_loss"]
        show(
            f"Distillation, {title}",
            history,
            names,
            f"teacher {right[0]:.3f}, student {right[1]:.3f}",
        )


def actor_critic():
    module = example("td3")
    for title in ("works", "targets without average, discount 1"):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        system = module.TD3() if title == "works" else module.TD3(discount=1.0)
        if title != "works":
            for copy in (system.target_actor, *system.target_critics):
                copy.momentum = 0.0

        def policy(x, noise=0.0):
            action = ops.convert_to_numpy(system.actor(x))  # noqa: B023
            return np.clip(action + noise * rng.normal(size=action.shape), -1, 1)  # noqa: B023

        memory = module.play(rng, lambda x: rng.uniform(-1, 1, (len(x), 1)), 16, 100)  # noqa: B023
        history, rewards = {"error_loss": [], "policy_loss": []}, []
        for _ in range(25):
            drawn = rng.integers(len(memory["reward"]), size=128 * 200)
            replay = {name: array[drawn] for name, array in memory.items()}
            logs = system.fit(replay, batch_size=128, verbose=0).history
            for name, values in history.items():
                values.append(logs[name][-1])
            new = module.play(rng, lambda x: policy(x, 0.2), 16, 100)
            memory = {name: np.concatenate([memory[name], new[name]]) for name in memory}
            rewards.append(module.play(np.random.default_rng(1), policy, 64, 100)["reward"].mean())
        show(
            f"TD3, {title}",
            history,
            list(history),
            f"mean reward {rewards[0]:.3f} to {rewards[-1]:.3f}",
        )


def dann():
    module = example("domain_adaptation")
    weights = {
        "works": lambda: module.Reversal(0.5, 20 * 23),
        "no reversal": lambda: 0.0,
        "reversal of weight 20 from the start": lambda: -20.0,
    }
    for title, weight in weights.items():
        keras.utils.set_random_seed(0)
        x, y, x_test, y_test = module.domains(1797, 0)
        system = module.DANN(weight())
        history = system.fit(x, y, batch_size=32, epochs=20, verbose=0).history
        logits = ops.convert_to_numpy(system.digit(system.features(x_test)))
        accuracy = np.mean(np.argmax(logits, axis=-1) == y_test)
        show(
            f"DANN, {title}",
            history,
            ["digit_loss", "domain_loss"],
            f"accuracy {accuracy:.3f} on the target",
        )


FAMILIES = {f.__name__: f for f in (gan, wgan_gp, vae, byol, distillation, actor_critic, dann)}

if __name__ == "__main__":
    for name in sys.argv[1:] or FAMILIES:
        FAMILIES[name]()
