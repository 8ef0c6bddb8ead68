"""``python -m bench.gpu_attention``: how long attention takes in PyTorch on this machine's GPU.

Wants PyTorch with CUDA in the environment, of which it is no part:
``.venv/bin/python -m pip install torch``.
"""

import json
import statistics
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from bench.cpu_attention import OPERATORS, SIZE, STEPS, TOKENS, problem
from bench.study import save_study
from gen.errors import CheckFailed, Command, UserError

STUDY = "gpu_attention"

BATCHES = (1, 1024)
REPEATS, WARM_UP = 200, 50


def operator(encoder: str, arguments: tuple[Any, ...], device: str) -> Callable[[], Any]:
    """Return the operator of `bench.cpu_attention` in PyTorch, with its arguments on a device.

    Counts are products in half precision, which holds integers up to 2048, or in single precision
    on a CPU. What is moved by the draws is made in the call, as in numpy; sizes are powers of two.
    """
    import torch

    q, k, v, numbers, constants = arguments
    bits = [torch.from_numpy(array).to(device) for array in (q, k, v)]
    first, second = torch.from_numpy(numbers.astype(np.int64)).to(device).T[:, :, None, None]
    moves = [torch.from_numpy(array.astype(np.int64)).to(device) for array in constants]
    t, n, d = (
        torch.arange(length, device=device).view([-1 if i == axis else 1 for i in range(3)])
        for axis, length in enumerate(q.shape)
    )
    number = torch.float16 if device == "cuda" else torch.float32

    def counted() -> Any:
        a, b, c = (array.to(number) for array in bits)
        scores = ((first ^ moves[0]) < a @ b.mT).to(number)
        return ((second ^ moves[1]) < scores @ c).to(torch.uint8)

    def sampled() -> Any:
        channel, token, pick = moves
        c, m = pick[first ^ channel], second ^ token
        return bits[0][t, n, c] & bits[1][t, m, c] & bits[2][t, m, d]

    return {"count": counted, "sample": sampled}[encoder]


def checked(encoder: str, batch: int, device: str) -> Callable[[], Any]:
    """Return the operator for a batch, or raise `CheckFailed` where its bits are not numpy's."""
    arguments = problem(encoder, batch)
    call = operator(encoder, arguments, device)
    if not np.array_equal(call().cpu().numpy(), OPERATORS[encoder][0](*arguments)):
        raise CheckFailed(f"{encoder}, batch {batch}: PyTorch's bits are not numpy's")
    return call


def median_us(call: Callable[[], Any]) -> float:
    """Return the median time of a call on the GPU in microseconds, by the GPU's own clock."""
    import torch

    times = []
    for _ in range(WARM_UP + REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return round(statistics.median(times[WARM_UP:]), 2)


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    try:
        import torch
    except ImportError as missing:
        raise UserError(
            "there is no PyTorch here: `.venv/bin/python -m pip install torch` on a machine with a "
            "GPU"
        ) from missing
    if not torch.cuda.is_available():
        raise UserError(f"there is no GPU here that PyTorch {torch.__version__} can use")
    study = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "timesteps": STEPS,
        "tokens": TOKENS,
        "head_dim": SIZE,
        "repeats": REPEATS,
        "median_us": {
            encoder: {str(batch): median_us(checked(encoder, batch, "cuda")) for batch in BATCHES}
            for encoder in OPERATORS
        },
    }
    save_study(STUDY, study)
    click.echo(json.dumps(study, indent=2, sort_keys=True))


if __name__ == "__main__":
    main(prog_name="python -m bench.gpu_attention")
