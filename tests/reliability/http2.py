"""HTTP/2 as bytes (RFC 9113): frames that may say anything, and what a server did about them."""

import struct
from collections import defaultdict

import grpc
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple

from .access import Access

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CALL, PROBE = 1, 99
"""The streams of the call that may be wrong, and of the good one after it."""
OPEN = "open"
_ERRORS = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED"),
    *("FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"),
)
_CODES = {str(code.value[0]).encode(): code.name for code in grpc.StatusCode}
Fields = list[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame, whose length may lie."""
    head = struct.pack(">I", len(payload) if length is None else length)[1:]
    return head + struct.pack(">BBI", kind, flags, stream) + payload


def number(value: int) -> bytes:
    """32 bits, as most frames have them."""
    return struct.pack(">I", value)


def message(content: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A message of gRPC with its prefix, which may lie."""
    return struct.pack(">BI", flag, len(content) if length is None else length) + content


class Blocks:
    """The header blocks of one connection."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    def block(self, fields: Fields, *, huffman: bool = False) -> bytes:
        """Valid HPACK, whatever the fields say."""
        return self._encoder.encode(fields, huffman=huffman)

    @staticmethod
    def plain_block(fields: Fields) -> bytes:
        """The same without the table that earlier calls of the connection have filled, which may be at fault."""
        return Encoder().encode([NeverIndexedHeaderTuple(*field) for field in fields], huffman=False)


class Connection(Blocks):
    """A connection after its handshake; `send` what may be wrong, then `ends`."""

    def __init__(self, access: Access) -> None:
        """Raises OSError or EOFError if there is no answer."""
        super().__init__()
        self._socket = access.connect()
        self._buffer, self._decoder = b"", Decoder()
        self.send(PREFACE + frame(SETTINGS, 0, 0))
        awaited = {0, ACK}  # the server's settings, and that it has ours
        while awaited:
            kind, flags, _, _ = self._read()
            if kind == SETTINGS:
                awaited.discard(flags)
        self.send(frame(SETTINGS, ACK, 0))

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def ends(self, streams: set[int], seconds: float | None = None) -> tuple[dict[int, tuple[str, bytes]], str]:
        """How these streams ended, each with its messages, and how the connection did ("" if it has not).

        A stream ends with the name of its gRPC status, or "RST" or "HTTP" and a code; one that is not among them
        has not ended. Returns when all have, or the connection, or nothing came for `seconds`.
        """
        if seconds is not None:
            self._socket.settimeout(seconds)
        ended: dict[int, tuple[str, bytes]] = {}
        bodies: dict[int, bytes] = defaultdict(bytes)
        statuses: dict[int, str] = {}
        last = ""
        try:
            while streams - ended.keys():
                kind, flags, stream, payload = self._read()
                if kind == GOAWAY:
                    last = f"GOAWAY {_error(payload[4:8])}"
                elif kind == HEADERS:
                    statuses[stream] = self._status(payload) or statuses.get(stream, "no status")
                elif kind == DATA:
                    bodies[stream] += payload
                elif kind == RST:
                    ended.setdefault(stream, (f"RST {_error(payload)}", b""))
                elif kind in (PING, SETTINGS) and not flags & ACK:
                    self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
                if kind in (HEADERS, DATA) and flags & END_STREAM:
                    ended.setdefault(stream, (statuses.get(stream, "no status"), bodies[stream]))
        except TimeoutError:
            return ended, "hangs"
        except (EOFError, OSError):
            return ended, last or "closed"
        return ended, last

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _status(self, payload: bytes) -> str:
        fields = dict(self._decoder.decode(payload, raw=True))
        if fields.get(b":status", b"200") != b"200":
            return f"HTTP {fields[b':status'].decode()}"
        return _CODES[fields[b"grpc-status"]] if b"grpc-status" in fields else ""

    def _read(self) -> tuple[int, int, int, bytes]:
        head = self._read_bytes(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream, self._read_bytes(int.from_bytes(head[:3]))

    def _read_bytes(self, count: int) -> bytes:
        while len(self._buffer) < count:
            received = self._socket.recv(65_536)
            if not received:
                raise EOFError
            self._buffer += received
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found


def _error(code: bytes) -> str:
    value = int.from_bytes(code)
    return _ERRORS[value] if value < len(_ERRORS) else str(value)
