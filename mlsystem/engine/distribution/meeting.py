"""The processes meet before their backend connects them, which may wait for ever or abort."""

import socket
import struct
import time

from mlsystem.engine.distribution.launch import Launch
from mlsystem.engine.meeting_errors import check_count, unreachable


def meet(launch: Launch, timeout: float) -> None:
    """Wait until all processes have come to the address of the first one.

    Raises:
        ConnectionError: the first process cannot be reached.
        RuntimeError: another process has not come, or the port is taken.
    """
    end = time.monotonic() + timeout
    if launch.index:
        _come(launch, timeout, end)
    else:
        _wait_for_all(launch, timeout, end)


def _come(launch: Launch, timeout: float, end: float) -> None:
    host, _, port = launch.address.rpartition(":")
    while True:
        try:
            with socket.create_connection((host, int(port)), 5) as met:
                met.sendall(struct.pack("!ii", launch.index, launch.count))
                met.settimeout(max(end - time.monotonic(), 0.1))
                if answer := met.recv(4):  # all have come
                    check_count(launch, 0, struct.unpack("!i", answer)[0])
                    return
            raise OSError("it did not wait for all processes")
        except OSError as error:
            if time.monotonic() >= end:
                raise unreachable(launch, timeout, error) from error
            time.sleep(0.1)


def _wait_for_all(launch: Launch, timeout: float, end: float) -> None:
    host, _, port = launch.address.rpartition(":")
    came: dict[int, socket.socket] = {}
    try:
        with socket.create_server((host if launch.is_local else "", int(port))) as server:
            while len(came) < launch.count - 1:
                server.settimeout(max(end - time.monotonic(), 0.01))
                one, _ = server.accept()
                one.settimeout(5)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                index, count = struct.unpack("!ii", one.recv(8))
                came[index] = one
                if count != launch.count:
                    _answer(one, launch)  # so that it fails too
                    check_count(launch, index, count)
        for one in came.values():
            _answer(one, launch)
    except TimeoutError as error:
        missing = [i for i in range(1, launch.count) if i not in came]
        raise RuntimeError(
            f"Process {missing[0]} of {launch.count} has not come to {launch.address} within "
            f"{timeout:g} seconds. Start all {launch.count} processes, or give a longer `timeout` "
            "to ml.distribute."
        ) from error
    except OSError as error:
        raise unreachable(launch, timeout, error) from error
    finally:
        for one in came.values():
            one.close()


def _answer(one: socket.socket, launch: Launch) -> None:
    """Tell a process the number of processes, and wait until it has left: its port is free then."""
    one.sendall(struct.pack("!i", launch.count))
    one.recv(1)
