"""What an .npz of images says about itself."""

import math

PACKING = (
    "one bit a pixel, 1 = on, row-major (channel, row, column), most significant bit first, "
    "each image padded with zeros to a whole byte"
)


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
