"""Reads the event files of TensorBoard."""

import struct

from tensorboardX.proto.event_pb2 import Event


def records(path):
    """The events in a file: a length of 8 bytes, its checksum, the event, its checksum."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        [length] = struct.unpack_from("<Q", data, place)
        yield Event.FromString(data[place + 12 : place + 12 + length])
        place += length + 16


def events(folder):
    """The scalars `{name: {step: value}}` in a folder, the other summaries by tag, the purges."""
    scalars, others, purges = {}, {}, []
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda p: p.stat().st_mtime_ns):
        for event in records(path):
            if event.HasField("session_log"):
                purges.append(event.step)
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    scalars.setdefault(value.tag, {})[event.step] = value.simple_value
                else:
                    others.setdefault(value.tag, []).append((event.step, value))
    return scalars, others, purges
