"""Train a network: ``python -m examples.digits.train --model sdsa1 --out DIR``.

Needs the environment of `make oracles`. Writes ``DIR/float.npz``, the trained parameters,
``DIR/float.json``, how they came about and how good they are, and the integer model, as
`examples.digits.quantise` does.
"""

import argparse
import dataclasses
import json
import math
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from examples.digits import data
from examples.digits.models import KINDS, Network, Sizes
from examples.digits.quantise import BITS, load, quantise, write

BATCH = 64
EVALUATED = 256  # images at a time
EPOCHS = 60
WARM_UP = 5
"""Epochs in which the rate rises; then it falls to 0 as a cosine."""
RATE = 3e-3
DECAY = 0.02
SMOOTHING = 0.05
KEPT = 0.25
"""Share of the training images that an epoch sees as they are, not augmented."""
TAUGHT = 0.8
"""Weight of what a teacher says of an image; the rest is its label's."""
TEMPERATURE = 2.0
"""By which the logits of teacher and pupil are divided."""


def tensors(pixels: np.ndarray) -> Tensor:
    """Return the patches [B, 16, 4] of images [B, 8, 8]."""
    return torch.from_numpy(data.patches(pixels)).to(torch.float32)


def epoch_images(images: data.Images, rng: np.random.Generator) -> data.Images:
    """Return the images in another order, some as they are and the others augmented."""
    order = rng.permutation(len(images))
    pixels, labels = images.pixels[order], images.labels[order]
    kept = rng.random(len(images)) < KEPT
    return data.Images(np.where(kept[:, None, None], pixels, data.augment(pixels, rng)), labels)


def rate_at(step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the share of the rate that a step has."""
    warm, steps = WARM_UP * steps_per_epoch, epochs * steps_per_epoch
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def distance(logits: Tensor, teacher: Tensor) -> Tensor:
    """Return how far logits [B, 10] are from a teacher's (Hinton et al., arXiv 1503.02531)."""
    ours, theirs = (log_softmax(x / TEMPERATURE, dim=1) for x in (logits, teacher))
    return TEMPERATURE**2 * kl_div(ours, theirs, reduction="batchmean", log_target=True)


def train(
    network: nn.Module, images: data.Images, epochs: int, seed: int, teacher: nn.Module | None
) -> None:
    """Train a network in place.

    Parameters
    ----------
    network : nn.Module
        Patches [B, 16, 4] to logits [B, 10].
    images : Images
    epochs : int
    seed : int
        Of the order of the images and of their augmentation.
    teacher : nn.Module, optional
        A trained network, whose logits are learnt beside the labels.
    """
    rng = np.random.default_rng(seed)
    steps = math.ceil(len(images) / BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: rate_at(s, steps, epochs))
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    network.train()
    for epoch in range(epochs):
        own = epoch_images(images, rng)
        x, y = tensors(own.pixels), torch.from_numpy(own.labels)
        total = 0.0
        for batch in torch.arange(len(own)).split(BATCH):
            logits = network(x[batch])
            loss = criterion(logits, y[batch])
            if teacher:
                with torch.no_grad():
                    said = teacher(x[batch])
                loss = (1 - TAUGHT) * loss + TAUGHT * distance(logits, said)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch + 1:3d}  loss {total / len(own):.3f}", flush=True)


@torch.no_grad()
def correct(network: nn.Module, images: data.Images, seed: int) -> int:
    """Return how many images a network gets right; `seed` is that of the bits that it draws."""
    torch.manual_seed(seed)
    network.eval()
    x, y = tensors(images.pixels), torch.from_numpy(images.labels)
    batches = zip(x.split(EVALUATED), y.split(EVALUATED), strict=True)
    return sum(int((network(a).argmax(dim=1) == b).sum()) for a, b in batches)


def trained(folder: Path) -> Network:
    """Return a network as an earlier run of this command left it."""
    state, record = load(folder)
    network = Network(record["model"], Sizes(**record["sizes"]))
    network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return network.eval()


def main() -> None:
    """Train a network and write it down."""
    parser = argparse.ArgumentParser(description="Train a network on digits.")
    parser.add_argument("--model", choices=KINDS, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--teacher", type=Path, help="folder of a network to learn from as well")
    parser.add_argument("--bits", type=int, choices=BITS, default=8, help="of integer weights")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    sizes = Sizes(timesteps=args.timesteps, blocks=args.blocks)
    teacher = trained(args.teacher) if args.teacher else None
    torch.manual_seed(args.seed)  # whatever the teacher took
    network = Network(args.model, sizes)
    begin = time.process_time()
    train(network, data.split()["train"], args.epochs, args.seed, teacher)
    seconds = time.process_time() - begin

    sets = data.sets()
    record = {
        "model": args.model,
        "sizes": dataclasses.asdict(sizes),
        "timesteps": network.timesteps,
        "parameters": sum(p.numel() for p in network.parameters()),
        "epochs": args.epochs,
        "seed": args.seed,
        "teacher": args.teacher.name if args.teacher else None,
        "correct": {name: correct(network, own, args.seed) for name, own in sets.items()},
        "of": {name: len(own) for name, own in sets.items()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "torch", "spikingjelly")},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    state = {name: array.numpy() for name, array in network.state_dict().items()}
    np.savez(args.out / "float.npz", **state)
    (args.out / "float.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if args.model != "ann":
        write(args.out, *quantise(*load(args.out), args.bits))
    print(f"{seconds:.0f} s of CPU; correct: {record['correct']} of {record['of']}")


if __name__ == "__main__":
    main()
