"""DPO (Rafailov et al. 2023, arXiv:2305.18290): a language model learns from preferences.

    KERAS_BACKEND=jax python examples/hub_dpo.py      # or torch, or tensorflow

A small Llama of KerasHub first learns Python's documentation, byte by byte. Then it writes two
continuations of each of 640 beginnings. As in section 6.1 of the paper, a known rule stands in for
the people who prefer one of the two: the better continuation has fewer symbols, so it is prose and
not code. Adapters (LoRA) of the network learn from 512 pairs. The reference policy is the same
network with its adapters off (`ml.without_adapters`), so the memory holds one network.
The figures are the share of the other pairs in which the better continuation is more probable, and
the symbols that the network writes, before and after.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pydoc_data.topics import topics

import keras
import keras_hub
import numpy as np
from keras import ops

PROMPT, LENGTH = 16, 48  # bytes


class LanguageModel(ml.MLModel):
    def forward(self, tokens):
        return log_probabilities(self.net, tokens)

    def loss(self, x, y, outputs):
        return -ops.mean(outputs, axis=-1) / np.log(2)  # bits per byte


class DPO(ml.MLModel):
    def __init__(self, net, beta=0.1, **options):
        super().__init__(net, **options)
        self.beta = beta

    def forward(self, pairs):
        tokens = ops.reshape(pairs, (-1, LENGTH))
        with ml.without_adapters(self.net):
            reference = ops.stop_gradient(self.written(tokens))
        return {"policy": self.written(tokens), "reference": reference}

    def written(self, tokens):
        """The log probability of each continuation: better in column 0, worse in column 1."""
        chances = log_probabilities(self.net, tokens)[:, PROMPT - 1 :]
        return ops.reshape(ops.sum(chances, axis=-1), (-1, 2))

    def loss(self, x, y, outputs):
        rewards = self.beta * (outputs["policy"] - outputs["reference"])
        margin = rewards[:, 0] - rewards[:, 1]
        right = outputs["policy"][:, 0] > outputs["policy"][:, 1]
        self.log("right", ops.cast(right, "float32"))
        self.log("margin", margin)
        return -ops.log_sigmoid(margin)


def log_probabilities(net, tokens):
    """The log probability of each byte but the first, given those before it."""
    tokens = ops.cast(tokens, "int32")
    logits = net({"token_ids": tokens, "padding_mask": ops.ones_like(tokens)})[:, :-1]
    return -keras.losses.sparse_categorical_crossentropy(tokens[:, 1:], logits, from_logits=True)


def llama():
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=128,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=4,
        hidden_dim=64,
        intermediate_dim=192,
        tie_word_embeddings=True,
    )
    return keras_hub.models.LlamaCausalLM(backbone)


def documentation(seed):
    """Rows of Python's documentation, as bytes, in random order."""
    text = "\n".join(topics.values()).encode("ascii", "ignore")
    tokens = np.frombuffer(text, "uint8").astype("int32")
    rows = tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)
    return np.random.default_rng(seed).permutation(rows)


def write(writer, rows):
    """Each row with a continuation of its beginning by the network itself."""
    mask = np.broadcast_to(np.arange(LENGTH) < PROMPT, rows.shape)
    found = writer.generate({"token_ids": rows * mask, "padding_mask": mask}, stop_token_ids=None)
    return np.asarray(found["token_ids"], "int32")


def symbols(tokens):
    """How many bytes of each continuation are neither letters nor spaces."""
    letters = [ord(c) for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n"]
    return np.sum(~np.isin(tokens[..., PROMPT:], letters), axis=-1)


def preferences(first, second):
    """Pairs with the better continuation first. Ties are left out."""
    pairs = np.stack([first, second], axis=1)
    order = np.argsort(symbols(pairs), axis=1)[:, :, None]
    pairs = np.take_along_axis(pairs, order, axis=1)
    return pairs[symbols(pairs[:, 0]) < symbols(pairs[:, 1])]


def main(steps=400, epochs=8, count=640, seed=0):
    keras.utils.set_random_seed(seed)
    rows, net = documentation(seed), llama()
    model = LanguageModel(net, optimizer=keras.optimizers.Adam(3e-3))
    model.fit(rows[count : count + 32 * steps], batch_size=32, verbose=0)
    bits = model.evaluate(rows[:count], batch_size=64, verbose=0)
    print(f"the language model: {bits:.2f} bits per byte of unseen text")

    net.backbone.enable_lora(8)
    writer = keras_hub.models.LlamaCausalLM(net.backbone)
    writer.compile(sampler=keras_hub.samplers.RandomSampler(seed=seed))
    before, other = (write(writer, rows[:count]) for _ in range(2))
    held_out = count // 5
    valid = preferences(before[:held_out], other[:held_out])
    train = preferences(before[held_out:], other[held_out:])
    dpo = DPO(net, optimizer=keras.optimizers.Adam(2e-3))
    print(dpo.memory(train[:32]))
    figures = {}
    for name in ("before", "after"):
        if name == "after":
            dpo.fit(train, batch_size=32, epochs=epochs, verbose=0)
        logs = dpo.evaluate(valid, batch_size=32, verbose=0, return_dict=True)
        logs["symbols"] = np.mean(symbols(write(writer, rows[:count])[:held_out]))
        figures |= {f"{key} {name}": float(value) for key, value in logs.items()}
        print(
            f"{name}: the better of two is more probable in {logs['right']:.1%} of {len(valid)} "
            f"unseen pairs, margin {logs['margin']:.2f}, loss {logs['loss']:.3f}; "
            f"{logs['symbols']:.1f} symbols in {LENGTH - PROMPT} bytes written"
        )
    return figures | {"bits": bits}


if __name__ == "__main__":
    main()
