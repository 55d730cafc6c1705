"""Has a backend compile many small programs quickly. Processes that are compared share this."""

import atexit
import gc
import itertools
import shutil
import tempfile

TESTS = itertools.count()


def compile_quickly(backend):
    """Saves a third of the time of JAX's and of TensorFlow's tests.

    JAX keeps what it compiles in a folder of this process, because many tests compile the same
    programs. TensorFlow's graph optimizer is turned off. It changes how sums are rounded:
    tests/test_parity.py keeps it on. So is the tuning of its input pipelines: an iterator that
    is dropped waits for the thread that tunes it, which can sleep as long as the iterator lived.
    """
    if backend == "jax":
        import jax

        folder = tempfile.mkdtemp(prefix="compiled-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        untuned, iterate = tf.data.Options(), tf.data.Dataset.__iter__
        untuned.autotune.enabled = False
        tf.data.Dataset.__iter__ = lambda data: iterate(data.with_options(untuned))


def collect_rarely():
    """Has the garbage collector look at each object once, in place of each time among all.

    Graphs and programs of all tests before lie in memory, and a collection goes through them all.
    Call it before each test. A fifth of TensorFlow's tests was spent in collections.
    """
    if next(TESTS) % 25 == 0:
        gc.set_threshold(50_000, 100, 10_000)
        gc.collect()
        gc.freeze()
