"""What a GPU would show, on a CPU: how often the host waits for a tensor, and a recording that knows no Python."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

_aten = torch.ops.aten
# What needs a tensor's content to go on.
_WAITING = {
    _aten._local_scalar_dense,
    _aten.equal,
    _aten.is_nonzero,
    _aten.masked_select,
    _aten.nonzero,
    _aten.repeat_interleave,
    _aten._unique2,
}
_METHODS = ("cpu", "tolist", "numpy", "__array__")  # of a tensor; on a CPU no dispatch sees them


class Waits(TorchDispatchMode):
    """Counts the times that the host asks for the content of a tensor."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in _METHODS:
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))

    def _counted(self, method):
        def counted(*arguments, **options):
            self.count += 1
            return method(*arguments, **options)

        return counted

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        indices = args[1] if function.overloadpacket is _aten.index else ()
        is_waiting = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        self.count += is_waiting or function.overloadpacket in _WAITING
        return function(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """The operations of some work, done again by calling it: on the same tensors, and with the same numbers.

    As of a CUDA graph, nothing that the work's Python does is done again.
    """

    def __init__(self, work):
        super().__init__()
        self._operations = []
        with self:
            work()
        self._is_done = True  # by its recording, which for a graph it is not

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self._operations.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def __call__(self):
        if self._is_done:
            self._is_done = False
            return
        for function, args, kwargs, result in self._operations:
            again = function(*tree_map(_detached, args), **tree_map(_detached, kwargs))
            for old, new in zip(tree_flatten(result)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new)


def _detached(value):
    return value.detach() if isinstance(value, torch.Tensor) else value
