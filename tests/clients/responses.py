"""A response as a server sends it."""

from bgan.v1 import model_pb2, sampling_pb2


def make_response(**fields):
    """Two images of 1x3x3 pixels, from index 10 on, but for what `fields` says."""
    return sampling_pb2.SampleBinaryImagesResponse(
        **{
            "model": "m",
            "revision": "r",
            "seed": 5,
            "first_index": 10,
            "image_count": 2,
            "image_shape": model_pb2.ImageShape(channels=1, height=3, width=3),
            "packed_images": bytes([0b10000000, 0b10000000, 0b01010101, 0]),
            **fields,
        }
    )
