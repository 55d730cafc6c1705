"""Distillation of a language model (Hinton, Vinyals & Dean 2015, arXiv:1503.02531).

    KERAS_BACKEND=jax python examples/hub_distillation.py      # or torch, or tensorflow

The teacher is a small Llama of KerasHub that has learned Python's documentation, byte by byte.
After training, its weights are rounded to 8 bits (`quantize("int8")`), and it is frozen. The
student is smaller and sees only 4,600 of the bytes. It learns from these bytes alone, or also from
the probabilities that the teacher gives to each next byte. The figure is the bits per byte of text
that no network has learned. The student alone stops at its best epoch on this text.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pydoc_data.topics import topics

import keras
import keras_hub
import numpy as np
from keras import layers, ops

LENGTH = 48  # bytes


class LanguageModel(ml.MLModel):
    def forward(self, tokens):
        return next_bytes(self.net, tokens)

    def loss(self, x, y, outputs):
        return bits(x, outputs)


class Distillation(ml.MLSystem):
    routing = {"student": {"bytes": 0.1, "answers": 0.9}}

    def __init__(self, student, teacher):
        super().__init__()
        self.student = ml.MLModel(student, optimizer=keras.optimizers.Adam(3e-3))
        self.teacher = teacher
        self.teacher.trainable = False

    def forward(self, tokens):
        return {"student": next_bytes(self.student, tokens), "teacher": self.teacher(tokens)}

    def compute_losses(self, x, y, outputs):
        ours, theirs = ops.log_softmax(outputs["student"]), ops.softmax(outputs["teacher"])
        return {
            "bytes": bits(x, outputs["student"]),
            "answers": -ops.mean(ops.sum(theirs * ours, axis=-1), axis=-1) / np.log(2),
        }


def next_bytes(net, tokens):
    """The logits of each byte but the first, given those before it."""
    tokens = ops.cast(tokens, "int32")
    return net({"token_ids": tokens, "padding_mask": ops.ones_like(tokens)})[:, :-1]


def bits(tokens, logits):
    """Bits per byte of each row."""
    nats = keras.losses.sparse_categorical_crossentropy(tokens[:, 1:], logits, from_logits=True)
    return ops.mean(nats, axis=-1) / np.log(2)


def llama(width, depth):
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=128,
        num_layers=depth,
        num_query_heads=4,
        num_key_value_heads=4,
        hidden_dim=width,
        intermediate_dim=3 * width,
        tie_word_embeddings=True,
    )
    return keras_hub.models.LlamaCausalLM(backbone)


def has_int8(layer):
    return isinstance(layer, (layers.Dense, layers.EinsumDense, layers.ReversibleEmbedding))


def kilobytes(model):
    return sum(ops.convert_to_numpy(weight).nbytes for weight in model.weights) / 1000


def documentation(seed):
    """Rows of Python's documentation, as bytes, in random order."""
    text = "\n".join(topics.values()).encode("ascii", "ignore")
    tokens = np.frombuffer(text, "uint8").astype("int32")
    rows = tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)
    return np.random.default_rng(seed).permutation(rows)


def main(steps=400, epochs=60, few=96, held_out=640, seed=0):
    keras.utils.set_random_seed(seed)
    rows = documentation(seed)
    valid, train = rows[:held_out], rows[held_out:]
    figures = {}

    def evaluate(name, model):
        figures[name] = model.evaluate(valid, batch_size=64, verbose=0)
        print(f"{name}: {figures[name]:.3f} bits per byte")

    teacher = LanguageModel(llama(96, 2), optimizer=keras.optimizers.Adam(3e-3))
    teacher.fit(train[: 32 * steps], batch_size=32, verbose=0)
    evaluate("teacher", teacher)
    before = kilobytes(teacher)
    teacher.net.quantize("int8", filters=has_int8)
    evaluate("teacher in int8", teacher)
    print(f"the teacher had {before:.0f} kB of weights and has {kilobytes(teacher):.0f} kB")

    keras.utils.set_random_seed(seed)
    alone = LanguageModel(llama(64, 1), optimizer=keras.optimizers.Adam(3e-3))
    stop = keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
    seen = {"validation_data": (valid[:160],), "callbacks": [stop]}
    alone.fit(train[:few], batch_size=32, epochs=epochs, verbose=0, **seen)
    evaluate("student alone", alone)
    keras.utils.set_random_seed(seed)
    student = llama(64, 1)
    system = Distillation(student, teacher)
    print(system.memory(train[:32]))
    system.fit(train[:few], batch_size=32, epochs=epochs, verbose=0)
    evaluate("student with teacher", LanguageModel(student))
    return figures


if __name__ == "__main__":
    main()
