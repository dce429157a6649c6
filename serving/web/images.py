"""Images over HTTP: requests of the sampling service, in addresses; answers that caches keep and parts of them."""

import hashlib
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version as version_of
from typing import Any, TypeVar

from bgan.v1 import sampling_pb2 as pb

from ..errors import InvalidRequestError, ModelFileError, ModelNotFoundError, NotAllowedError, foreign
from ..models.engine import Engine
from ..models.manifest import class_numbers
from ..rpc.admission import who_calls
from ..rpc.batching import MAX_SHARED_IMAGES
from ..rpc.context import ServiceContext
from ..rpc.pool import in_one_step
from ..rpc.sampling import SamplingServicer
from ..rpc.stream_plan import StreamPlan, plan_stream
from .encodings import ENCODINGS, Encoding
from .http_call import HttpCall, Reply
from .pages import send_file

DEFAULT_COUNT = 64
"""Images of a request that does not say how many."""
DESCRIBING = (
    *("bgan-model", "bgan-revision", "bgan-seed"),
    *("bgan-first-index", "bgan-image-count", "bgan-image-shape"),
)
"""The headers that say what the images are."""
_INTEGERS = {"seed": "seed", "first_index": "first_index", "count": "image_count", "version": "version"}
_FIELDS = (*_INTEGERS, "label", "format")
_OF_REVISION = tuple(name for name in _FIELDS if name != "version")  # which a revision is one of
_INT64 = range(-(2**63), 2**63)
_MANY_LABELS = 1000
_MAX_ENCODED_BYTES = 2**20  # of a message's images, if one image has less
_YEAR = 31_536_000
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImagesRequest:
    """What the address and the headers of a request for images say."""

    message: pb.SampleBinaryImagesRequest
    """Without its labels, which are named by the model's classes."""
    labels: tuple[str, ...]
    encoding: type[Encoding]
    is_negotiated: bool
    """Whether `Accept` decided on it."""


def read_images_request(call: HttpCall) -> ImagesRequest:
    """What a request asks for. Raises InvalidRequestError with every field that is invalid."""
    query, violations = call.query(), {}
    message = pb.SampleBinaryImagesRequest(image_count=DEFAULT_COUNT, model=call.path.get("name", ""))
    message.revision = call.path.get("revision", "")
    fields = _OF_REVISION if message.revision else _FIELDS
    for name, values in query.items():
        if name not in fields:
            violations[name] = f"is no field of this address; it has {', '.join(fields)}"
        elif name != "label" and len(values) > 1:
            violations[name] = f"is there {len(values)} times; send it once"
        elif name in _INTEGERS:
            if (number := _int64(values[0])) is None:
                violations[name] = f"is '{foreign(values[0])}'; it is a whole number, below 2^63"
            else:
                setattr(message, _INTEGERS[name], number)
    labels = tuple(query.get("label", ()))
    if len(labels) > _MANY_LABELS:
        violations["label"] = f"is there {len(labels)} times; send at most {_MANY_LABELS}"
    if message.revision and "seed" not in query:
        violations["seed"] = "is missing; images of a revision that never change have one"
    named = query.get("format", [""])[0]
    if "format" in query and named not in ENCODINGS:
        violations["format"] = f"is '{foreign(named)}'; use one of {', '.join(ENCODINGS)}"
    if violations:
        raise InvalidRequestError(violations)
    encoding = ENCODINGS[named] if named else _accepted(call)
    return ImagesRequest(message, labels, encoding, is_negotiated=not named)


