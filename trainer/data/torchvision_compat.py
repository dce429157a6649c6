"""Imports torchvision next to a torch build that its wheel was not made for."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_declarations: list[torch.library.Library] = []  # a declaration lasts as long as its Library object


def import_torchvision(module: str = "torchvision") -> ModuleType:
    """The torchvision module of that name.

    Its wheel is built against a CUDA torch. On a CPU torch its operators do not load and its import fails with
    "operator torchvision::nms does not exist" (pytorch/vision#9085); with their schemas declared data sets work.
    """
    try:
        return importlib.import_module(module)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _declarations:
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _declarations.append(library)
    return importlib.import_module(module)
