"""What a server must do about a call whose HTTP/2 is wrong in one field: a rule for each, and its source.

gRPC's core decides most of it, and passes over more than RFC 9113 does; its answer is the rule then, and the
source says so. "HTTP/2" is RFC 9113, "gRPC" its doc/PROTOCOL-HTTP2.md and doc/statuscodes.md, "core" its C
core.
"""

import gzip
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from bgan.v1 import sampling_pb2

from .http2 import (
    ACK,
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    Fields,
    frame,
    message,
    number,
)

PATH = b"/bgan.v1.SamplingService/SampleBinaryImages"
Edit = Callable[[random.Random, Fields], Fields]
Wrong = Callable[[Connection, Fields], bytes]
"""The bytes of a call, from the fields of a good one."""
_UTF8_AT_FAULT = (b"\xff", b"\xfe\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\x80")
_PART = 16_000  # of a header block in one frame; 16,384 are allowed


@dataclass(frozen=True)
class Rule:
    """One field at fault, and what follows."""

    part: str
    name: str
    source: str
    draw: Callable[[random.Random], Wrong]
    ends: str
    """How the call ends, or several ways with | between; OK: with the right images."""
    closes: str = ""
    """How the connection does, likewise; empty: it lives, and the next call on it is answered."""
    edit: Edit | None = None
    """What it does to the fields of a good call, to be joined with others."""
    disturbs: bool = False
    """Whether other calls of its connection may be lost with it, and new ones for a moment."""


def request(name: str, seed: int, count: int) -> bytes:
    """A small call for images."""
    return sampling_pb2.SampleBinaryImagesRequest(model=name, image_count=count, seed=seed).SerializeToString()


def fields_of(authority: str, token: str | None) -> Fields:
    """The fields of a good call."""
    credentials = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    return [
        *((b":method", b"POST"), (b":scheme", b"http"), (b":path", PATH), (b":authority", authority.encode())),
        *((b"te", b"trailers"), (b"content-type", b"application/grpc")),
        *credentials,
    ]


def call_frames(block: bytes, body: bytes, stream: int = CALL) -> bytes:
    """A call as it should be, in as many frames as its fields take."""
    return headers_frames(block, stream) + frame(DATA, END_STREAM, stream, body)


def headers_frames(block: bytes, stream: int = CALL) -> bytes:
    parts = [block[place : place + _PART] for place in range(0, len(block), _PART)] or [b""]
    frames = [frame(CONTINUATION if place else HEADERS, 0, stream, part) for place, part in enumerate(parts[:-1])]
    return b"".join([*frames, frame(CONTINUATION if frames else HEADERS, END_HEADERS, stream, parts[-1])])


# Edits of fields. A choice is bytes, or draws them.


def _drop(name: bytes) -> Edit:
    return lambda rng, fields: [field for field in fields if field[0] != name]


def _put(name: bytes, *choices) -> Edit:
    """In the place of what is there."""
    return lambda rng, fields: [(key, _drawn(rng, choices) if key == name else old) for key, old in fields]


def _add(name, *choices, first: bool = False) -> Edit:
    """Once more, after the other fields or before them."""

    def edit(rng, fields):
        added = [(_drawn(rng, name if isinstance(name, tuple) else (name,)), _drawn(rng, choices))]
        return added + fields if first else fields + added

    return edit


def _drawn(rng, choices):
    choice = rng.choice(choices)
    return choice(rng) if callable(choice) else choice


def _not_utf8(before: bytes = b"", after: bytes = b""):
    return lambda rng: before + rng.choice(_UTF8_AT_FAULT) + rng.randbytes(3).replace(b"\0", b"") + after


def _word(rng) -> bytes:
    return bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz0123456789", k=rng.randint(1, 20)))


def _some(low: int, high: int):
    return lambda rng: b"a" * rng.randint(low, high)


# What a call is made of: its fields edited, its body, or its frames.


def _fields(part, name, source, edit, ends, closes="", *, disturbs=False):
    def draw(rng):
        seed = rng.getrandbits(64)
        return lambda connection, fields: call_frames(connection.block(edit(random.Random(seed), fields)), GOOD)

    return Rule(part, name, source, draw, ends, closes, edit, disturbs)


