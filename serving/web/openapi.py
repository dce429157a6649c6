"""What /openapi.json says: every address of the HTTP port, as OpenAPI 3.1."""

import json
from functools import cache
from importlib.metadata import version
from typing import Any

from ..models.noise import INDEX_END
from .encodings import ENCODINGS
from .images import DEFAULT_COUNT, DESCRIBING
from .inference import EXTENSIONS, HEADER_LENGTH
from .problems import MEDIA_TYPE, OIP_MEDIA_TYPE

_Json = dict[str, Any]
_REVISION = "5b443831366fff18c2e025f9484fe507"
_ABOUT = (
    "Binary images of trained generators. Image i of a revision and a seed never changes: any part of a stream "
    "can be asked for again, in any order. In JSON, 64-bit integers are strings, as in proto3 JSON."
)


@cache
def openapi_json() -> bytes:
    """The document."""
    document = {
        "openapi": "3.1.0",
        "info": {"title": "bgan", "version": version("bgan"), "description": _ABOUT, "license": {"name": "MIT"}},
        "security": [{}, {"token": []}],
        "tags": [{"name": "images"}, {"name": "models"}, {"name": "inference"}, {"name": "server"}],
        "paths": {**_image_paths(), **_model_paths(), **_inference_paths(), **_server_paths()},
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "From `bgan token`."}
            },
            "schemas": _schemas(),
            "responses": {"problem": _problem()},
        },
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(
    name: str, tag: str, summary: str, answers: _Json, *, parameters: Any = (), body: Any = None
) -> _Json:
    operation = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "parameters": list(parameters),
        "responses": {**answers, "default": {"$ref": "#/components/responses/problem"}},
    }
    return operation if body is None else {**operation, "requestBody": body}


def _parameter(name: str, schema: _Json, what: str, example: Any, *, place: str = "query", **more: Any) -> _Json:
    """`example`: None for none."""
    about = {"name": name, "in": place, "description": what, "schema": schema}
    about |= {} if example is None else {"example": example}
    return {**about, **({"required": True} if place == "path" else {}), **more}


def _json_answer(what: str, schema: _Json, example: Any, status: str = "200") -> _Json:
    return {status: {"description": what, "content": {"application/json": {"schema": schema, "example": example}}}}


_MODEL = _parameter("name", {"type": "string"}, "The model's name.", "mlp-dbn", place="path")
_VERSION = _parameter(
    "version", {"type": "string"}, "Its version's number, or its revision.", _REVISION, place="path"
)
_NATURAL = {"type": "integer", "format": "int64", "minimum": 0, "maximum": INDEX_END}


def _image_paths() -> _Json:
    seed = _parameter("seed", _NATURAL, "The stream's seed. Without one it is drawn, and told in `bgan-seed`.", 1)
    others = [
        _parameter("first_index", {**_NATURAL, "default": 0}, "The index of the first image in the stream.", 0),
        _parameter(
            "count",
            {"type": "integer", "format": "int64", "minimum": 1, "default": DEFAULT_COUNT},
            "How many images; /v1/models tells the most.",
            16,
        ),
        _parameter(
            "label",
            {"type": "array", "items": {"type": "string"}},
            "A class of a class-conditional model, by name or number; several take turns.",
            None,
            explode=True,
        ),
        _parameter(
            "format",
            {"type": "string", "enum": list(ENCODINGS)},
            "png: one image, or a grid. npz: packed images and their origin, for numpy. npy: uint8 [n, channels, "
            "height, width]. bits: packed images alone. json: pixels. Without it, `Accept` decides.",
            "png",
        ),
        _parameter("Range", {"type": "string"}, "Bytes of npy or bits; needs a seed.", "bytes=0-", place="header"),
        _parameter("If-Range", {"type": "string"}, "The entity tag of the range's whole.", '"x"', place="header"),
        _parameter("If-None-Match", {"type": "string"}, "Entity tags that are there.", '"x"', place="header"),
    ]
    number = _parameter("version", _NATURAL, "The number of the model's version; 0: the highest.", 0)
    revision = _parameter("revision", {"type": "string"}, "A model's revision.", _REVISION, place="path")
    of_model = [_MODEL, seed, number, *others]
    of_revision = [revision, {**seed, "required": True}, *others]
    return {
        "/v1/models/{name}/images": {
            "get": _operation("sampleModel", "images", "Images of a model", _images(), parameters=of_model)
        },
        "/v1/revisions/{revision}/images": {
            "get": _operation(
                "sampleRevision",
                "images",
                "Images of a revision, which never change and may be cached for ever",
                _images(),
                parameters=of_revision,
            )
        },
    }


