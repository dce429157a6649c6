"""What a caller adds to a client's channels and calls: metadata, interceptors and options of gRPC."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc

from ._errors import REQUEST_ID_KEY
from ._text import printable

Metadata = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]
"""Keys and values that calls send; a key may come several times in pairs."""
AUTHORIZATION_KEY = "authorization"
_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")
_KINDS = tuple(f"{kind}ClientInterceptor" for kind in ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"))


def check_metadata(given: Any, *, with_token: bool) -> tuple[tuple[str, str | bytes], ...]:
    """The pairs of key and value. Raises ValueError, which shows no value, for what gRPC does not send."""
    pairs = [*given.items()] if isinstance(given, Mapping) else _listed("metadata", given)
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ValueError("metadata is not of pairs; use {'key': 'value'} or [('key', 'value')]")
        if problem := _metadata_problem(*pair, with_token=with_token):
            raise ValueError(f"metadata {printable(pair[0])!r} {problem}")
    return tuple(pairs)


def _metadata_problem(key: str, value: Any, *, with_token: bool) -> str | None:
    """What is wrong with a pair."""
    if not _KEY.fullmatch(key):
        return "is no key; use small letters, digits and _.-, and no name that begins with grpc-"
    if key == REQUEST_ID_KEY:
        return "is sent as each call's request_id; give it there"
    if key == AUTHORIZATION_KEY and with_token:
        return "is what the token is sent as; leave one of both out"
    if key.endswith("-bin"):
        return None if isinstance(value, bytes) else "ends in -bin, so its value is bytes"
    is_text = isinstance(value, str) and _TEXT.fullmatch(value)
    return None if is_text else "has a value that is no printable ASCII text; give bytes to a key in -bin"


def check_options(given: Any) -> dict[str, Any]:
    """Channel options by name. Raises ValueError for what is none."""
    options = [*given.items()] if isinstance(given, Mapping) else _listed("channel_options", given)
    for each in options:
        is_pair = isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], str)
        if not (is_pair and isinstance(each[1], str | bytes | int)):
            rule = "use {name: value} with numbers and text, as in {'grpc.primary_user_agent': 'me'}"
            raise ValueError(f"channel_options has {printable(repr(each))}; {rule}")
    return dict(options)


def check_interceptors(given: Any, module: Any) -> tuple[Any, ...]:
    """Interceptors for the channels of `module`, grpc or grpc.aio. Raises ValueError for others."""
    interceptors = tuple(_listed("interceptors", given))
    for each in interceptors:
        if not isinstance(each, tuple(getattr(module, kind) for kind in _KINDS)):
            kind = f"{module.__name__}.UnaryStreamClientInterceptor"
            raise ValueError(f"{type(each).__name__} is no interceptor of this client; derive it from {kind}")
    return interceptors


def _listed(name: str, given: Any) -> list[Any]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ValueError(f"{name} is {type(given).__name__}; use a list")
    return list(given)


def open_channel(
    module: Any,
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: Mapping[str, Any],
    interceptors: Sequence[Any],
) -> Any:
    """A channel of `module`, grpc or grpc.aio, whose calls the interceptors see, the first of them first."""
    is_async = module is grpc.aio
    more = {"interceptors": _of_one_kind(interceptors)} if is_async else {}
    pairs = list(options.items())
    if credentials is None:
        channel = module.insecure_channel(target, options=pairs, **more)
    else:
        channel = module.secure_channel(target, credentials, options=pairs, **more)
    return channel if is_async or not interceptors else grpc.intercept_channel(channel, *interceptors)


class _StreamsOf(grpc.aio.UnaryStreamClientInterceptor):
    """An interceptor as that of streams alone."""

    def __init__(self, interceptor: Any) -> None:
        self._interceptor = interceptor

    async def intercept_unary_stream(self, *call: Any) -> Any:
        return await self._interceptor.intercept_unary_stream(*call)


def _of_one_kind(interceptors: Sequence[Any]) -> list[Any]:
    """For asyncio: gRPC would take one that is of unary calls and of streams for unary calls alone."""
    kinds = grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor
    both = [each for each in interceptors if all(isinstance(each, kind) for kind in kinds)]
    return [part for each in interceptors for part in ([each, _StreamsOf(each)] if each in both else [each])]
