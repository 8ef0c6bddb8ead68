"""The random sources of attention, which are the same with every encoder."""

from hw.attention.config import AttentionConfig
from hw.bernoulli import SobolSource, UniformSource

Source = UniformSource | SobolSource


def sources(config: AttentionConfig) -> tuple[Source, Source]:
    """Return the sources of both stages: below head_dim for scores, below tokens for outputs.

    Each takes the marks of the time step at hand: `restart` in the first one of an inference, and
    `advance` where it is done with.
    """
    c = config
    if c.rng == "sobol":
        order = c.token_order if c.encoder == "sample" else None
        return (
            SobolSource(c.head_dim, 0, c.timesteps),
            SobolSource(c.tokens, 1, c.timesteps, order),
        )
    return (
        UniformSource(c.head_dim, 32, c.score_seed, restarts=c.reseed),
        UniformSource(c.tokens, 31, c.output_seed, restarts=c.reseed),
    )
