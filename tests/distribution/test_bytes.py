"""What two processes exchange in a step: each gradient once, and a few numbers of the logs."""

import keras
import numpy as np
import parity_systems as parity
import pytest

from mlsystem.engine import engine

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="systems_apart.py reads it from a step of JAX"
)


@pytest.fixture
def sums(monkeypatch):
    """The sizes of all tensors that are summed, in bytes, with a group that exchanges nothing."""
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from mlsystem.engine.torch.distribution import TorchReplicas

    found = []

    class Counting(TorchReplicas):
        def collect(self, value):
            return [value] * self.count

    library = torch.ops._c10d_functional
    all_reduce = library.all_reduce

    def counted(x, *given):
        found.append(x.numel() * x.element_size())
        return all_reduce(x, *given)

    monkeypatch.setattr(library, "all_reduce", counted)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    monkeypatch.setattr(engine, "replicas", Counting())
    yield found
    dist.destroy_process_group()


def test_a_step_sums_each_gradient_once(sums):
    system = parity.GAN()
    system.compile(run_eagerly=True)
    x, y = keras.tree.map_structure(lambda a: a[: 2 * parity.BATCH], parity.data())
    system.fit(x, y, batch_size=parity.BATCH, verbose=0)
    del sums[:]
    system.fit(x, y, batch_size=parity.BATCH, verbose=0, steps_per_epoch=1)
    weights = [4 * int(np.prod(w.shape)) for w in system.trainable_weights]
    gradients = [size for size in sums if size > 100]
    assert sum(gradients) == sum(weights)
    assert len(gradients) == 2  # one for each model
    assert sum(sums) - sum(gradients) < 100  # losses and logs
