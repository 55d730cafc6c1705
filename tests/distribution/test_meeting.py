"""Processes that do not find each other, or were told different things."""

import threading

import pytest
from processes import free_ports

import mlsystem as ml
from mlsystem.engine.distribution import start
from mlsystem.engine.distribution.launch import Launch
from mlsystem.engine.distribution.meeting import meet


def test_an_unreachable_coordinator_is_an_error(monkeypatch):
    monkeypatch.setattr(start, "_check_no_model", lambda: None)  # other tests have made some
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(ConnectionError, match=r"Process 1 of 2 cannot reach the first process at"):
        ml.distribute(coordinator_address=address, num_processes=2, process_id=1, timeout=1)


@pytest.mark.once
def test_counts_that_do_not_match_are_an_error_on_both():
    address, errors = f"127.0.0.1:{free_ports(1)[0]}", {}

    def come(index, count):
        try:
            meet(Launch(index, count, address, 0, "A test"), 10)
        except ValueError as error:
            errors[index] = str(error)

    both = [threading.Thread(target=come, args=found) for found in ((0, 2), (1, 3))]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert "Process 0 was told that there are 2 processes, and process 1 that there" in errors[0]
    assert "Process 1 was told that there are 3 processes, and process 0 that there" in errors[1]
