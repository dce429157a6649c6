"""Files of images as `bgan sample` writes them."""

from bgan.clients._output.formats import StreamPart
from bgan.clients._output.partial_file import open_partial


def write_batches(batches, path, *, image_count, classes=tuple):
    """Write the images of a stream, which has the classes that a function gives where its images have labels."""
    first = batches[0]
    part = StreamPart(
        **{name: getattr(first, name) for name in ("model", "revision", "image_shape", "seed", "first_index")},
        count=image_count,
        classes=() if first.labels is None else tuple(classes()),
    )
    with open_partial(path, {}) as partial:
        partial.begin(part)
        for batch in batches:
            partial.append(batch)
        partial.finish(lambda: None)
