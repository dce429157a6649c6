"""Networks of one's own, tried on a few rows before anything is trained: what cannot work is said at once."""

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..common.errors import ConfigError
from ..common.image_shape import ImageShape
from ..common.rng import global_generator, random_stream
from ..common.text import first_line
from .own import OwnDiscriminator, OwnGenerator

_Own = TypeVar("_Own", OwnGenerator, OwnDiscriminator)
_ROWS = 4
_TOLERANCE = 1e-3  # of the largest logit: what sums of another order may differ by


def try_generator(generator: OwnGenerator) -> None:
    """Raise ConfigError unless it gives logits of the right shape, each of its own latent alone, and no noise.

    That is tried in eval mode, as it is sampled; in training batch normalization may mix rows. A copy is tried in
    training mode: the shape again, and that there is a gradient.
    """
    what = f"the generator {generator.name}"
    latents = torch.randn(_ROWS, generator.latent_size, generator=random_stream(0, "trial"))
    labels = torch.arange(_ROWS) % generator.class_count if generator.class_count else None
    was_training = generator.training
    generator.eval()
    with torch.no_grad():
        logits = _called(what, "latents", generator, latents, labels)
        _check_output(what, logits, (_ROWS, *generator.image_shape), "logits")
        if not _are_close(logits, _called(what, "latents", generator, latents, labels, seed=1)):
            raise ConfigError(
                f"{what} gives other logits for the same latents in eval mode: it draws noise of its own; all "
                "noise must be in the latents"
            )
        for row in range(_ROWS):
            alone = latents[row : row + 1], None if labels is None else labels[row : row + 1]
            if not _are_close(logits[row : row + 1], _called(what, "latents", generator, *alone)):
                raise ConfigError(
                    f"{what} mixes rows in eval mode: the logits of a latent depend on the others of its batch; "
                    "normalize by statistics of training (as BatchNorm does), or within a row"
                )
    generator.train(was_training)
    logits = _called(what, "latents", _copied(what, generator), latents, labels)
    _check_output(f"in training mode {what}", logits, (_ROWS, *generator.image_shape), "logits")
    if not logits.requires_grad:
        raise ConfigError(
            f"no gradient of the logits of {what} reaches a parameter, so nothing can be trained: it has none, "
            "they are all frozen, or its logits are detached"
        )


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep what torch logs, warns of and prints while it traces a module off the user's terminal."""
    with global_generator():  # of all this, and of tracing, the process has one
        disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            aside = io.StringIO()
            with warnings.catch_warnings(action="ignore"), redirect_stdout(aside), redirect_stderr(aside):
                yield
        finally:
            logging.disable(disabled)


def export_problem(generator: OwnGenerator) -> str | None:
    """Why torch cannot make a graph of the generator for any batch, in a line; None where it can."""
    inputs = {"latents": torch.zeros(2, generator.latent_size)}
    if generator.class_count:
        inputs["labels"] = torch.zeros(2, dtype=torch.int64)
    batch = torch.export.Dim("batch", min=1)
    try:
        with quiet_torch():
            shapes = {name: {0: batch} for name in inputs}
            torch.export.export(copy.deepcopy(generator).cpu().eval(), (), inputs, dynamic_shapes=shapes)
    except Exception as error:  # of code that is not ours, and of what traces it
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def try_discriminator(
    discriminator: OwnDiscriminator, image_shape: ImageShape, *, needs_gradient: bool = False
) -> None:
    """Raise ConfigError unless it gives a logit for each image and, where needed, a gradient to train on.

    Also finds out whether it mixes rows. It stays as it is: copies are tried.
    """
    what = f"the discriminator {discriminator.name}"
    images = (torch.rand(_ROWS, *image_shape, generator=random_stream(0, "trial")) < 0.5).float()
    labels = torch.arange(_ROWS) % discriminator.class_count if discriminator.class_count else None
    others = torch.cat([images[:1], 1 - images[1:]])
    logits, of_others = (
        _called(what, "images", _copied(what, discriminator), batch, labels) for batch in (images, others)
    )
    _check_output(what, logits, (_ROWS,), "logits")
    discriminator.mixes_rows = not _are_close(logits[:1], of_others[:1])
    if needs_gradient:
        _try_gradient(what, _copied(what, discriminator), images, labels)


def _try_gradient(what: str, discriminator: OwnDiscriminator, images: Tensor, labels: Tensor | None) -> None:
    _, gradient = _called(what, "images", discriminator.logits_and_input_gradient, images, labels)
    _check_output(f"input_gradient of {what}", gradient, (_ROWS, images[0].numel()), "gradients")
    try:
        gradient.square().sum().backward()
    except Exception as error:  # of kernels, and of code that is not ours
        raise ConfigError(
            f"{what} has no second derivative, which the penalty of its gradient needs "
            f"({type(error).__name__}: {first_line(error)}); choose --objective wgan or gan"
        ) from error


def _called(what: str, inputs: str, network: Callable[..., Any], *arguments: Tensor | None, seed: int = 0) -> Any:
    """What a network gives; what it draws itself follows from the seed. Raises ConfigError where it fails."""
    given = [
        f"{inputs} {_text(arguments[0])}",
        *([] if arguments[1] is None else [f"labels {_text(arguments[1])}"]),
    ]
    tensors = [each for each in arguments if each is not None]
    before = [each.clone() for each in tensors]
    with global_generator(seed):
        try:
            output = network(*arguments)
        except Exception as error:  # of code that is not ours
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(f"{what} fails for {' and '.join(given)} ({reason})") from error
    if not all(map(torch.equal, tensors, before)):
        raise ConfigError(f"{what} changes its {inputs} in place; let it compute on a copy")
    return output


def _check_output(what: str, output: object, shape: tuple[int, ...], wanted: str) -> None:
    if not isinstance(output, Tensor):
        raise ConfigError(f"{what} gives type {type(output).__name__}, not a tensor of {wanted}")
    if output.shape != shape or output.dtype != torch.float32:
        kind = str(output.dtype).removeprefix("torch.")
        raise ConfigError(
            f"{what} gives {kind} {_text(output)}; {wanted} are float32 {list(shape)}, for {_ROWS} rows"
        )


def _copied(what: str, network: _Own) -> _Own:
    try:
        return copy.deepcopy(network).train()
    except Exception as error:
        raise ConfigError(f"{what} cannot be copied ({type(error).__name__}: {first_line(error)})") from error


def _are_close(first: object, second: object) -> bool:
    if not (isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape == second.shape):
        return False
    scale = max(1e-6, first.abs().max().item())
    return torch.allclose(first, second, rtol=0, atol=_TOLERANCE * scale, equal_nan=True)


def _text(tensor: Tensor | None) -> str:
    return str([]) if tensor is None else str(list(tensor.shape))
