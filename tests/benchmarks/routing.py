"""A gated generator's routed graph against its masked one, by the rate of its gates: onnxruntime's CPU time.

The gates are fixed directions of the latents, whose rates are exact without training.
"""

import time
from functools import partial

import numpy as np
import onnxruntime

from bgan.trainer import configure
from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.exporting.graph import gated_graph
from bgan.trainer.networks.build import configured_generator

from .measure import Figure, in_turns

_GATES = 4
_BATCH = 512
_AIMS = {1.0: "at most 1.15", 0.5: "below that at rate 1", 0.25: "below that at rate 0.5"}


def measure():
    """An MLP and a CNN of four parts, each as wide as the usual network."""
    latents = np.random.default_rng(0).standard_normal((_BATCH, 128), np.float32)
    for network in ("mlp", "doubling-cnn"):
        for rate, aim in _AIMS.items():
            routed, masked = (_inference(model, latents) for model in _models(network, rate))
            in_turns(routed, masked, rounds=1)
            seconds = in_turns(routed, masked, rounds=15, clock=time.process_time)
            name = f"{network}, {_GATES} parts, rate {rate:g}"
            for graph, each in zip(("routed", "masked"), seconds, strict=True):
                yield Figure(f"{name}: {graph}", 1e6 * each / _BATCH, "us/image")
            yield Figure(f"{name}: routed / masked", seconds[0] / seconds[1], "ratio", aim)


def _models(network, rate):
    settings = {"gates": _GATES, "gate_rate": rate, "gate_by": "random", "width": _GATES}
    config = configure(network=network, neuron="dbn", conditional=False, **settings)
    generator = configured_generator(config, ImageShape(1, 28, 28), 0).eval()
    graphs = gated_graph(generator, 1.0, stochastic=False)
    return graphs.model(), graphs.model(is_routed=False)


def _inference(model, latents):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return partial(session.run, ["images"], {"latents": latents})
