"""Two ranks of torch.distributed, each with a DataLoader's workers: `python -m tests.clients.stream_ranks TARGET`.

A process of its own, which has used no gRPC, so that what it forks may; torch is loaded once for all. Prints JSON.
"""

import json
import multiprocessing
import pickle
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch.distributed
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from bgan.clients.torch import StreamDataset

COUNT, FIRST, BLOCK, SEED, RANKS = 300, 40, 32, 5, 2
warnings.filterwarnings("ignore", ".*set_vital")  # torchdata, of torch


def dataset(target, **options):
    given = {"image_count": COUNT, "first_index": FIRST, "seed": SEED, "block_size": BLOCK, **options}
    return StreamDataset(target, **given)


def read(loader):
    """The indices of each batch, and the bits and labels of all images by index."""
    batches, images = [], {}
    for batch in loader:
        batches.append(batch["index"].tolist())
        for index, image, label in zip(batches[-1], batch["image"], batch["label"].tolist(), strict=True):
            images[index] = [image.flatten().tolist(), label]
    return {"batches": batches, "images": images}


def rank_results(target):
    """What a rank reads, by the number of workers, with another size of batches than of blocks, and on its own."""
    results = {
        f"{workers} workers": read(DataLoader(dataset(target), batch_size=BLOCK, num_workers=workers))
        for workers in (1, 2)
    }
    results["batches of 20"] = read(DataLoader(dataset(target), batch_size=20, num_workers=2))
    # From here on this process uses gRPC itself, and forks no more.
    results["0 workers"] = read(DataLoader(dataset(target), batch_size=BLOCK))
    results["one rank"] = read(DataLoader(dataset(target, rank=0, world_size=1), batch_size=BLOCK))
    return {**results, "length": len(dataset(target))}


def run_rank(rank, target, folder):
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=RANKS)
    found = rank_results(target)
    sent = pickle.dumps(dataset(target))  # as to a worker that is spawned
    torch.distributed.destroy_process_group()
    found["spawned"] = [row["index"] for row in pickle.loads(sent)]
    (folder / f"{rank}.json").write_text(json.dumps(found))


def resumed(target, steps):
    """What StatefulDataLoaders with two workers read before their state is taken, and after."""

    def loader():
        return StatefulDataLoader(dataset(target), batch_size=BLOCK, num_workers=2)

    first, second = loader(), loader()
    batches = iter(first)
    before = [next(batches)["index"].tolist() for _ in range(steps)]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    return {"before": before, "rest": read(batches)["batches"], "after": read(second)["batches"]}


def main(target):
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [fork.Process(target=run_rank, args=(rank, target, folder)) for rank in range(RANKS)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        results = {rank: json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)}
    results["resumed"] = {steps: resumed(target, steps) for steps in (0, 4, 9)}
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