def _body(name, source, make, ends, encoding=None):
    def draw(rng):
        body = make(rng)
        added = [] if encoding is None else [(b"grpc-encoding", encoding)]
        return lambda connection, fields: call_frames(connection.block(fields + added), body)

    return Rule("body", name, source, draw, ends)


def _frames(part, name, source, make, ends, closes=""):
    """`make` takes (rng, connection, fields)."""

    def draw(rng):
        seed = rng.getrandbits(64)
        return lambda connection, fields: make(random.Random(seed), connection, fields)

    return Rule(part, name, source, draw, ends, closes)


def _good(before=(b"",), between=(b"",), after=(b"",)):
    """A good call with one of these frames before, in and after it."""

    def make(rng, connection, fields):
        head, body = headers_frames(connection.block(fields)), frame(DATA, END_STREAM, CALL, GOOD)
        return b"".join((rng.choice(before), head, rng.choice(between), body, rng.choice(after)))

    return make


def _setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


def _block(cut):
    """A good call whose header block is cut into frames by `cut`: (kind, flags, stream, bytes) of each."""

    def make(rng, connection, fields):
        block = connection.block(fields, huffman=rng.random() < 0.5)
        return b"".join(frame(*each) for each in cut(rng, block)) + frame(DATA, END_STREAM, CALL, GOOD)

    return make


def _in_pieces(rng, block):
    places = sorted(rng.choices(range(len(block) + 1), k=rng.randint(1, 6)))
    parts = [block[start:end] for start, end in zip([0, *places], [*places, len(block)], strict=True)]
    for place, part in enumerate(parts):
        last = END_HEADERS if place == len(parts) - 1 else 0
        yield CONTINUATION if place else HEADERS, last, CALL, part


def _elsewhere(rng, block):
    pieces = (HEADERS, 0, CALL, block[:9]), (CONTINUATION, END_HEADERS, 3, block[9:])
    return pieces if rng.random() < 0.5 else [(CONTINUATION, END_HEADERS, CALL, block)]


def _interrupted(rng, block):
    other = rng.choice((DATA, PING, SETTINGS, 0x77)), 0, 0, b""
    return (HEADERS, 0, CALL, block[:9]), other, (CONTINUATION, END_HEADERS, CALL, block[9:])


def _with_priority(rng, block):
    head = number(rng.choice((0, CALL, 2**31 | 5))) + rng.randbytes(1)
    yield HEADERS, END_HEADERS | HAS_PRIORITY, CALL, head + block


def _with_padding(rng, block):
    yield HEADERS, END_HEADERS | PADDED, CALL, b"\x03" + block + bytes(3)


def _reserved_bit(rng, block):
    yield HEADERS, END_HEADERS, CALL | 1 << 31, block


def _raw(*frames: bytes):
    """One of these and nothing else."""
    return lambda rng, connection, fields: rng.choice(frames)


def _after_start(make):
    """What comes after the fields of a call."""
    return lambda rng, connection, fields: headers_frames(connection.block(fields)) + make(rng, connection)


def _damaged(rng):
    good = gzip.compress(REQUEST)
    return rng.choice((REQUEST, good[: rng.randint(1, len(good) - 5)], rng.randbytes(20)))


def _some_huge(rng):
    return rng.randint(5 * 10**6, 2**32 - 1)


def _single_bytes(rng, connection):
    return b"".join(frame(DATA, 0, CALL, bytes([byte])) for byte in GOOD) + frame(DATA, END_STREAM, CALL)


def _padded(rng, connection):
    padding = rng.choice((b"\x05" + GOOD + bytes(5), b"\xff" + GOOD))
    return rng.choice((frame(DATA, END_STREAM | PADDED, CALL, padding), frame(DATA, 0x53, CALL, GOOD)))


def _too_much(rng, connection):
    """9 MB, which begin as a message of 4 MB."""
    return (
        frame(DATA, 0, CALL, message(bytes(16_000), length=4_000_000)) + frame(DATA, 0, CALL, bytes(16_000)) * 600
    )


def _trailers(flags):
    fields = (b"x-t", b"a"), (b":path", b"/a"), (b"grpc-status", b"13")

    def make(rng, connection):
        trailers = connection.block([rng.choice(fields)])
        return frame(DATA, 0, CALL, GOOD) + frame(HEADERS, END_HEADERS | flags, CALL, trailers)

    return make


