"""The execution providers of onnxruntime that compute models, and what each adds to the revision of floats."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime

from ..errors import ModelFileError, StartError

_CPU_ROWS = 128
_DEVICE_ROWS = 1024
_SILENT = 4
_MAJOR, _MINOR, _MULTIPROCESSORS = 75, 76, 16  # of CUdevice_attribute
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Provider:
    """What computes a model."""

    name: str
    kind: str
    """As onnxruntime calls it."""
    package: str = "onnxruntime"
    """The one that has it."""
    options: Mapping[str, str] = field(default_factory=dict)
    run_rows: int = _DEVICE_ROWS
    """The most rows of one inference; but for the CPU floats run in tiles of so many."""
    read_identity: Callable[[], tuple[str, ...]] = tuple
    identity: tuple[str, ...] = ()
    """What decides the bits of floats beside onnxruntime and the CPU's class; empty: nothing."""

    def __str__(self) -> str:
        return ", ".join(self.identity) or self.name

    @property
    def is_cpu(self) -> bool:
        """Whether it is onnxruntime's own, whose rows may be tried in batches of any size."""
        return self.name == CPU.name


def _cuda_identity() -> tuple[str, ...]:
    """The GPU, and the libraries that choose its kernels. Raises OSError where one of them is missing."""
    cuda, major = ctypes.CDLL("libcuda.so.1"), onnxruntime.cuda_version.split(".")[0]
    number, text = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    found = {}
    _check(cuda.cuInit(0))
    for what in (_MAJOR, _MINOR, _MULTIPROCESSORS):
        _check(cuda.cuDeviceGetAttribute(ctypes.byref(number), what, 0))
        found[what] = number.value
    _check(cuda.cuDeviceGetName(text, _NAME_BYTES, 0))
    _check(cuda.cuDriverGetVersion(ctypes.byref(number)))
    return (
        f"{text.value.decode()} {found[_MAJOR]}.{found[_MINOR]} of {found[_MULTIPROCESSORS]} multiprocessors",
        f"driver of CUDA {number.value}",
        *cuda_libraries(major),
    )


def cuda_libraries(major: str) -> tuple[str, ...]:
    """The versions of the cuBLAS of a major version of CUDA, and of cuDNN 9. Raises OSError without them."""
    versions = {"cuBLAS": f"libcublasLt.so.{major}:cublasLtGetVersion", "cuDNN": "libcudnn.so.9:cudnnGetVersion"}
    found = []
    for name, place in versions.items():
        file, function = place.split(":")
        call = getattr(ctypes.CDLL(file), function)
        call.restype = ctypes.c_size_t
        found.append(f"{name} {call()}")
    return tuple(found)


def _check(status: int) -> None:
    """Raises OSError where CUDA's driver refuses."""
    if status:
        raise OSError(f"error {status} of CUDA's driver")


def _openvino_identity() -> tuple[str, ...]:
    """OpenVINO's version, if it is not the one within the package, which goes with onnxruntime's version."""
    try:
        return (f"OpenVINO {version('openvino')}",)
    except PackageNotFoundError:
        return ()


CPU = Provider("cpu", "CPUExecutionProvider", run_rows=_CPU_ROWS)
_OTHERS = {
    # Products in float32 alone, and convolutions by one algorithm: not by the fastest, which is timed anew.
    "cuda": Provider(
        "cuda",
        "CUDAExecutionProvider",
        "onnxruntime-gpu",
        {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"},
        read_identity=_cuda_identity,
    ),
    # Else it would compute in bfloat16 where the CPU can.
    "openvino": Provider(
        "openvino",
        "OpenVINOExecutionProvider",
        "onnxruntime-openvino",
        {"device_type": "CPU", "precision": "FP32", "num_of_threads": "1"},
        read_identity=_openvino_identity,
    ),
}


@cache
def start_provider(name: str) -> Provider:
    """The provider of that name, tried with a shipped model. Raises StartError if it cannot be used here."""
    if name == CPU.name:
        return CPU
    provider = _OTHERS[name]
    if provider.kind not in onnxruntime.get_available_providers():
        raise StartError(
            f"provider {name}: onnxruntime {onnxruntime.__version__} as installed has no {provider.kind}; install "
            f"{provider.package} in place of onnxruntime, or use the provider cpu"
        )
    onnxruntime.set_default_logger_severity(_SILENT)  # what it would say is in the one line
    if name == "cuda":
        with redirect_stdout(io.StringIO()):  # where it says which it does not find
            onnxruntime.preload_dlls()
    from ..config.settings import SHIPPED  # loads pydantic

    try:
        open_session((SHIPPED / "mlp-dbn.onnx").read_bytes(), provider)
        identity = (name, *provider.read_identity(), f"tiles of {provider.run_rows}")
    except (ModelFileError, OSError) as error:
        reason = error.detail if isinstance(error, ModelFileError) else error
        raise StartError(f"provider {name} cannot be used here: {reason}; use the provider cpu") from error
    return replace(provider, identity=identity)


def open_session(content: bytes, provider: Provider = CPU, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session of a model file's content that was checked. Raises ModelFileError, without the file's name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for work in a loop would take the cores from the noise, the packing and the callers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.load_model_format", "ONNX")  # the one that was checked
    options.use_deterministic_compute = not provider.is_cpu
    providers = [(provider.kind, dict(provider.options)), *([] if provider.is_cpu else [CPU.kind])]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise ModelFileError("is no ONNX model that onnxruntime can load", detail=first_line(error)) from error
    if session.get_providers()[0] != provider.kind:  # it then takes the CPU, and says so in its log alone
        raise ModelFileError(f"cannot be opened by {provider.name}", detail=_missing_library(provider))
    return session


def _missing_library(provider: Provider) -> str:
    """Why a provider's own library is not loaded."""
    file = f"libonnxruntime_providers_{provider.kind.removesuffix('ExecutionProvider').lower()}.so"
    try:
        ctypes.CDLL(str(Path(onnxruntime.__file__).parent / "capi" / file))
    except OSError as error:
        return str(error)
    return "onnxruntime finds no device for it"


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