def _images() -> _Json:
    binary: _Json = {each.media_type: {} for each in ENCODINGS.values()}
    content = {**binary, "application/json": {"schema": _ref("Images"), "example": _IMAGES}}
    text = {"schema": {"type": "string"}}
    headers = dict.fromkeys((*DESCRIBING, "etag"), text)
    return {
        "200": {"description": "The images, as a stream.", "headers": headers, "content": content},
        "206": {
            "description": "Some bytes of them.",
            "headers": {**headers, "content-range": text},
            "content": binary,
        },
        "304": {"description": "They are as the entity tag says."},
    }


_IMAGES = {
    "model": "mlp-dbn",
    "revision": _REVISION,
    "seed": "1",
    "first_index": "0",
    "image_count": "1",
    "image_shape": {"channels": 1, "height": 2, "width": 2},
    "images": [{"index": "0", "pixels": [[[0, 1], [1, 0]]]}],
}
_SERVED = {
    "model": {"name": "mlp-dbn", "latent_size": 128, "image_shape": {"channels": 1, "height": 28, "width": 28}},
    "revision": _REVISION,
    "is_default": True,
    "execution": "EXECUTION_ANY_BATCH",
    "version": "0",
}
_LIMITS = {"max_image_count": "1000000000", "max_batch_size": 4096, "max_message_bytes": 4000000}


def _model_paths() -> _Json:
    many = {"models": [_SERVED], "limits": _LIMITS, "failures": []}
    return {
        "/v1/models": {
            "get": _operation(
                "listModels",
                "models",
                "All models",
                _json_answer("bgan.v1.ListModelsResponse.", _ref("Models"), many),
            )
        },
        "/v1/models/{name}": {
            "get": _operation(
                "getModel",
                "models",
                "One model",
                _json_answer("bgan.v1.GetModelResponse.", _ref("Model"), {"model": _SERVED, "limits": _LIMITS}),
                parameters=[_MODEL],
            )
        },
    }


def _inference_paths() -> _Json:
    tensor = {"name": "latents", "datatype": "FP32", "shape": [1, 4], "data": [0.5, -1.0, 0.25, 2.0]}
    image = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 2], "data": [0, 1, 1, 0]}
    request = {"inputs": [tensor], "outputs": [{"name": "images"}]}
    answer = {"model_name": "mlp-dbn", "model_version": _REVISION, "outputs": [image]}
    binary = {"schema": {"type": "string", "format": "binary"}}
    infer_body = {
        "required": True,
        "content": {
            "application/json": {"schema": _ref("InferRequest"), "example": request},
            "application/octet-stream": binary,
        },
    }
    length = _parameter(
        HEADER_LENGTH,
        {"type": "integer", "minimum": 0},
        "Bytes of JSON before binary tensors; without it all of the body is JSON.",
        None,
        place="header",
    )
    infer_answer = _json_answer("The outputs.", _ref("InferResponse"), answer)
    infer_answer["200"]["content"]["application/octet-stream"] = binary
    about = {
        "name": "mlp-dbn",
        "versions": [_REVISION],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "latents", "datatype": "FP32", "shape": [-1, 128]}],
        "outputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 28, 28]}],
    }
    is_ready = {"name": "mlp-dbn", "ready": True}
    paths: _Json = {
        "/v2": {
            "get": _operation(
                "serverMetadata",
                "inference",
                "Name, version and extensions of the server",
                _json_answer(
                    "They are.",
                    {"type": "object"},
                    {"name": "bgan", "version": version("bgan"), "extensions": list(EXTENSIONS)},
                ),
            )
        },
        "/v2/health/live": {"get": _state("serverLive", "inference", "Whether the server answers", "live")},
        "/v2/health/ready": {"get": _state("serverReady", "inference", "Whether the models are loaded", "ready")},
    }
    for path, which, parameters in (
        ("/v2/models/{name}", "", [_MODEL]),
        ("/v2/models/{name}/versions/{version}", "Version", [_MODEL, _VERSION]),
    ):
        metadata = _json_answer("Its tensors.", _ref("ModelMetadata"), about)
        ready = {
            **_json_answer("It is.", {"type": "object"}, is_ready),
            **_json_answer(
                "The models are still loading.", {"type": "object"}, {**is_ready, "ready": False}, "503"
            ),
        }
        paths[path] = {
            "get": _operation(
                f"model{which}Metadata", "inference", "The tensors of a model", metadata, parameters=parameters
            )
        }
        paths[f"{path}/ready"] = {
            "get": _operation(
                f"model{which}Ready", "inference", "Whether a model is loaded", ready, parameters=parameters
            )
        }
        paths[f"{path}/infer"] = {
            "post": _operation(
                f"model{which}Infer",
                "inference",
                "Run the model's graph on a batch of your own noise (Open Inference Protocol)",
                infer_answer,
                parameters=[*parameters, length],
                body=infer_body,
            )
        }
    return paths


