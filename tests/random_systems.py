"""Systems drawn at random from a seed: what one says of itself in one way, it must say in others.

`draw(seed)` gives a description in plain Python, `build(description)` the system, with weights from
NumPy, so that backends can be compared. In the tests the compiled step is compared with the eager
one; backends are compared by hand, each in a process of its own:

    KERAS_BACKEND=jax python -m tests.random_systems --seeds 200 --out jax.npz
    KERAS_BACKEND=torch python -m tests.random_systems --seeds 200 --out torch.npz
    python -m tests.random_systems --compare jax.npz torch.npz

`--eager` runs the steps eagerly, `--both` compares them with compiled ones, and `--start` is the
first seed. A seed that fails is printed with its description, and the others go on.
"""

import argparse
import os
import random
import sys
import traceback
import warnings

import numpy as np

WIDTH, BATCH, WORDS = 3, 4, 5
POLICIES = ["float32"] * 6 + ["mixed_bfloat16", "mixed_float16"]
RTOL = {"float32": 2e-4, "mixed_bfloat16": 5e-2, "mixed_float16": 2e-2}


# What is drawn ----------------------------------------------------------------------------------


def draw(seed, steps=3):
    """The description of a system and of its data: numbers, words, lists and dicts only."""
    rng = random.Random(seed)
    policy = rng.choice(POLICIES)
    models = {f"m{i}": draw_model(rng) for i in range(rng.randint(2, 5))}
    names = list(models)
    nested = names[: rng.randint(1, len(names) - 1)] if rng.random() < 0.3 else []
    paths = {name: f"inner/{name}" if name in nested else name for name in names}
    drawn = {
        "seed": seed,
        "steps": steps,
        "policy": policy,
        "models": models,
        "nested": nested,
        "paths": paths,
        "inner_routing": rng.choice(["sum", "own"]),
        "routing": draw_routing(rng, names, nested),
        "phases": draw_phases(rng, list(paths.values())),
        "update_every": draw_some(rng, paths, 0.25, [2, 3]),
        "update_when": draw_some(rng, paths, 0.2, [0.3, 0.8]) if policy == "float32" else {},
        "balance": draw_balance(rng, nested),
        "ema": draw_ema(rng, names),
        "nan_batch": rng.randrange(steps) if rng.random() < 0.2 else None,
    }
    if drawn["balance"] == "GradNorm":  # both of its losses come from the shared model
        drawn |= {"routing": "sum", "phases": None}
        models["m1"]["after"] = True
    return drawn


def draw_model(rng):
    return {
        "units": rng.randint(2, 4),
        "activation": rng.choice(["tanh", "sigmoid", None]),
        "norm": rng.random() < 0.3,
        "embeds": rng.random() < 0.25,
        "after": rng.random() < 0.4,
        "terms": rng.random() < 0.3,
        "optimizer": draw_optimizer(rng),
    }


def draw_optimizer(rng):
    kwargs = {"learning_rate": rng.choice([0.05, 0.01])}
    kind = rng.choice(["SGD", "Adam", "RMSprop", "Adagrad"])
    if kind == "SGD":
        kwargs["momentum"] = rng.choice([0.0, 0.9])
    if rng.random() < 0.25:
        kwargs["gradient_accumulation_steps"] = 2
    if rng.random() < 0.3:
        kwargs[rng.choice(["clipnorm", "global_clipnorm", "clipvalue"])] = 0.1
    if rng.random() < 0.2:
        kwargs |= {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}
    return {"kind": kind, "kwargs": kwargs}


def draw_routing(rng, names, nested):
    """By name, or a table of the outer system, in which a nested one is one member."""
    choice = rng.choice(["sum", "own", "own", "table"])
    if choice != "table":
        return choice
    members = [*(["inner"] if nested else []), *(name for name in names if name not in nested)]
    rows = {}
    for member in members:
        followed = rng.sample(members, rng.randint(1, len(members)))
        rows[member] = {
            loss: rng.choice([1.0, 0.5, -0.1]) for loss in {member: 0, **dict.fromkeys(followed)}
        }
    return rows


def draw_phases(rng, paths):
    if rng.random() < 0.7:
        return None
    groups = [rng.sample(paths, rng.randint(1, len(paths))) for _ in range(rng.randint(1, 2))]
    missing = [path for path in paths if not any(path in group for group in groups)]
    return [*groups, missing] if missing else groups


def draw_some(rng, paths, chance, values):
    return {path: rng.choice(values) for path in paths.values() if rng.random() < chance}


def draw_balance(rng, nested):
    if rng.random() < 0.6 or nested:
        return None
    return rng.choice(["Uncertainty", "GradNorm", "PCGrad"])


def draw_ema(rng, names):
    if rng.random() < 0.6:
        return None
    return {"of": rng.choice(names), "momentum": rng.choice([0.5, 0.9]), "every": rng.randint(1, 2)}


