"""From a graph of the Neuromorphic Intermediate Representation to a network."""

from typing import Any

from gen.errors import UserError
from gen.models.graph import Network
from gen.models.integers import Given
from gen.models.state_dict import Options

LIBRARIES = ("nir", "norse", "snntorch", "spikingjelly")


def network_of(graph: Any, options: Options) -> tuple[Network, Given | None]:
    """Return the network of a graph."""
    raise UserError("NIR: not yet")
