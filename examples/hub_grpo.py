"""GRPO (Shao et al. 2024, arXiv:2402.03300): a language model learns from rewards by a rule.

    KERAS_BACKEND=jax python examples/hub_grpo.py      # or torch, or tensorflow

A small Llama of KerasHub first learns Python's documentation, byte by byte. Its spelling is poor.
Then it writes eight continuations of each of 16 beginnings in every round. The reward of a text is
the share of its bytes in words that the documentation knows. The advantage of a text is its reward
beside those of its group, so no critic is needed. Adapters (LoRA) learn. The reference policy is
the same network with its adapters off (`ml.without_adapters`). As in the paper, each round has one
update, so the ratio of new to old policy is 1 and is never clipped.
The figures are the mean reward of continuations of unseen beginnings, before and after, beside the
reward of the true continuations.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

import re
from pydoc_data.topics import topics

import keras
import keras_hub
import numpy as np
from keras import ops

PROMPT, LENGTH, GROUP = 16, 48, 8  # bytes, bytes, texts
TEXT = "\n".join(topics.values()).encode("ascii", "ignore")
WORDS = set(re.findall(rb"[a-z]{2,}", TEXT.lower()))


class LanguageModel(ml.MLModel):
    def forward(self, tokens):
        return log_probabilities(self.net, tokens)

    def loss(self, x, y, outputs):
        return -ops.mean(outputs, axis=-1) / np.log(2)  # bits per byte


class GRPO(ml.MLModel):
    def __init__(self, net, beta=0.04, **options):
        super().__init__(net, **options)
        self.beta = beta

    def forward(self, x):
        with ml.without_adapters(self.net):
            reference = ops.stop_gradient(log_probabilities(self.net, x["tokens"]))
        policy = log_probabilities(self.net, x["tokens"])
        return {"policy": policy[:, PROMPT - 1 :], "reference": reference[:, PROMPT - 1 :]}

    def loss(self, x, y, outputs):
        policy, further = outputs["policy"], outputs["reference"] - outputs["policy"]
        ratio = ops.exp(policy - ops.stop_gradient(policy))  # 1, with the gradient of the policy
        divergence = ops.exp(further) - further - 1  # equation 4 of the paper
        self.log("divergence", divergence)
        gain = ratio * x["advantage"][:, None] - self.beta * divergence
        return -ops.mean(gain, axis=-1)


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
    tokens = np.frombuffer(TEXT, "uint8").astype("int32")
    rows = tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)
    return np.random.default_rng(seed).permutation(rows)


def write(writer, rows):
    """Each row with a continuation of its beginning by the network itself."""
    mask = np.broadcast_to(np.arange(LENGTH) < PROMPT, rows.shape)
    found = writer.generate({"token_ids": rows * mask, "padding_mask": mask}, stop_token_ids=None)
    return np.asarray(found["token_ids"], "int32")


def rewards(tokens):
    """The share of each continuation's bytes that lie in known words of two letters or more."""
    texts = [bytes(row.tolist()).lower() for row in tokens[:, PROMPT:]]
    found = [[word for word in re.findall(rb"[a-z]+", text) if word in WORDS] for text in texts]
    return np.array([sum(map(len, words)) / (LENGTH - PROMPT) for words in found], "float32")


def advantages(values):
    groups = values.reshape(-1, GROUP)
    centred = groups - groups.mean(axis=1, keepdims=True)
    return (centred / (groups.std(axis=1, keepdims=True) + 1e-4)).ravel()


def main(steps=400, rounds=30, prompts=16, held_out=256, seed=0):
    keras.utils.set_random_seed(seed)
    rows, net = documentation(seed), llama()
    valid, train = rows[:held_out], rows[held_out:]
    model = LanguageModel(net, optimizer=keras.optimizers.Adam(3e-3))
    model.fit(train[: 32 * steps], batch_size=32, verbose=0)
    bits = model.evaluate(valid, batch_size=64, verbose=0)
    print(f"the language model: {bits:.2f} bits per byte of unseen text")

    net.backbone.enable_lora(8)
    writer = keras_hub.models.LlamaCausalLM(net.backbone)
    writer.compile(sampler=keras_hub.samplers.RandomSampler(seed=seed))
    grpo = GRPO(net, optimizer=keras.optimizers.Adam(3e-3))
    figures = {"true": rewards(valid).mean(), "before": rewards(write(writer, valid)).mean()}
    for round_ in range(rounds):
        drawn = np.random.default_rng(round_).integers(len(train), size=prompts)
        tokens = write(writer, np.repeat(train[drawn], GROUP, axis=0))
        found = rewards(tokens)
        x = {"tokens": tokens, "advantage": advantages(found)}
        if round_ == 0:
            print(grpo.memory(x))
        logs = grpo.fit(x, batch_size=len(tokens), verbose=0).history
        if round_ % 5 == 0 or round_ == rounds - 1:
            moved = logs["divergence"][0]
            print(f"round {round_}: reward {found.mean():.3f}, divergence {moved:.3f} nats a byte")
    figures["after"] = rewards(write(writer, valid)).mean()
    figures = {name: float(value) for name, value in figures.items()}
    print("bytes in known words:", *(f"{value:.3f} {name}," for name, value in figures.items()))
    return figures | {"bits": bits}


if __name__ == "__main__":
    main()
