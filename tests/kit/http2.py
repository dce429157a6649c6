"""HTTP/2 as frames, for callers that gRPC's clients would never be."""

import socket
import struct
import threading
from contextlib import suppress

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_FIRST_WINDOW, _MAX_FRAME = 65_535, 16_384
_INITIAL_WINDOW = 4  # of SETTINGS
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(name, value):
    """A header field as HPACK writes one that it does not index (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def message(content):
    """A message as gRPC frames it."""
    return b"\0" + struct.pack(">I", len(content)) + content


class Http2Connection:
    """A connection to a server on this machine that acknowledges settings and pings, and reads all that comes.

    `window`: the bytes that each stream may be sent, which it never enlarges; None: gRPC's own.
    `acknowledges`: whether it does so with settings.
    """

    def __init__(self, port, *, window=None, source="127.0.0.1", acknowledges=True):
        self._acknowledges = acknowledges
        self._socket = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
        self._changed = threading.Condition()
        self._room = {0: _FIRST_WINDOW}  # what may be sent, by stream; 0: on the connection
        self._stream_room = _FIRST_WINDOW
        self.ended = set()
        """The streams that the server ended."""
        self.is_closed = False
        wanted = b"" if window is None else struct.pack(">HI", _INITIAL_WINDOW, window)
        self._send(_PREFACE + _frame(_SETTINGS, 0, 0, wanted))
        threading.Thread(target=self._read, daemon=True).start()

    def call(self, stream, path, request=None):
        """Begin a call; with the whole of its request, if there is one."""
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        block = b"".join(_literal(name.encode(), value.encode()) for name, value in fields.items())
        self._send(_frame(_HEADERS, _END_HEADERS, stream, block))
        if request is not None:
            self._send(_frame(_DATA, _END_STREAM, stream, message(request)))

    def send(self, stream, content, *, seconds):
        """Send bytes as long as there is room for them within so many seconds; returns how many were sent."""
        sent = 0
        while sent < len(content):
            with self._changed:
                if not self._changed.wait_for(lambda: self.is_closed or self._room_of(stream) > 0, seconds):
                    break
                if self.is_closed or stream in self.ended:
                    break
                size = min(self._room_of(stream), _MAX_FRAME, len(content) - sent)
                for each in (0, stream):
                    self._room[each] = self._room.get(each, self._stream_room) - size
            self._send(_frame(_DATA, 0, stream, content[sent : sent + size]))
            sent += size
        return sent

    def close(self):
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _room_of(self, stream):
        return min(self._room[0], self._room.get(stream, self._stream_room))

    def _send(self, data):
        with suppress(OSError):
            self._socket.sendall(data)

    def _read(self):
        with suppress(OSError, ValueError, EOFError):
            while True:
                head = self._exactly(9)
                kind, flags, stream = head[3], head[4], struct.unpack(">I", head[5:])[0]
                payload = self._exactly(int.from_bytes(head[:3], "big"))
                with self._changed:
                    self._note(kind, flags, stream, payload)
                    self._changed.notify_all()
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _note(self, kind, flags, stream, payload):
        if kind == _SETTINGS and not flags & _ACK:
            for place in range(0, len(payload), 6):
                key, value = struct.unpack(">HI", payload[place : place + 6])
                self._stream_room = value if key == _INITIAL_WINDOW else self._stream_room
            if self._acknowledges:
                self._send(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._send(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE:
            self._room[stream] = self._room.get(stream, self._stream_room) + struct.unpack(">I", payload)[0]
        elif kind == _RESET or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            self.ended.add(stream)


class Peer:
    """A connection whose answers nobody reads; with `window` 0 the server may not send any data either."""

    def __init__(self, port, *, window=65535):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW, window)))
        self._rest = self._socket.recv(9, socket.MSG_WAITALL)  # the head of the server's settings: it has accepted

    def call(self, path, request=None):
        """A call on the first stream; without a request it has headers only."""
        fields = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"x"}
        fields |= {b"content-type": b"application/grpc", b"te": b"trailers"}
        block = b"".join(_literal(*field) for field in fields.items())
        self._socket.sendall(_frame(_HEADERS, _END_HEADERS | (_END_STREAM if request is None else 0), 1, block))
        if request is not None:
            self._socket.sendall(_frame(_DATA, _END_STREAM, 1, message(request.SerializeToString())))

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
