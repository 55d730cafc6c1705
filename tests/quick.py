"""Has a backend compile many small programs quickly. Processes that are compared share this."""

import atexit
import shutil
import tempfile


def compile_quickly(backend):
    """Saves a third of the time of JAX's and of TensorFlow's tests.

    JAX keeps what it compiles in a folder of this process, because many tests compile the same
    programs. TensorFlow's graph optimizer is turned off. It changes how sums are rounded:
    tests/test_parity.py keeps it on.
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
