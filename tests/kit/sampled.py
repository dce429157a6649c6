"""Files as `bgan sample` writes them, of batches that are there."""

from bgan.clients._output.formats import StreamPart
from bgan.clients._output.partial_file import open_partial


def write_batches(batches, path, *, image_count, classes=()):
    """Write batches of one stream; `classes`: the names of the model's, where it has any."""
    first, stream = batches[0], ("model", "revision", "image_shape", "seed", "first_index")
    named = classes if first.labels is not None else ()
    part = StreamPart(count=image_count, classes=named, **{name: getattr(first, name) for name in stream})
    with open_partial(path, {}) as partial:
        partial.begin(part)
        for batch in batches:
            partial.append(batch)
        partial.finish(lambda: None)
