"""The networks of the workloads: described once, and built in Keras, PyTorch and Flax."""