class Images:
    """Answers requests for images, by calls of the sampling service's own method."""

    def __init__(self, context: ServiceContext, sampling: SamplingServicer) -> None:
        self._context = context
        self._sampling = sampling

    async def of_model(self, request: ImagesRequest, call: HttpCall) -> bytes:
        """Images of a model's newest version, or of one that is numbered; not to be kept without asking again."""
        message = request.message
        engine = self._context.models.find(message.model, version=message.version)
        how = "no-cache" if message.HasField("seed") else "no-store"
        return await self._answer(engine, request, call, cache_control=f"{how}, no-transform")

    async def of_revision(self, request: ImagesRequest, call: HttpCall) -> bytes:
        """Images of a revision, which never change: any cache may keep what anyone may have, else the caller's."""
        engine = self._engine_of(request.message.revision)
        return await self._answer(engine, request, call, cache_control=self._for_ever())

    async def file_of_revision(self, _: object, call: HttpCall) -> bytes:
        """The model's file, with which others compute the same images. Raises NotAllowedError."""
        settings = self._context.settings
        if not settings.model_files:
            raise NotAllowedError("this server does not give its models' files away (--no-model-files)")
        engine = self._engine_of(call.path["revision"])
        try:
            file = await self._context.pool.run(who_calls(call.peer()), in_one_step(engine.open_file))
        except ModelFileError as error:
            raise ModelNotFoundError(f"the file of {engine} is there no more") from error
        headers = {
            "content-type": "application/octet-stream",
            "content-disposition": f'attachment; filename="{engine.manifest.name}.onnx"',
            "cache-control": self._for_ever(),
            "etag": f'"{engine.revision}"',
        }
        with file:
            call.reply = Reply(headers=headers, length=os.fstat(file.fileno()).st_size)
            if call.has_tag(headers["etag"]):
                call.reply.status, call.reply.length = 304, None
                return b""
            return b"" if call.method == "HEAD" else await send_file(file, call, settings.stalled_write_seconds)

    def _for_ever(self) -> str:
        """How caches may keep what never changes."""
        settings = self._context.settings
        whose = "public" if settings.tokens is None and settings.tls_client_ca is None else "private"
        return f"{whose}, max-age={_YEAR}, immutable, no-transform"

    def _engine_of(self, revision: str) -> Engine:
        models = self._context.models
        found = (each for each in models.visible().kept_engines() if each.revision == revision)
        if (engine := next(found, None)) is None:
            raise ModelNotFoundError(f"no model is served in the revision '{foreign(revision)}'")
        return models.find(engine.manifest.name, revision=revision)

    async def _answer(
        self, engine: Engine, request: ImagesRequest, call: HttpCall, *, cache_control: str
    ) -> bytes:
        message = request.message
        try:
            message.labels.extend(class_numbers(request.labels, engine.manifest))
        except ValueError as error:
            raise InvalidRequestError({"label": str(error)}) from error
        is_fixed = message.HasField("seed")
        plan = plan_stream(message, engine, self._context.settings)
        encoding = request.encoding(engine, plan.images)
        reply = Reply(headers={**_described(plan, encoding), "cache-control": cache_control})
        call.reply = reply
        if request.is_negotiated:
            reply.headers["vary"] = "Accept"
        reply.length = encoding.length
        if is_fixed:
            tag = reply.headers["etag"] = _tag(plan, encoding)
            if call.has_tag(tag):
                reply.status, reply.length = 304, None
                return b""
        has_parts = is_fixed and call.method == "GET"
        part = Part(encoding, _range_of(call, encoding, reply) if has_parts else None)
        if call.method == "HEAD":
            return b""
        return await self._send(plan, part, call)

    async def _send(self, plan: StreamPlan, part: "Part", call: HttpCall) -> bytes:
        """Let the service make the images of a part; returns the last bytes."""
        engine, images, encoding = plan.engine, plan.images, part.encoding
        message = pb.SampleBinaryImagesRequest(
            model=engine.manifest.name,
            version=engine.version,
            revision=engine.revision,
            seed=images.seed,
            first_index=images.first_index + part.first,
            image_count=part.count,
            labels=images.labels,
            batch_size=_batch_size(plan, encoding),
        )
        is_small = part.count <= MAX_SHARED_IMAGES or not encoding.is_work

        async def compute(function: Callable[..., T], *arguments: object) -> T:
            if is_small:
                return function(*arguments)
            # In its caller's turn, since it takes as long as making the images.
            return await self._context.pool.run(who_calls(call.peer()), in_one_step(function, *arguments))

        async def encode(data: bytes) -> bytes:
            return await compute(part.encode, pb.SampleBinaryImagesResponse.FromString(data))

        call.reply.encode = encode
        last = await encode(await self._sampling.SampleBinaryImages(message, call))
        end = encoding.end()
        while True:  # labels, which are many
            more = await compute(next, end, None)
            if more is None:
                return last
            if len(last) > _MAX_ENCODED_BYTES:
                await call.write_in_time(last, self._context.settings.stalled_write_seconds)
                last = b""
            last += part.cut(more)