def _state(name: str, tag: str, summary: str, word: str) -> _Json:
    answers = {
        **_json_answer("It is.", {"type": "object"}, {word: True}),
        **_json_answer("It is not.", {"type": "object"}, {word: False}, "503"),
    }
    return _operation(name, tag, summary, answers)


def _server_paths() -> _Json:
    def text(what: str, example: str) -> _Json:
        return {"description": what, "content": {"text/plain": {"schema": {"type": "string"}, "example": example}}}

    ready = {"200": text("It will be answered.", "ok\n"), "503": text("It may not be.", "not serving\n")}
    metrics = {"200": text("Prometheus' text format.", 'bgan_images_total{model="mlp-dbn"} 64.0\n')}
    document = _json_answer("It is.", {"type": "object"}, {"openapi": "3.1.0"})
    return {
        "/healthz": {
            "get": _operation(
                "healthz", "server", "Whether the process answers", {"200": text("It does.", "ok\n")}
            )
        },
        "/readyz": {"get": _operation("readyz", "server", "Whether calls will be answered", ready)},
        "/metrics": {"get": _operation("metrics", "server", "Metrics of all workers; needs all models", metrics)},
        "/openapi.json": {"get": _operation("openapi", "server", "This document", document)},
    }


def _schemas() -> _Json:
    def of(required: _Json, **optional: _Json) -> _Json:
        return {"type": "object", "required": list(required), "properties": {**required, **optional}}

    text, count = {"type": "string"}, {"type": "integer", "minimum": 1}
    int64 = {"type": "string", "pattern": "^-?[0-9]+$"}
    shape = of({"channels": count, "height": count, "width": count})
    pixels: _Json = {"type": "integer", "enum": [0, 1]}
    for _ in range(3):
        pixels = {"type": "array", "items": pixels}
    image = of({"index": int64, "pixels": pixels}, label={"type": "integer", "minimum": 0})
    served = of(
        {
            "model": {"type": "object", "description": "bgan.v1.Model, the manifest of the file."},
            "revision": text,
            "is_default": {"type": "boolean"},
            "execution": text,
            "version": int64,
        }
    )
    limits = of(
        {"max_image_count": int64, "max_batch_size": {"type": "integer"}, "max_message_bytes": {"type": "integer"}}
    )
    sizes = {"type": "array", "items": {"type": "integer"}}
    tensor = of(
        {"name": text, "datatype": {"type": "string", "enum": ["FP32", "INT64", "UINT8"]}, "shape": sizes},
        data={"type": "array"},
        parameters={"type": "object"},
    )
    tensors = {"type": "array", "items": _ref("Tensor")}
    violation = of({"field": text, "detail": text})
    return {
        "Images": of(
            {
                **dict.fromkeys(("model", "revision"), text),
                **dict.fromkeys(("seed", "first_index", "image_count"), int64),
                "image_shape": shape,
                "images": {"type": "array", "items": image},
            },
            classes={"type": "array", "items": text},
        ),
        "Model": of({"model": served, "limits": limits}),
        "Models": of(
            {
                "models": {"type": "array", "items": served},
                "limits": limits,
                "failures": {"type": "array", "items": of({"model": text, "reason": text})},
            }
        ),
        "Tensor": tensor,
        "ModelMetadata": of(
            {
                **dict.fromkeys(("name", "platform"), text),
                "versions": {"type": "array", "items": text},
                "inputs": tensors,
                "outputs": tensors,
            }
        ),
        "InferRequest": of(
            {"inputs": tensors},
            id=text,
            parameters={"type": "object"},
            outputs={"type": "array", "items": of({"name": text}, parameters={"type": "object"})},
        ),
        "InferResponse": of({"model_name": text, "model_version": text, "outputs": tensors}, id=text),
        "Problem": of(
            {"type": text, "title": text, "status": {"type": "integer"}, "detail": text, "error": text},
            code={"type": "string", "description": "gRPC's code."},
            errors={"type": "array", "items": violation},
            next_index=text,
        ),
    }


def _problem() -> _Json:
    detail = "count: is 0; ask for 1 to 1000000000 images"
    example = {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": detail,
        "error": detail,
        "code": "INVALID_ARGUMENT",
        "errors": [{"field": "count", "detail": detail.partition(": ")[2]}],
    }
    content = {"schema": _ref("Problem"), "example": example}
    return {
        "description": "An error, as RFC 9457 has them; `errors` names the fields, if it is theirs.",
        "content": {MEDIA_TYPE: content, OIP_MEDIA_TYPE: content},
    }
