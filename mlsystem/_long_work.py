"""`announced`: say what takes long, and how long it took. Short work stays silent."""

import contextlib
import threading
import time
from collections.abc import Iterator

AFTER = 5.0  # seconds of silence


@contextlib.contextmanager
def announced(work: str, is_shown: bool = True) -> Iterator[None]:
    """Print what is being done if it takes over five seconds, and at its end how long it took.

    Args:
        work: the work in words, as "Compiling the training step of 'GAN'".
        is_shown: whether to print at all. False with `verbose=0`.
    """
    if not is_shown:
        yield
        return
    said = threading.Event()
    timer = threading.Timer(AFTER, _begin, [work, said])
    start = time.perf_counter()
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    timer.join()  # it may be printing
    if said.is_set():  # at the limit, the work may end before the timer
        _say(f"... took {time.perf_counter() - start:.1f} s.")


def _begin(work: str, said: threading.Event) -> None:
    _say(f"{work} ...")
    said.set()


def _say(text: str) -> None:
    print(text, flush=True)
