"""The processes meet before their backend connects them, which may wait for ever or abort."""

import socket
import struct
import time

from mlsystem.distribution.launch import Launch


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
                met.sendall(struct.pack("!i", launch.index))
                met.settimeout(max(end - time.monotonic(), 0.1))
                if met.recv(1):  # all have come
                    return
            raise OSError("it did not wait for all processes")
        except OSError as error:
            if time.monotonic() >= end:
                raise ConnectionError(
                    f"Process {launch.index} of {launch.count} cannot reach the first process at "
                    f"{launch.address} within {timeout:g} seconds ({error}). Check the address "
                    f"from {launch.by}, the firewall, and that all processes run."
                ) from error
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
                came[struct.unpack("!i", one.recv(4))[0]] = one
        for one in came.values():
            one.sendall(b"!")
            one.recv(1)  # until it has closed: then the port is free
    except TimeoutError as error:
        missing = [i for i in range(1, launch.count) if i not in came]
        raise RuntimeError(
            f"Process {missing[0]} of {launch.count} has not come to {launch.address} within "
            f"{timeout:g} seconds. Start all {launch.count} processes, or give a longer `timeout` "
            "to ml.distribute."
        ) from error
    except OSError as error:
        raise RuntimeError(
            f"The first process cannot listen at {launch.address} ({error}). Choose a free port."
        ) from error
    finally:
        for one in came.values():
            one.close()
