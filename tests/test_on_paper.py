"""What the benchmark of many devices reads from a compiled program."""

import pytest

from benchmarks.on_paper.collectives import collectives, group, ring

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("replica_groups={{0,2},{1,3}}", [0, 2]),
        ("replica_groups={{0,1,2,3}}", [0, 1, 2, 3]),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", [0, 2, 4, 6]),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}", [0, 1]),
        ("replica_groups=mesh['a'=8,'b'=1,'c'=2], device_ids=([2,8]T(1,0)) {'c'}", [0, 8]),
    ],
)
def test_the_first_group_of_a_collective(groups, devices):
    assert group(f"%x = f32[2] all-reduce(%y), {groups}, to_apply=%add") == devices


def test_the_bytes_of_a_collective_are_those_of_all_its_arrays():
    line = (
        "%x = (f32[], bf16[3,4]{1,0}, /*index=2*/s32[5]{0}) all-reduce(%y), replica_groups={{0,1}}"
    )
    assert list(collectives(f"  %y = f32[2] add(%a, %b)\n  {line}")) == [
        ("all-reduce", 4 + 2 * 12 + 4 * 5, [0, 1])
    ]


def test_a_group_that_is_not_known_is_an_error():
    with pytest.raises(ValueError, match="No groups of devices"):
        group("%x = f32[2] all-reduce(%y), replica_groups=?")


def test_a_ring_sends_each_part_once_or_twice():
    # Each device holds 100 bytes. A quarter stays, and three quarters go around.
    assert ring("all-reduce", 100, 4) == 150
    assert ring("all-gather", 100, 4) == 75
    assert ring("reduce-scatter", 25, 4) == 75
    assert ring("all-reduce", 100, 1) == 0