class Part:
    """The images that make some bytes of an encoding, and these bytes of them."""

    def __init__(self, encoding: Encoding, span: tuple[int, int] | None) -> None:
        """`span`: from which byte to which; None: all of them."""
        self.encoding = encoding
        self.first, self.count = 0, encoding.images.count
        """Of the encoding's images."""
        self._before, self._left = 0, 2**63  # bytes to leave out, and then to send
        self._head = encoding.head
        if span is not None and encoding.row_bytes is not None:
            head, row = len(encoding.head), encoding.row_bytes
            self.first = min(max(0, span[0] - head) // row, self.count - 1)
            self.count = max(1, -(-max(0, span[1] - head) // row) - self.first)
            self._left = span[1] - span[0]
            self._before = span[0] if not self.first else span[0] - head - self.first * row
            self._head = b"" if self.first else self._head

    def encode(self, response: pb.SampleBinaryImagesResponse) -> bytes:
        """What of a message's images lies in the part."""
        head, self._head = self._head, b""
        return self.cut(head + self.encoding.encode(response))

    def cut(self, data: bytes) -> bytes:
        """What of the next bytes lies in the part."""
        start = min(self._before, len(data))
        data = data[start : start + self._left]
        self._before, self._left = self._before - start, self._left - len(data)
        return data


def _int64(text: str) -> int | None:
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or int(text) not in _INT64:
        return None
    return int(text)


def _accepted(call: HttpCall) -> type[Encoding]:
    """The format that a caller likes most; of equals the first of ours. Raises InvalidRequestError."""
    best, most, accept = None, 0.0, call.header("accept") or "*/*"
    weights = _weights(accept)
    for each in ENCODINGS.values():
        kind = each.media_type.partition("/")[0]
        weight = next((weights[name] for name in (each.media_type, f"{kind}/*", "*/*") if name in weights), 0.0)
        if weight > most:
            best, most = each, weight
    if best is None:
        kinds = ", ".join(each.media_type for each in ENCODINGS.values())
        raise call.refusal(HTTPStatus.NOT_ACCEPTABLE, "accept", f"is '{foreign(accept)}'; there are {kinds}")
    return best


def _weights(accept: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for entry in accept.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        weights[name] = float(quality) if re.fullmatch(r"[01](\.\d{0,3})?", quality) else 0.0
    return weights


def _described(plan: StreamPlan, encoding: Encoding) -> dict[str, str]:
    """The headers that say what the images are."""
    manifest, images = plan.engine.manifest, plan.images
    last = images.first_index + images.count - 1
    shape = ",".join(map(str, plan.engine.image_shape))
    values = (manifest.name, plan.engine.revision, images.seed, images.first_index, images.count, shape)
    name = f"{manifest.name}-seed-{images.seed}-{images.first_index}-{last}.{encoding.name}"
    return {
        "content-type": encoding.media_type,
        "content-disposition": f'inline; filename="{name}"',
        "accept-ranges": "none" if encoding.row_bytes is None else "bytes",
        **dict(zip(DESCRIBING, map(str, values), strict=True)),
    }


def _tag(plan: StreamPlan, encoding: Encoding) -> str:
    """A strong entity tag: equal tags, equal bytes."""
    images = plan.images
    parts: list[Any] = [plan.engine.manifest.name, plan.engine.revision, images, encoding.name]
    if encoding.row_bytes is None:  # how it is written may change
        parts += [version_of("bgan"), zlib.ZLIB_RUNTIME_VERSION]
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def _range_of(call: HttpCall, encoding: Encoding, reply: Reply) -> tuple[int, int] | None:
    """The bytes that a request asks for, which its reply then says; None: all of them.

    Raises InvalidRequestError where it asks for what comes after the last.
    """
    found = _RANGE.fullmatch((call.header("range") or "").strip())
    total, unless = encoding.length, call.header("if-range")
    if found is None or total is None or found[0] == "bytes=-" or unless not in (None, reply.headers["etag"]):
        return None
    first, last = found.groups()
    start = int(first) if first else max(0, total - int(last))
    stop = min(int(last) + 1, total) if first and last else total
    if first and last and int(last) < start:
        return None
    if start >= total:
        call.set_trailing_metadata((("content-range", f"bytes */{total}"),))
        text = f"begins after the last of {total} bytes"
        raise call.refusal(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "range", text)
    reply.status, reply.length = 206, stop - start
    reply.headers["content-range"] = f"bytes {start}-{stop - 1}/{total}"
    return start, stop


def _batch_size(plan: StreamPlan, encoding: Encoding) -> int:
    """Images of a message: 0, the server's choice, unless they would take much more than their bits."""
    size = _MAX_ENCODED_BYTES // encoding.image_bytes
    return 0 if size >= plan.batch_size else max(1, size)
