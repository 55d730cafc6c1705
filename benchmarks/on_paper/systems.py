"""The systems whose steps are compiled: a GAN, and a distillation of language models."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

import mlsystem as ml

IMAGE, NOISE = (64, 64, 3), 128


class Generator(ml.MLModel):
    """Images from noise: 17 million weights."""

    def __init__(self, width: int) -> None:
        up = [layers.Conv2DTranspose(n, 4, 2, "same") for n in (width // 2, width // 4, width // 8)]
        inner = [layer for up_ in up for layer in (up_, layers.ReLU())]
        first = [keras.Input((NOISE,)), layers.Dense(16 * width), layers.Reshape((4, 4, width))]
        super().__init__(
            net=keras.Sequential([*first, *inner, layers.Conv2DTranspose(3, 4, 2, "same")])
        )

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return ops.mean(ops.softplus(-outputs["fake"]))


class Discriminator(ml.MLModel):
    """A score of images: 33 million weights."""

    def __init__(self, width: int) -> None:
        down = [layers.Conv2D(n, 4, 2, "same") for n in (width // 4, width // 2, width)]
        inner = [layer for down_ in down for layer in (down_, layers.LeakyReLU(0.2))]
        last = [layers.Flatten(), layers.Dense(256, "relu"), layers.Dense(1)]
        super().__init__(net=keras.Sequential([keras.Input(IMAGE), *inner, *last]))

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return ops.mean(ops.softplus(outputs["fake"]) + ops.softplus(-outputs["real"]))


class GAN(ml.MLSystem):
    """Both networks learn from one forward pass."""

    routing = "own"

    def __init__(self, width: int = 1176) -> None:
        super().__init__()
        self.generator, self.discriminator = Generator(width), Discriminator(width)
        self.noise = keras.random.SeedGenerator(0)

    def forward(self, x: Any) -> Any:
        noise = keras.random.normal((ops.shape(x)[0], NOISE), seed=self.noise)
        fake = self.generator(noise)
        return {"fake": self.discriminator(fake), "real": self.discriminator(x)}

    def configure_optimizers(self) -> Any:
        return {name: keras.optimizers.Adam(2e-4) for name in ("generator", "discriminator")}


class Block(layers.Layer):
    """A block of a decoder: causal attention and a gated feed-forward network."""

    def __init__(self, width: int, heads: int, groups: int, inner: int, dtype: Any = None) -> None:
        super().__init__(dtype=dtype)
        options = {"use_bias": False, "dtype": dtype}
        self.before = [layers.RMSNormalization(dtype=dtype) for _ in range(2)]
        self.attention = layers.GroupQueryAttention(width // heads, heads, groups, **options)
        self.gate = layers.Dense(inner, **options, name="gate")
        self.up = layers.Dense(inner, **options, name="up")
        self.down = layers.Dense(width, **options, name="down")

    def build(self, shape: Any) -> None:
        for norm in self.before:
            norm.build(shape)
        self.attention.build(shape, shape)
        self.gate.build(shape)
        self.up.build(shape)
        self.down.build((*shape[:-1], self.gate.units))

    def call(self, x: Any) -> Any:
        inside = self.before[0](x)
        x = x + self.attention(inside, inside, use_causal_mask=True)
        inside = self.before[1](x)
        return x + self.down(ops.silu(self.gate(inside)) * self.up(inside))


def decoder(name: str, tokens: int, width: int, blocks: int, sizes: Any, dtype: Any = None) -> Any:
    """A decoder-only language model: logits of the next token."""
    stack = [Block(width, *sizes, dtype=dtype) for _ in range(blocks)]
    head = layers.Dense(tokens, use_bias=False, dtype=dtype, name="head")
    last = [layers.RMSNormalization(dtype=dtype), head]
    first = layers.Embedding(tokens, width, dtype=dtype)
    return keras.Sequential([first, *stack, *last], name=name)


class Student(ml.MLModel):
    """Follows the teacher's distribution of the next token (Hinton et al., 2015)."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        teacher = ops.softmax(ops.cast(outputs["teacher"], "float32"))
        return -ops.mean(ops.sum(teacher * ops.log_softmax(outputs["student"]), axis=-1))


class Distillation(ml.MLSystem):
    """A frozen teacher in bfloat16 and a student in float32.

    The teacher has the widths of an 8B model with grouped attention (Llama 3, arXiv 2407.21783):
    4096 units, 32 heads in 8 groups, 14,336 inner units, 128,256 tokens and 32 blocks.
    """

    def __init__(self, blocks: int = 2, tokens: int = 128_256) -> None:
        super().__init__()
        self.teacher = decoder("teacher", tokens, 4096, blocks, (32, 8, 14_336), "bfloat16")
        self.teacher.trainable = False
        self.student = Student(net=decoder("net", tokens, 512, 4, (8, 2, 1536)))

    def forward(self, x: Any) -> Any:
        return {"teacher": self.teacher(x), "student": self.student(x)}


def gan_batch(size: int) -> Any:
    """Images for a GAN."""
    return np.zeros((size, *IMAGE), "float32")


def token_batch(size: int, length: int = 512) -> Any:
    """Texts for a distillation."""
    return np.zeros((size, length), "int32")