# What is built ----------------------------------------------------------------------------------


def data(description):
    """The batches, as one array with words beside it, and targets; one may hold a NaN."""
    rng = np.random.default_rng(description["seed"])
    samples = description["steps"] * BATCH
    x = rng.normal(size=(samples, WIDTH)).astype("float32")
    words = rng.integers(0, WORDS, (samples, 2)).astype("int32")
    y = np.tanh(x @ rng.normal(size=(WIDTH, 1))).astype("float32")
    if description["nan_batch"] is not None:
        x[description["nan_batch"] * BATCH, 0] = np.nan
    return {"x": x, "words": words}, y


def build(description, **compiled):
    """The system, compiled and set up, with weights from NumPy."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(description["policy"])
    try:
        system = Build(description).system()
    finally:
        keras.config.set_dtype_policy(before)
    system.compile(**compiled)
    x, y = data(description | {"nan_batch": None})
    system.setup(({name: part[:BATCH] for name, part in x.items()}, y[:BATCH]))
    set_weights(system, description["seed"])
    return system


def set_weights(system, seed):
    rng = np.random.default_rng(seed + 1)
    for weight in system.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape).astype("float32"))
    if hasattr(system, "average"):
        system.average.start()


class Build:
    """Makes a system from its description."""

    def __init__(self, description):
        self.given = description

    def optimizer(self, given):
        import keras

        return getattr(keras.optimizers, given["kind"])(**given["kwargs"])

    def model(self, name):
        import keras

        import mlsystem as ml

        given, layers = self.given["models"][name], keras.layers

        class Net(ml.MLModel):
            def __init__(self):
                super().__init__(name=name, optimizer=self_.optimizer(given["optimizer"]))
                if given["embeds"]:
                    self.embedding = layers.Embedding(WORDS, WIDTH)
                # A bias before batch norm has no gradient but rounding, which Adam would blow up.
                has_bias = not given["norm"]
                self.hidden = layers.Dense(given["units"], given["activation"], use_bias=has_bias)
                if given["norm"]:
                    self.norm = layers.BatchNormalization()
                self.out = layers.Dense(1)

            def forward(self, x, words, training=None):
                if given["embeds"]:
                    x = x + keras.ops.cast(keras.ops.mean(self.embedding(words), axis=1), x.dtype)
                x = self.hidden(x)
                x = self.norm(x, training=training) if given["norm"] else x
                return self.out(x)

            def loss(self, x, y, outputs):
                own = keras.ops.cast(outputs[name], "float32")
                fit = keras.ops.mean((own - y) ** 2)
                if not given["terms"]:
                    return fit
                return {"fit": fit, "small": 0.1 * keras.ops.mean(own**2)}

        self_ = self
        return Net()

    def run(self, models, x, training, first=None):
        """The outputs by name; a model that comes `after` sees what the one before it says."""
        outputs, last = {}, first
        for name, model in models.items():
            seen = x["x"]
            if self.given["models"][name]["after"] and last is not None:
                import keras

                seen = seen + keras.ops.cast(last, seen.dtype)
            outputs[name] = last = model(seen, x["words"], training=training)
        return outputs

    def inner(self):
        import mlsystem as ml

        names, build = self.given["nested"], self

        class Inner(ml.MLSystem):
            routing = build.given["inner_routing"]

            def __init__(self):
                super().__init__(name="inner")
                for name in names:
                    setattr(self, name, build.model(name))

            def forward(self, x, training=None):
                return build.run({name: getattr(self, name) for name in names}, x, training)

        return Inner()

    def system(self):
        import mlsystem as ml

        build, given = self, self.given
        names = [name for name in given["models"] if name not in given["nested"]]

        class Drawn(ml.MLSystem):
            def __init__(self):
                super().__init__(name="drawn")
                self.routing = given["routing"]
                self.phases = given["phases"]
                self.update_every = given["update_every"] or None
                self.update_when = build.conditions() or None
                if given["nested"]:
                    self.inner = build.inner()
                for name in names:
                    setattr(self, name, build.model(name))
                self.balance = build.balance()
                if given["ema"]:
                    source = build.find(self, given["ema"]["of"])
                    self.average = ml.EMA(source, given["ema"]["momentum"], given["ema"]["every"])

            def forward(self, x, training=None):
                outputs = {}
                if given["nested"]:
                    outputs["inner"] = self.inner(x, training=training)
                last = list(outputs["inner"].values())[-1] if outputs else None
                models = {name: getattr(self, name) for name in names}
                outputs |= build.run(models, x, training, last)
                if given["ema"]:
                    outputs["average"] = self.average(x["x"], x["words"])
                return outputs

        return Drawn()

    def find(self, system, name):
        return getattr(system.inner if name in self.given["nested"] else system, name)

    def conditions(self):
        """Each model that has a condition is updated while the loss of its own is large."""

        def large(name, bound):
            return lambda losses: losses[name] > bound

        return {path: large(path, bound) for path, bound in self.given["update_when"].items()}

    def balance(self):
        import mlsystem as ml

        kind, losses = self.given["balance"], ["m0", "m1"]  # two: their order says nothing
        if kind is None:
            return None
        more = {"GradNorm": {"shared": "m0"}, "PCGrad": {"seed": 0}}.get(kind, {})
        return getattr(ml.balance, kind)(losses, **more)


# What comes out ---------------------------------------------------------------------------------


def run(description, **compiled):
    """Trains a system: its weights, optimizers' counts and logs by name, as numbers."""
    from keras import ops

    from mlsystem.routing import members

    system = build(description, **compiled)
    x, y = data(description)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not finite", UserWarning)
        history = system.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0).history
    models = {id(w): name for name, model in members.leaves(system).items() for w in model.weights}
    found = {}
    for i, weight in enumerate(system.weights):
        found[f"weight {i} {models[id(weight)]}"] = ops.convert_to_numpy(weight).astype("float64")
    for name, optimizer in system.optimizers.items():
        found[f"iterations {name}"] = np.float64(int(optimizer.iterations))
    if system.balance is not None:
        for i, variable in enumerate(system.balance.variables):
            found[f"balance {i}"] = ops.convert_to_numpy(variable).astype("float64")
    return found | {f"log {name}": np.float64(values[-1]) for name, values in history.items()}


