"""Images through a trained network on a board."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gen.errors import UserError
from gen.network import patches, spikes_of, top_of
from sim.arrays import archive
from sim.golden.transformer import patches as tokens_of

if TYPE_CHECKING:
    from boards.host import Board


@dataclasses.dataclass(frozen=True)
class Classified:
    """What came of images.

    Attributes
    ----------
    answers : ndarray [B]
        The class of each.
    logits : ndarray [B, classes]
    right : int or None
        How many are as labelled, if they are.
    spikes : mapping of str to ndarray [B, T, N, C]
        Of each layer, as `gen.network.spikes_of` calls them; none from a top without a trace.
    """

    answers: np.ndarray
    logits: np.ndarray
    right: int | None
    spikes: Mapping[str, np.ndarray]


def images_of(path: Path, model: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the ``images`` [B, height, width] in a file, and ``labels`` [B] if there are some.

    Raises
    ------
    UserError
        They are not there, or not what the network takes.
    """
    found = archive(path)
    taken = model["input"]
    want = ("B", *taken["image"])
    images = found.get("images")
    if images is None:
        raise UserError(f"images: missing in {path}; want images {list(want)}".replace("'", ""))
    if images.dtype.kind not in "iub" or images.ndim != 3 or images.shape[1:] != want[1:]:
        raise UserError(
            f"images: want integers of shape {list(want)}, got {images.dtype} of shape "
            f"{list(images.shape)}".replace("'", "")
        )
    low, high = taken["low"], taken["high"]
    if not len(images) or images.min() < low or images.max() > high:
        got = f"{images.min()}..{images.max()}" if len(images) else "none"
        raise UserError(f"images: want values in {low}..{high}, got {got}")
    labels = found.get("labels")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]):
        raise UserError(
            f"labels: want integers of shape [{len(images)}], got {labels.dtype} of shape "
            f"{list(labels.shape)}"
        )
    return images.astype(np.int64), labels


def classify(
    board: Board,
    model: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    images: np.ndarray,
    labels: np.ndarray | None = None,
) -> Classified:
    """Send images through a trained network on a board that holds `transformer`.

    Parameters
    ----------
    board : Board
        In its ``with`` statement.
    model, arrays : mapping
        As `gen.network.model_of` returns them.
    images : ndarray [B, height, width]
    labels : ndarray [B], optional

    Raises
    ------
    UserError
        The board holds another top, or one of other sizes.
    """
    if board.top != "transformer":
        raise UserError(f"want transformer on the board, got {board.top}")
    config, settings = top_of(model, arrays, **board.config.asdict())
    # Weights of thousands of images are those of the first one.
    batch = {
        name: np.broadcast_to(np.asarray(x, np.int64), (len(images), *x.shape))
        for name, x in settings.items()
    }
    result = board.run(**batch, patches=patches(config, tokens_of(model, images)))
    answers = result["answer"].ravel()
    right = None if labels is None else int((answers == labels).sum())
    traced = [spikes_of(config, one) for one in result.get("spikes", ())]
    names = traced[0] if traced else ()
    spikes = {name: np.stack([one[name] for one in traced]) for name in names}
    return Classified(answers, result["logits"], right, spikes)
