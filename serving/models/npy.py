"""The formats in which numpy keeps an array, and several, with what they say about themselves."""

import io
import math

import numpy as np

PACKING = (
    "one bit a pixel, 1 = on, row-major (channel, row, column), most significant bit first, "
    "each image padded with zeros to a whole byte"
)


def array_head(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """What numpy writes before the values of an array, of uint8 unless said otherwise."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
    return head.getvalue()


def npz_description(image_shape: tuple[int, int, int], *, has_classes: bool) -> str:
    """The text of the array `description`: what the others are, and how to read them."""
    shape = ", ".join(map(str, image_shape))
    classes = """
labels: int32 [n], the class of each image
classes: the names of the classes, by label"""
    return f"""Binary images of a bgan generator.
packed_images: uint8 [n, {-(-math.prod(image_shape) // 8)}], {PACKING}
image_shape: ({shape}), the channels, height and width of each image
seed, first_index: the seed of the stream, and the index of the first image in it
model, revision: the generator's name, and the digest of all that decides its bits: image i of a revision and a \
seed is always the same{classes if has_classes else ""}
To read them: bgan.clients.load_images(path).images, or
np.unpackbits(packed_images, axis=1, count={math.prod(image_shape)}).reshape(-1, {shape})"""
