"""The networks of the workloads in Keras, PyTorch and Flax, alike to the number of weights."""
