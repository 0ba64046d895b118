# SPDX-License-Identifier: Apache-2.0
"""The journal of a server that is stopped, read and written by other hands than its own: so a record
comes to a store that no route would let through, as a bug, another version or damage could bring it.
src/journal/FORMAT.md and the head of src/journal/frame.c and local/header.c tell the bytes.
"""
import pathlib
import struct

HEADER_BYTES = 4096
FRAME_BYTES = 40
MARK = 0x80
KINDS = {"points": 1, "events": 2, "tasks": 3}

_TABLE = []
for _n in range(256):
    for _ in range(8):
        _n = _n >> 1 ^ (0x82F63B78 if _n & 1 else 0)
    _TABLE.append(_n)


def crc32c(crc, data):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Record:
    def __init__(self, at, frame):
        size, self.lsn, self.key_hash, self.wall_us = struct.unpack_from("<IQQQ", frame, 4)
        self.kind, self.flags = frame[32], frame[33]
        self.at = at
        self.payload = frame[FRAME_BYTES:FRAME_BYTES + size]


class JournalFile:
    """The last segment."""

    def __init__(self, data_directory):
        self.path = max((pathlib.Path(data_directory) / "journal").glob("segment-*"))
        self.bytes = self.path.read_bytes()
        self.salt = struct.unpack_from("<I", self.bytes, 12)[0]
        self.first_lsn = struct.unpack_from("<Q", self.bytes, 24)[0]
        self.records, self.end, self.next_lsn = [], HEADER_BYTES, self.first_lsn
        while self._read_frame():
            pass

    def _whole(self, at):
        frame = self.bytes[at:at + FRAME_BYTES]
        return (len(frame) == FRAME_BYTES and
                struct.unpack_from("<H", frame, 38)[0] == crc32c(self.salt, frame[4:38]) & 0xFFFF and
                struct.unpack_from("<Q", frame, 8)[0] == self.next_lsn)

    def _read_frame(self):
        at = self.end
        if not self._whole(at):  # the first after a sync begins a sector
            at = (at + 511) // 512 * 512
        if not self._whole(at):
            return False
        size = struct.unpack_from("<I", self.bytes, at + 4)[0]
        record = Record(at, self.bytes[at:at + FRAME_BYTES + size])
        self.end = at + (FRAME_BYTES + size + 7) // 8 * 8
        if not record.flags & MARK:
            self.records.append(record)
            self.next_lsn += 1
        return True

    def append(self, kind, key_hash, payload):
        """Returns the lsn."""
        head = bytearray(FRAME_BYTES)
        struct.pack_into("<IQQQBBI", head, 4, len(payload), self.next_lsn, key_hash,
                         self.records[-1].wall_us, KINDS[kind], 0, 1)
        struct.pack_into("<H", head, 38, crc32c(self.salt, head[4:38]) & 0xFFFF)
        struct.pack_into("<I", head, 0, crc32c(crc32c(self.salt, payload), head[4:40]))
        at = (self.end + 511) // 512 * 512
        with open(self.path, "r+b") as file:
            file.seek(at)
            file.write(bytes(head) + payload + bytes(-len(payload) % 8))
        self.records.append(Record(at, bytes(head) + payload))
        self.end = at + (FRAME_BYTES + len(payload) + 7) // 8 * 8
        self.next_lsn += 1
        return self.records[-1].lsn
