"""Has a backend compile many small programs quickly. Processes that are compared share this."""


def compile_quickly(backend):
    """Turns off TensorFlow's graph optimizer: a third of its tests' time.

    It changes how sums are rounded. tests/test_parity.py keeps it on.
    """
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