def _updates(*increments: int) -> tuple[bytes, ...]:
    return tuple(frame(WINDOW_UPDATE, 0, stream, number(by)) for stream in (0, CALL) for by in increments)


SEED, COUNT = 7, 5
REQUEST = request("", SEED, COUNT)
GOOD = message(REQUEST)

_UNKNOWN_PATHS = (
    *(b"", b"*", b"/", b"foo", b"/a\0b", "/\u00e9".encode(), PATH + b"?a=1", PATH + b"/", PATH.upper(), PATH[1:]),
    *(_some(1_000, 6_000), lambda rng: b"/" + _word(rng) + b"/" + _word(rng)),
)
_ILLEGAL_NAMES = (
    b"X-Upper",
    b"a b",
    b"a\0b",
    b"a:b",
    b"\xff\xfe",
    b"a\r\n",
    b"a\x7f",
    b":other",
    "\u00e9".encode(),
)
_ANY_NAMES = (*(b"x-a", b"user-agent", b"traceparent", b"x-request-id", b"grpc-message"), _word)
_BAD_TOKENS = (b"", b"Bearer", b"Bearer a", b"Basic a", _word, _not_utf8(b"Bearer "), _some(100, 6_000))
_BAD_BLOCKS = [
    frame(HEADERS, END_HEADERS | END_STREAM, CALL, block)
    for block in (
        b"\x80",
        b"\xff\xff\x07",
        b"\x82\x20",
        b"\x3f\xff\xff\xff\x0f",
        b"\x7f" + b"\xff" * 12,
        b"\x40\x05ab",
    )
]
_PRIORITIES = [
    frame(PRIORITY, 0, stream, number(on) + b"\x10") for stream in (0, 1, 9) for on in (0, 1, 2**32 - 1)
]
_NO_STREAMS = [frame(kind, 5, stream, b"") for kind in (DATA, HEADERS) for stream in (0, 2)]
_IDLE_STREAMS = [frame(kind, 0, 5, number(8)) for kind in (DATA, RST, WINDOW_UPDATE)] + [
    frame(RST, 0, 0, number(8))
]
_SETTINGS = [
    *(_setting(0x7777, 5), _setting(2, 0), _setting(1, 0), _setting(1, 2**32 - 1), _setting(3, 0)),
    *(_setting(6, 2**32 - 1), _setting(5, 2**24 - 1), _setting(4, 0) + _setting(4, 65_535)),
]
_BAD_SETTINGS = [
    *(_setting(2, 2), _setting(4, 2**31), _setting(5, 0), _setting(5, 2**24)),
    *(
        frame(SETTINGS, flags, stream, content)
        for flags, stream, content in ((0, 0, bytes(5)), (0, CALL, b""), (ACK, 0, bytes(6)), (ACK, 0, b""))
    ),
]
_OTHERS = [
    *(
        frame(PING, 0, 0, bytes(8)),
        frame(PING, ACK, 0, bytes(8)),
        frame(0x77, 0xFF, 3, b"abc"),
        frame(0xA, 0, 0, b"a"),
    ),
    *(frame(GOAWAY, 0, 0, bytes(8)), frame(GOAWAY, 0, 0, number(0) + number(2) + b"\xff")),
]
_BAD_OTHERS = [
    *(frame(PING, 0, 0, bytes(7)), frame(GOAWAY, 0, 0, bytes(4)), frame(WINDOW_UPDATE, 0, 0, b"abc")),
    frame(DATA, 0, CALL, b"", length=2**24 - 1),
]
_BROKEN = "closed|GOAWAY PROTOCOL_ERROR|GOAWAY FLOW_CONTROL_ERROR|GOAWAY FRAME_SIZE_ERROR|GOAWAY COMPRESSION_ERROR"
_LOST = "open|UNAVAILABLE"  # the last frames of a broken connection may be lost with it
_TOO_MUCH = "RST PROTOCOL_ERROR|INVALID_ARGUMENT|open"  # by when the window grows

