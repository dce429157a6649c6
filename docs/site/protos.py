"""The protos as Markdown: their services and messages, with the comments that stand in the sources."""

from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

_PROTO = Path(__file__).parents[2] / "proto"
# Numbers of fields of FileDescriptorProto, of which paths of comments are made.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_NESTED, _VALUE, _MEMBER = 3, 2, 2


def proto_pages(names):
    """A section for each of the files in proto/bgan/v1."""
    with TemporaryDirectory() as folder:
        target = Path(folder) / "protos"
        options = [f"--proto_path={_PROTO}", "--include_source_info", f"--descriptor_set_out={target}"]
        if protoc.main(["protoc", *options, *(f"bgan/v1/{name}" for name in names)]):
            raise RuntimeError("the protos cannot be read")
        files = FileDescriptorSet.FromString(target.read_bytes()).file
    return "\n\n".join(_File(file).text() for file in files)


class _File:
    def __init__(self, file):
        self._file = file
        self._comments = {
            tuple(place.path): " ".join((place.leading_comments or place.trailing_comments).split())
            for place in file.source_code_info.location
        }

    def text(self):
        file = self._file
        parts = [f"## `{file.name}`", f"Package `{file.package}`."]
        for number, service in enumerate(file.service):
            parts += self._service((_SERVICE, number), service)
        for number, message in enumerate(file.message_type):
            parts += self._message((_MESSAGE, number), message, message.name)
        for number, enum in enumerate(file.enum_type):
            parts += self._enum((_ENUM, number), enum)
        return "\n\n".join(part for part in parts if part)

    def _service(self, path, service):
        rows = ["| call | request | response | |", "|---|---|---|---|"]
        for number, method in enumerate(service.method):
            streams = "stream of " if method.server_streaming else ""
            request, response = method.input_type.split(".")[-1], method.output_type.split(".")[-1]
            comment = self._comment((*path, _MEMBER, number))
            rows.append(f"| `{method.name}` | `{request}` | {streams}`{response}` | {comment} |")
        return [f"### `{service.name}`", self._comment(path), "\n".join(rows)]

    def _message(self, path, message, name):
        rows = ["| field | type | number | |", "|---|---|---|---|"]
        for number, field in enumerate(message.field):
            comment = self._comment((*path, _MEMBER, number))
            rows.append(f"| `{field.name}` | `{_type(field)}` | {field.number} | {comment} |")
        parts = [f"### `{name}`", self._comment(path), "\n".join(rows) if message.field else ""]
        for number, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                parts += self._message((*path, _NESTED, number), nested, f"{name}.{nested.name}")
        return parts

    def _enum(self, path, enum):
        rows = ["| value | number | |", "|---|---|---|"]
        for number, value in enumerate(enum.value):
            rows.append(f"| `{value.name}` | {value.number} | {self._comment((*path, _VALUE, number))} |")
        return [f"### `{enum.name}`", self._comment(path), "\n".join(rows)]

    def _comment(self, path):
        return self._comments.get(path, "").replace("|", "\\|").replace("<", "\\<")


def _type(field):
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    name = field.type_name.split(".")[-1] or FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    return f"{repeated}{name}"
