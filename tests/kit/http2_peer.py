"""A peer that speaks HTTP/2 by the frame, as no library lets one (RFC 9113), its headers literals (RFC 7541)."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _GO_AWAY = 0, 1, 4, 7
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW = 4  # of SETTINGS
_POST, _HTTP = b"\x83", b"\x86"  # indexed fields


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Peer:
    """A connection whose answers nobody reads; with `window` 0 the server may not send any data either."""

    def __init__(self, port, *, window=65535):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(PREFACE + frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW, window)))
        self._rest = self._socket.recv(9, socket.MSG_WAITALL)  # the head of the server's settings: it has accepted

    def call(self, path, message=None):
        """A call on the first stream; without a message it has headers only."""
        fields = (
            (b":path", path),
            (b":authority", b"x"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
        block = _POST + _HTTP + b"".join(_literal(*field) for field in fields)
        self._socket.sendall(frame(_HEADERS, _END_HEADERS | (_END_STREAM if message is None else 0), 1, block))
        if message is not None:
            body = message.SerializeToString()
            self._socket.sendall(frame(_DATA, _END_STREAM, 1, struct.pack(">BI", 0, len(body)) + body))

    def is_told_to_go(self):
        """Whether the server has closed the connection, or said that it will."""
        self._socket.settimeout(0)
        data = b""
        try:
            while more := self._socket.recv(65536):
                data += more
        except BlockingIOError:
            data = self._rest + data
        else:
            return True
        while data:
            if data[3] == _GO_AWAY:
                return True
            data = data[9 + int.from_bytes(data[:3], "big") :]
        return False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._socket.close()
