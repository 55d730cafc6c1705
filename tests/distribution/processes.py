"""Starts a script in several processes on this machine, and ends them."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def free_ports(count):
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def told(index, ports):
    """What a launcher tells a process: `torchrun`, or a cluster of TensorFlow."""
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        workers = [f"127.0.0.1:{port}" for port in ports]
        task = {"type": "worker", "index": index}
        return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task})}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0])}
    return address | {"RANK": str(index), "WORLD_SIZE": str(len(ports))}


@contextlib.contextmanager
def started(script, *arguments, count=2, more=0, **env):
    """Starts a script in some processes, which believe that there are some more.

    None of them is left in the end.
    """
    ports = free_ports(count + more)
    env |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = [
        subprocess.Popen(command, env=os.environ | env | told(index, ports), **options)
        for index in range(count)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()  # closes the pipe


def run(script, *arguments, timeout=240, **env):
    """Runs a script to its end in some processes, and returns what each has printed."""
    with started(script, *arguments, **env) as running:
        texts = [process.communicate(timeout=timeout)[0] for process in running]
        assert {process.returncode for process in running} == {0}, "\n".join(texts)
    return texts