RULES: tuple[Rule, ...] = (
    _fields("pseudo", "no :method", "HTTP/2 8.3.1: malformed", _drop(b":method"), "RST INTERNAL_ERROR"),
    _fields("pseudo", "GET, PUT", "gRPC: POST", _put(b":method", b"GET", b"PUT"), "RST INTERNAL_ERROR"),
    _fields(
        "pseudo", "another :method", "gRPC: POST", _put(b":method", b"", b"DELETE", b"post", _word), "INTERNAL"
    ),
    _fields("pseudo", "no :scheme", "HTTP/2 8.3.1: malformed", _drop(b":scheme"), "RST INTERNAL_ERROR"),
    _fields(
        "pseudo", "another :scheme", "gRPC: http(s)", _put(b":scheme", b"", b"ftp", b"HTTP", _word), "INTERNAL"
    ),
    _fields(
        "pseudo", "https in plaintext, and http in TLS", "core passes over it", _put(b":scheme", b"https"), "OK"
    ),
    _fields("pseudo", "no :path", "HTTP/2 8.3.1: malformed", _drop(b":path"), "RST INTERNAL_ERROR"),
    _fields("path", "unknown", "gRPC: no such method", _put(b":path", *_UNKNOWN_PATHS), "UNIMPLEMENTED"),
    # grpc.aio decodes it unguarded: the call is lost, and its listener with it until that is opened again.
    _fields(
        *("path", "no UTF-8", "gRPC: no such method", _put(b":path", _not_utf8(b"/"), _not_utf8(PATH))),
        *("UNIMPLEMENTED|CANCELLED|UNAVAILABLE|open", ""),
        disturbs=True,
    ),
    _fields("path", "above 16 KiB", "SETTINGS", _put(b":path", _some(2**14, 2**17)), "RESOURCE_EXHAUSTED"),
    _fields(
        "path", "twice", "HTTP/2 8.3: malformed; core takes the last", _add(b":path", b"/a/b"), "UNIMPLEMENTED"
    ),
    _fields("pseudo", "no :authority", "gRPC: it or host", _drop(b":authority"), "RST INTERNAL_ERROR"),
    _fields(
        *("pseudo", "an odd :authority", "core passes over it"),
        *(_put(b":authority", b"", b"a b", b"\x7f", _word, _some(100, 6_000)), "OK"),
    ),
    _fields("pseudo", ":authority twice", "HTTP/2 8.3: malformed", _add(b":authority", _word), "INTERNAL"),
    _fields(
        "pseudo", "unknown", "HTTP/2 8.3: malformed", _add((b":foo", b":", b":Path"), b"a", first=True), "INTERNAL"
    ),
    _fields("pseudo", ":status", "HTTP/2 8.3: malformed; core passes over it", _add(b":status", b"200"), "OK"),
    _fields(
        "pseudo", "after others", "HTTP/2 8.3: malformed; core passes over it", lambda _, all: all[::-1], "OK"
    ),
    _fields("te", "absent", "gRPC: detects bad proxies", _drop(b"te"), "RST INTERNAL_ERROR"),
    _fields("te", "another", "HTTP/2 8.2.2: trailers", _put(b"te", b"", b"gzip", b"Trailers", _word), "INTERNAL"),
    _fields(
        *("content-type", "any", "gRPC: may be refused with 415; core passes over it"),
        *(_put(b"content-type", b"", b"text/html", b"application/grpc-web", b"application/grpc;a=b", _word), "OK"),
    ),
    _fields("content-type", "absent", "core passes over it", _drop(b"content-type"), "OK"),
    _fields("timeout", "right", "gRPC", _add(b"grpc-timeout", b"99999999H", b"5M", b"99S", b"90000m"), "OK"),
    _fields(
        *("timeout", "at once", "core rounds up to a millisecond, in which the images may be done"),
        *(_add(b"grpc-timeout", b"0S", b"0n", b"1n", b"9u"), "OK|DEADLINE_EXCEEDED"),
    ),
    _fields(
        *("timeout", "malformed", "gRPC: digits and a unit"),
        *(
            _add(b"grpc-timeout", b"", b"S", b"1", b"1x", b"-1S", b"1.5S", b"\xff1S", b"1s", b"0x1S", _word),
            "INTERNAL",
        ),
    ),
    _fields(
        "timeout", "above 8 digits, spaces", "core reads it", _add(b"grpc-timeout", b"123456789S", b" 9 S"), "OK"
    ),
    _fields("encoding", "known", "gRPC", _add(b"grpc-encoding", b"identity", b"gzip", b"deflate"), "OK"),
    _fields(
        *("encoding", "unknown", "gRPC: UNIMPLEMENTED; core's text is of a parse error"),
        *(_add(b"grpc-encoding", b"", b"snappy", b"GZIP", b"\xff", _word), "INTERNAL"),
    ),
    _fields(
        "encoding", "accepted", "gRPC: a hint", _add(b"grpc-accept-encoding", b"", b",,", b"zzz", _word), "OK"
    ),
    _fields("names", "illegal", "HTTP/2 8.2.1: malformed", _add(_ILLEGAL_NAMES, b"a"), "INTERNAL"),
    _fields("names", "empty", "HTTP/2 8.2.1: malformed", _add(b"", b"a", b""), "INTERNAL"),
    _fields(
        "values", "text", "gRPC: custom metadata", _add(_ANY_NAMES, b"", b" a ", _word, _some(100, 6_000)), "OK"
    ),
    _fields(
        *("values", "NUL, CR, LF, no ASCII", "HTTP/2 8.2.1: malformed; core passes over them"),
        *(_add(_ANY_NAMES, b"a\0b", b"a\r\nb: c", b"\x7f", _not_utf8(), b"\x1b[2J"), "OK"),
    ),
    # For a connection that has acknowledged the server's settings. Till then, core takes 16 MiB.
    _fields("values", "above 16 KiB", "SETTINGS", _add(_word, _some(2**14, 2**20)), "RESOURCE_EXHAUSTED"),
    _fields("values", "base64", "gRPC: binary", _add(b"x-bin", b"", b"AQID", b"AQ==", b"\0raw"), "OK"),
    _fields(
        "values",
        "no base64",
        "gRPC: binary",
        _add((b"x-bin", b"grpc-trace-bin"), b"!!!!", b"A", b"\xff"),
        "INTERNAL",
    ),
    _fields(
        "values",
        "no number",
        "gRPC: a number",
        _add((b"grpc-previous-rpc-attempts", b"grpc-status"), b"x", b""),
        "INTERNAL",
    ),
    _fields(
        *("values", "of HTTP/1, of lengths", "HTTP/2 8.1.1, 8.2.2: malformed; core passes over them"),
        *(_add((b"connection", b"transfer-encoding", b"upgrade", b"content-length", b"host"), b"1", b"x"), "OK"),
    ),
    _body("right", "gRPC", lambda rng: GOOD, "OK"),
    _body("none", "one message is due", lambda rng: GOOD[: rng.randint(0, 4)], "INVALID_ARGUMENT"),
    _body("cut off", "one message is due", lambda rng: GOOD[: rng.randint(5, len(GOOD) - 1)], "INVALID_ARGUMENT"),
    _body(
        "a prefix too high",
        "likewise",
        lambda rng: message(REQUEST, length=rng.randint(9, 99)),
        "INVALID_ARGUMENT",
    ),
    _body("a prefix too low", "no message of it", lambda rng: message(REQUEST, length=1), "INVALID_ARGUMENT"),
    _body("no protobuf", "no message of it", lambda rng: message(b"\xff" * rng.randint(1, 9)), "INVALID_ARGUMENT"),
    _body("above the limit", "gRPC", lambda rng: message(REQUEST, length=_some_huge(rng)), "RESOURCE_EXHAUSTED"),
    _body(
        "two messages", "gRPC: UNIMPLEMENTED; core takes one", lambda rng: GOOD + rng.choice((GOOD, b"\0")), "OK"
    ),
    _body("compressed", "gRPC", lambda rng: message(gzip.compress(REQUEST), flag=1), "OK", b"gzip"),
    _body("deflated", "gRPC", lambda rng: message(zlib.compress(REQUEST), flag=1), "OK", b"deflate"),
    _body("not compressed", "gRPC: each message as it likes", lambda rng: GOOD, "OK", b"gzip"),
    _body("compressed, by no name", "gRPC: INTERNAL", lambda rng: message(REQUEST, flag=1), "INTERNAL"),
    _body("compressed as identity", "gRPC", lambda rng: message(REQUEST, flag=1), "INTERNAL", b"identity"),
    _body("badly compressed", "gRPC: INTERNAL", lambda rng: message(_damaged(rng), flag=1), "INTERNAL", b"gzip"),
    _frames("data", "in single bytes", "HTTP/2 6.1", _after_start(_single_bytes), "OK"),
    _frames("data", "padded, of unknown flags", "core refuses them", _after_start(_padded), "RST PROTOCOL_ERROR"),
    _frames("data", "after the end", "HTTP/2 5.1; passed over", _good(after=(frame(DATA, 1, CALL, GOOD),)), "OK"),
    _frames("data", "above the window", "HTTP/2 6.9.1", _after_start(_too_much), _TOO_MUCH, f"|{_BROKEN}"),
    _frames("trailers", "with an end", "gRPC: passed over", _after_start(_trailers(END_STREAM)), "OK"),
    _frames("trailers", "without an end", "HTTP/2 8.1: malformed", _after_start(_trailers(0)), _LOST, _BROKEN),
    _frames("continuation", "a block in pieces", "HTTP/2 6.10", _block(_in_pieces), "OK"),
    _frames("continuation", "of another call, alone", "HTTP/2 6.10", _block(_elsewhere), _LOST, _BROKEN),
    _frames("continuation", "with others between", "HTTP/2 6.10", _block(_interrupted), _LOST, _BROKEN),
    _frames("priority", "of the headers", "HTTP/2 5.3.2: passed over", _block(_with_priority), "OK"),
    _frames("priority", "any", "HTTP/2 5.3.2: passed over", _good(before=_PRIORITIES), "OK"),
    _frames("hpack", "malformed", "HTTP/2 4.3", _raw(*_BAD_BLOCKS), "open|INTERNAL", _BROKEN),
    _frames(
        "headers", "padded", "HTTP/2 6.2; core does not know it", _block(_with_padding), "open|INTERNAL", _BROKEN
    ),
    _frames("streams", "0 or even", "HTTP/2 5.1.1; core passes over it", _raw(*_NO_STREAMS), "open"),
    _frames("streams", "not begun", "HTTP/2 5.1; core passes over it", _raw(*_IDLE_STREAMS), "open"),
    _frames("streams", "the reserved bit", "HTTP/2 4.1: passed over", _block(_reserved_bit), "OK"),
    _frames(
        "rst", "any code", "HTTP/2 6.4", _after_start(lambda rng, _: frame(RST, 0, CALL, rng.randbytes(4))), "open"
    ),
    _frames(
        "rst",
        "of a wrong length",
        "HTTP/2 6.4",
        _after_start(lambda *_: frame(RST, 0, CALL, b"abc")),
        _LOST,
        _BROKEN,
    ),
    _frames("settings", "allowed, unknown", "HTTP/2 6.5.2", _good(before=_SETTINGS), "OK"),
    _frames("settings", "out of range, malformed", "HTTP/2 6.5", _raw(*_BAD_SETTINGS), "open", _BROKEN),
    _frames("windows", "updated", "HTTP/2 6.9", _good(between=_updates(1, 1_000)), "OK"),
    _frames("windows", "by nothing", "HTTP/2 6.9", _good(between=_updates(0)), _LOST, _BROKEN),
    _frames(
        "windows", "above 2^31", "HTTP/2 6.9.1; core passes over it", _good(between=_updates(2**31 - 1)[1:]), "OK"
    ),
    _frames("others", "a ping, a goaway, unknown kinds", "HTTP/2 4.1, 6.7, 6.8", _good(before=_OTHERS), "OK"),
    _frames("others", "malformed", "HTTP/2 4.2, 6.7, 6.8, 6.9", _raw(*_BAD_OTHERS), "open", _BROKEN),
    _frames(
        "others",
        "a push",
        "HTTP/2 8.4; core passes over it",
        _good(between=(frame(PUSH, 4, CALL, bytes(4)),)),
        "OK",
    ),
)

TOKEN_RULES: tuple[Rule, ...] = (
    _fields("token", "none", "sampling.proto", _drop(b"authorization"), "UNAUTHENTICATED"),
    _fields("token", "another", "sampling.proto", _put(b"authorization", *_BAD_TOKENS), "UNAUTHENTICATED"),
    _fields("token", "two", "sampling.proto: one", _add(b"authorization", b"Bearer a", _word), "UNAUTHENTICATED"),
)
"""Those of a server that wants a token."""