def differences(one, other, rtol):
    """`(how large, name)` of what differs, the largest first."""
    found = []
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            found.append((float("inf"), f"{name} is in one only"))
            continue
        a, b = np.asarray(one[name]), np.asarray(other[name])
        if np.allclose(a, b, rtol=rtol, atol=rtol, equal_nan=True):
            continue
        gap = np.max(np.abs(a - b)) if a.shape == b.shape else np.nan
        found.append((float("inf") if np.isnan(gap) else float(gap), f"{name}: {a} and {b}"))
    return sorted(found, key=lambda pair: -pair[0])


def compare_steps(description):
    """What differs between compiled and eager steps."""
    one, other = run(description), run(description, run_eagerly=True)
    return differences(one, other, RTOL[description["policy"]])


# By hand ----------------------------------------------------------------------------------------


def report(description, found):
    print(f"seed {description['seed']}: {len(found)} differ, the largest by {found[0][0]:.3g}")
    print(f"  {description}")
    for _, text in found[:3]:
        print(f"  {' '.join(text.split())[:300]}")


def run_all(arguments):
    """Runs the seeds; keeps what comes out of each, whatever becomes of the others."""
    kept, bad = {}, 0
    for seed in range(arguments.start, arguments.start + arguments.seeds):
        description = draw(seed)
        try:
            result = run(description, **({"run_eagerly": True} if arguments.eager else {}))
            kept |= {f"{seed}/{name}": value for name, value in result.items()}
            if arguments.both:
                eager = run(description, run_eagerly=True)
                if found := differences(result, eager, RTOL[description["policy"]]):
                    report(description, found)
                    bad += 1
                else:
                    print(f"seed {seed}: the same")
        except Exception as error:
            bad += 1
            kept[f"{seed}/error"] = np.array(f"{type(error).__name__}: {error}"[:300])
            print(f"seed {seed} fails\n  {description}")
            traceback.print_exc(limit=-3, file=sys.stdout)
        sys.stdout.flush()
        clear()
        if arguments.out:
            np.savez(arguments.out, **kept)
    print(f"{arguments.seeds} seeds from {arguments.start}: {bad} fail")
    return bad


def clear():
    import keras

    keras.utils.clear_session(free_memory=True)


def compare_files(paths):
    """Compares what two backends left, seed by seed."""
    files = [dict(np.load(path)) for path in paths]
    seeds = sorted({int(key.split("/")[0]) for file in files for key in file})
    bad = 0
    for seed in seeds:
        start = f"{seed}/"
        one, other = (
            {key.removeprefix(start): v for key, v in file.items() if key.startswith(start)}
            for file in files
        )
        if "error" in one or "error" in other:
            bad += 1
            print(f"seed {seed}: {one.get('error', 'runs')} | {other.get('error', 'runs')}")
        elif found := differences(one, other, RTOL[draw(seed)["policy"]]):
            bad += 1
            report(draw(seed), found)
    print(f"{len(seeds)} seeds: {bad} differ")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--out")
    parser.add_argument("--eager", action="store_true", help="run the steps eagerly")
    parser.add_argument("--both", action="store_true", help="compare compiled and eager steps")
    parser.add_argument("--compare", nargs=2, metavar="FILE")
    arguments = parser.parse_args()
    if not arguments.compare and not os.environ.get("KERAS_BACKEND"):
        parser.error("set KERAS_BACKEND")
    sys.exit(bool(compare_files(arguments.compare) if arguments.compare else run_all(arguments)))


if __name__ == "__main__":
    main()
