"""Random state_dicts with the names of published networks; see `dyadic` and `ordinary`."""

import numpy as np

EPSILON = 1e-5


def conv(state, name, rng, outputs, inputs, ends, bias):
    shape = (outputs, inputs, *ends)
    state[f"{name}.weight"] = rng.integers(-12, 13, shape) / 16
    if bias:
        state[f"{name}.bias"] = rng.integers(-8, 9, outputs) / 16


def bn(state, name, rng, count):
    """Gains are powers of two, means are not 0, and the variance takes epsilon away."""
    state[f"{name}.weight"] = 2.0 ** rng.integers(-1, 2, count)
    state[f"{name}.bias"] = rng.integers(4, 25, count) / 16
    state[f"{name}.running_mean"] = rng.integers(-6, 7, count) / 16
    state[f"{name}.running_var"] = np.full(count, 1 - EPSILON)
    state[f"{name}.num_batches_tracked"] = np.array(7)


def sdt(rng, channels=16, hidden=32, depth=2, classes=5, inputs=None, hold=True):
    state = {}
    if inputs is not None:
        conv(state, "patch_embed.proj_conv", rng, channels, inputs, (1, 1), False)
        bn(state, "patch_embed.proj_bn", rng, channels)
    for i in range(depth):
        own = f"block.{i}.attn."
        for part in "qkv":
            conv(state, f"{own}{part}_conv", rng, channels, channels, (1, 1), False)
            bn(state, f"{own}{part}_bn", rng, channels)
        conv(state, f"{own}proj_conv", rng, channels, channels, (1, 1), True)
        bn(state, f"{own}proj_bn", rng, channels)
        if hold:
            state[f"{own}talking_heads.weight"] = rng.normal(size=(8, 8, 1))
        own = f"block.{i}.mlp."
        conv(state, f"{own}fc1_conv", rng, hidden, channels, (1, 1), True)
        bn(state, f"{own}fc1_bn", rng, hidden)
        conv(state, f"{own}fc2_conv", rng, channels, hidden, (1, 1), True)
        bn(state, f"{own}fc2_bn", rng, channels)
    conv(state, "head", rng, classes, channels, (), True)
    return state


def spikformer(rng, channels=16, hidden=32, depth=2, classes=5, inputs=None, kind="linear"):
    state = {}
    ends = {"linear": (), "conv": (1,)}[kind]
    if inputs is not None:
        conv(state, "patch_embed.proj_conv", rng, channels, inputs, (1, 1), False)
        bn(state, "patch_embed.proj_bn", rng, channels)
    for i in range(depth):
        for part in ("attn.q", "attn.k", "attn.v", "attn.proj"):
            conv(state, f"block.{i}.{part}_{kind}", rng, channels, channels, ends, True)
            bn(state, f"block.{i}.{part}_bn", rng, channels)
        own = f"block.{i}.mlp."
        conv(state, f"{own}fc1_{kind}", rng, hidden, channels, ends, True)
        bn(state, f"{own}fc1_bn", rng, hidden)
        conv(state, f"{own}fc2_{kind}", rng, channels, hidden, ends, True)
        bn(state, f"{own}fc2_bn", rng, channels)
    conv(state, "head", rng, classes, channels, (), True)
    return state


def attention_layer(rng, channels=16):
    """SpikingJelly's SpikingSelfAttention."""
    state = {}
    conv(state, "qkv_conv_bn.0", rng, 3 * channels, channels, (1,), False)
    bn(state, "qkv_conv_bn.1", rng, 3 * channels)
    conv(state, "proj_conv_bn.0", rng, channels, channels, (1,), False)
    bn(state, "proj_conv_bn.1", rng, channels)
    return state


def ordinary(state, rng):
    """Give every number one that is no multiple of a power of two."""
    out = {}
    for name, array in state.items():
        if name.endswith(("num_batches_tracked",)):
            out[name] = array
        elif name.endswith("running_var"):
            out[name] = rng.uniform(0.3, 2, array.shape)
        else:
            out[name] = array + rng.uniform(-0.03, 0.03, array.shape)
    return out
