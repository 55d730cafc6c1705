"""What a step would cost on many devices, read from the program that XLA compiles for them."""
