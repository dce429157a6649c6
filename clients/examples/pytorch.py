"""Trains a classifier on the stream of a class-conditional model, by torch's DataLoader.

    python pytorch.py 200                    # steps
    python pytorch.py 200 classifier.pt      # ... and resumes from that file, if it is there

Under `torchrun --nproc-per-node 2 pytorch.py 200` the ranks share the stream out. The server is that of the
variable BGAN_SERVER, or localhost:50051. Needs `pip install 'bgan[torch]'`.
"""

import math
import os
import sys
from pathlib import Path

import torch
import torch.distributed
from torch import nn
from torch.utils.data import DataLoader

from bgan.clients import ModelInfo, SamplingClient
from bgan.clients.torch import StreamDataset

SERVER = os.environ.get("BGAN_SERVER", "localhost:50051")
BATCH_SIZE, SEED, WORKERS = 64, 1, 1


def loader(info: ModelInfo, done: int, steps: int, ranks: int) -> DataLoader[dict[str, torch.Tensor]]:
    """The batches of steps done, done + 1, ..., of this rank."""
    dataset = StreamDataset(
        SERVER,
        seed=SEED,
        first_index=done * ranks * BATCH_SIZE,
        image_count=(steps - done) * ranks * BATCH_SIZE,
        block_size=BATCH_SIZE,
        model=info.name,
        revision=info.revision,
    )
    start = "forkserver" if WORKERS else None  # the client has used gRPC here, so workers are not forked
    return DataLoader(dataset, batch_size=BATCH_SIZE, num_workers=WORKERS, multiprocessing_context=start)


def main(steps: int, path: Path | None) -> None:
    """Print the loss every 50 steps, and the accuracy on images that come later in the stream."""
    ranks = 1
    if "WORLD_SIZE" in os.environ:  # torchrun's
        torch.distributed.init_process_group("gloo")
        ranks = torch.distributed.get_world_size()
    with SamplingClient(SERVER) as client:
        info = client.get_model()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(info.image_shape), len(info.classes)))
    module = network if ranks == 1 else nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    done = 0  # steps; a step of all ranks takes ranks * BATCH_SIZE images of the stream
    if path is not None and path.is_file():
        saved = torch.load(path)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["step"]
    for step, batch in enumerate(loader(info, done, steps, ranks) if done < steps else (), done):
        loss = nn.functional.cross_entropy(module(batch["image"].float()), batch["label"])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}, images from {batch['index'][0].item()}: loss {loss.item():.3f}")
    if path is not None:
        torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": steps}, path)
    with SamplingClient(SERVER) as client:
        test = client.sample(1000, seed=SEED, first_index=2**40, model=info.name, revision=info.revision)
    with torch.no_grad():
        guesses = network(torch.tensor(test.images).float()).argmax(1)
    print(f"accuracy {(guesses.numpy() == test.labels).mean():.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
