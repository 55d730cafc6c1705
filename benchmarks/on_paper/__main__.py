"""What a step costs on 1 to 2,048 devices, and where a system stops scaling.

    KERAS_BACKEND=jax python -m benchmarks.on_paper [gan | distillation]

XLA compiles the step for virtual devices of the CPU. Nothing is run, and the costs are read from
the compiled program: see `program.py`. For 4,096 devices the step is lowered only.
"""

import argparse
import os

DEVICES = (1, 2, 8, 64, 512, 2048)
# An H100 SXM: 40 % of 989 TFLOP/s in bfloat16, NVLink, and 400 Gbit/s of InfiniBand a device.
FLOPS, NEAR, FAR = 400e12, 450e9, 50e9


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_paper")
    parser.add_argument("system", nargs="?", default="gan", choices=["gan", "distillation"])
    parser.add_argument("--flops", type=float, default=FLOPS, help="FLOP/s that a device reaches")
    parser.add_argument("--near", type=float, default=NEAR, help="bytes/s within a node")
    parser.add_argument("--far", type=float, default=FAR, help="bytes/s among nodes")
    parser.add_argument("--devices", default=",".join(map(str, DEVICES)))
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    counts = [int(count) for count in given.devices.split(",")]
    os.environ["KERAS_BACKEND"], os.environ["JAX_PLATFORMS"] = "jax", "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={max(counts)}"

    from benchmarks.on_paper import report  # Keras and JAX read the environment

    speeds = report.Speeds(given.flops, given.near, given.far)
    report.show(given.system, counts, speeds)
