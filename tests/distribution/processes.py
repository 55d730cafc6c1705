"""Starts a script in several processes on this machine, and ends them."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def started(script, *arguments, count=2, more=0, **env):
    """Starts a script in some processes, as `torchrun` does; none of them is left.

    They believe that there are some more.
    """
    size = str(count + more)
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": size}
    env |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = [
        subprocess.Popen(command, env=os.environ | env | {"RANK": str(index)}, **options)
        for index in range(count)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()  # closes the pipe


def run(script, *arguments, timeout=240, **env):
    """Runs a script to its end in two processes, and returns what each has printed."""
    with started(script, *arguments, **env) as running:
        texts = [process.communicate(timeout=timeout)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0], "\n".join(texts)
    return texts
