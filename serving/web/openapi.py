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


_PAGE = [
    _parameter("page_size", _NATURAL, "The most models to list; 0: the server's choice.", 0),
    _parameter("page_token", {"type": "string"}, "The next_page_token of the page before.", ""),
]
_SEED = _parameter("seed", _NATURAL, "The stream's seed. Without one it is drawn, and told in `bgan-seed`.", 1)
_NUMBER = _parameter("version", _NATURAL, "The number of the model's version; 0: the highest.", 0)
_OF_REVISION = _parameter("revision", {"type": "string"}, "A model's revision.", _REVISION, place="path")
_WHICH = [
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


def _image_paths() -> _Json:
    of_model = [_MODEL, _SEED, _NUMBER, *_WHICH]
    of_revision = [_OF_REVISION, {**_SEED, "required": True}, *_WHICH]
    for_ever = "Images of a revision, which never change and may be cached for ever"
    model = _operation("sampleModel", "images", "Images of a model", _images(), parameters=of_model)
    revision = _operation("sampleRevision", "images", for_ever, _images(), parameters=of_revision)
    return {
        "/v1/models/{name}/images": {"get": model},
        "/v1/revisions/{revision}/images": {"get": revision},
        "/v1/revisions/{revision}/file": {"get": _file()},
    }


def _file() -> _Json:
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    headers = {"etag": {"schema": {"type": "string"}}}
    answers = {
        "200": {"description": "The file.", "headers": headers, "content": content},
        "304": {"description": "It is as the entity tag says."},
    }
    summary = "The ONNX file of a revision, which computes the same images elsewhere"
    return _operation("getFile", "models", summary, answers, parameters=[_OF_REVISION])


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
    many = {"models": [_SERVED], "limits": _LIMITS, "failures": [], "next_page_token": ""}
    one = {"model": _SERVED, "limits": _LIMITS}
    listed = _json_answer("bgan.v1.ListModelsResponse.", _ref("Models"), many)
    got = _json_answer("bgan.v1.GetModelResponse.", _ref("Model"), one)
    return {
        "/v1/models": {
            "get": _operation("listModels", "models", "A page of the models", listed, parameters=_PAGE)
        },
        "/v1/models/{name}": {"get": _operation("getModel", "models", "One model", got, parameters=[_MODEL])},
    }


_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_ABOUT_SERVER = {"name": "bgan", "version": version("bgan"), "extensions": list(EXTENSIONS)}
_ABOUT_MODEL = {
    "name": "mlp-dbn",
    "versions": [_REVISION],
    "platform": "onnx_onnxv1",
    "inputs": [{"name": "latents", "datatype": "FP32", "shape": [-1, 128]}],
    "outputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 28, 28]}],
}
_INFER = {
    "inputs": [{"name": "latents", "datatype": "FP32", "shape": [1, 4], "data": [0.5, -1.0, 0.25, 2.0]}],
    "outputs": [{"name": "images"}],
}
_INFERRED = {
    "model_name": "mlp-dbn",
    "model_version": _REVISION,
    "outputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 2], "data": [0, 1, 1, 0]}],
}
_LENGTH = _parameter(
    HEADER_LENGTH,
    {"type": "integer", "minimum": 0},
    "Bytes of JSON before binary tensors; without it all of the body is JSON.",
    None,
    place="header",
)


def _inference_paths() -> _Json:
    about = _json_answer("They are.", {"type": "object"}, _ABOUT_SERVER)
    live, ready = _state("live", "It does.", "It does not."), _state("ready", "They are.", "They are not.")
    paths: _Json = {
        "/v2": _operation("serverMetadata", "inference", "Name, version and extensions of the server", about),
        "/v2/health/live": _operation("serverLive", "inference", "Whether the server answers", live),
        "/v2/health/ready": _operation("serverReady", "inference", "Whether the models are loaded", ready),
    }
    return {
        **{path: {"get": operation} for path, operation in paths.items()},
        **_tensor_paths("/v2/models/{name}", "model", [_MODEL]),
        **_tensor_paths("/v2/models/{name}/versions/{version}", "modelVersion", [_MODEL, _VERSION]),
    }


def _tensor_paths(path: str, name: str, parameters: list[_Json]) -> _Json:
    """The addresses of a model, or of one version of it."""
    described = _json_answer("Its tensors.", _ref("ModelMetadata"), _ABOUT_MODEL)
    ready = _state("ready", "It is.", "The models are still loading.", name="mlp-dbn")
    answer = _json_answer("The outputs.", _ref("InferResponse"), _INFERRED)
    answer["200"]["content"].update(_BINARY)
    json_body = {"application/json": {"schema": _ref("InferRequest"), "example": _INFER}}
    infer = _operation(
        f"{name}Infer",
        "inference",
        "Run the model's graph on a batch of your own noise (Open Inference Protocol)",
        answer,
        parameters=[*parameters, _LENGTH],
        body={"required": True, "content": {**json_body, **_BINARY}},
    )
    metadata = _operation(
        f"{name}Metadata", "inference", "The tensors of a model", described, parameters=parameters
    )
    is_ready = _operation(f"{name}Ready", "inference", "Whether a model is loaded", ready, parameters=parameters)
    return {path: {"get": metadata}, f"{path}/ready": {"get": is_ready}, f"{path}/infer": {"post": infer}}


def _state(word: str, yes: str, no: str, **more: str) -> _Json:
    """Answers that say yes or no."""
    return {
        **_json_answer(yes, {"type": "object"}, {**more, word: True}),
        **_json_answer(no, {"type": "object"}, {**more, word: False}, "503"),
    }


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


def _object(required: _Json, **optional: _Json) -> _Json:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _list(items: _Json) -> _Json:
    return {"type": "array", "items": items}


_TEXT, _COUNT, _ANY = {"type": "string"}, {"type": "integer", "minimum": 1}, {"type": "object"}
_SIZE = {"type": "integer"}
_INT64 = {"type": "string", "pattern": "^-?[0-9]+$"}


def _schemas() -> _Json:
    return {**_image_schemas(), **_model_schemas(), **_inference_schemas(), "Problem": _problem_schema()}


def _image_schemas() -> _Json:
    pixels = _list(_list(_list({"type": "integer", "enum": [0, 1]})))
    image = _object({"index": _INT64, "pixels": pixels}, label={"type": "integer", "minimum": 0})
    about = {
        **dict.fromkeys(("model", "revision"), _TEXT),
        **dict.fromkeys(("seed", "first_index", "image_count"), _INT64),
        "image_shape": _object({"channels": _COUNT, "height": _COUNT, "width": _COUNT}),
    }
    return {"Images": _object({**about, "images": _list(image)}, classes=_list(_TEXT))}


def _model_schemas() -> _Json:
    served = {
        "model": {"type": "object", "description": "bgan.v1.Model, the manifest of the file."},
        "revision": _TEXT,
        "is_default": {"type": "boolean"},
        "execution": _TEXT,
        "version": _INT64,
    }
    limits = _object({"max_image_count": _INT64, "max_batch_size": _SIZE, "max_message_bytes": _SIZE})
    failures = _list(_object({"model": _TEXT, "reason": _TEXT}))
    page = {"next_page_token": {"type": "string", "description": "Asks for the next page; empty: there is none."}}
    return {
        "Model": _object({"model": _object(served), "limits": limits}),
        "Models": _object({"models": _list(_object(served)), "limits": limits, "failures": failures, **page}),
    }


def _inference_schemas() -> _Json:
    tensor = {
        "name": _TEXT,
        "datatype": {"type": "string", "enum": ["FP32", "INT64", "UINT8"]},
        "shape": _list(_SIZE),
    }
    tensors, wanted = _list(_ref("Tensor")), _list(_object({"name": _TEXT}, parameters=_ANY))
    about = {"name": _TEXT, "platform": _TEXT, "versions": _list(_TEXT), "inputs": tensors, "outputs": tensors}
    return {
        "Tensor": _object(tensor, data={"type": "array"}, parameters=_ANY),
        "ModelMetadata": _object(about),
        "InferRequest": _object({"inputs": tensors}, id=_TEXT, parameters=_ANY, outputs=wanted),
        "InferResponse": _object({"model_name": _TEXT, "model_version": _TEXT, "outputs": tensors}, id=_TEXT),
    }


def _problem_schema() -> _Json:
    return _object(
        {"type": _TEXT, "title": _TEXT, "status": _SIZE, "detail": _TEXT, "error": _TEXT},
        code={"type": "string", "description": "gRPC's code."},
        reason={"type": "string", "description": "Which error of that code it is, as the proto lists them."},
        domain={"type": "string", "description": "Whose reasons these are: bgan."},
        errors=_list(_object({"field": _TEXT, "detail": _TEXT})),
        next_index=_TEXT,
    )


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
