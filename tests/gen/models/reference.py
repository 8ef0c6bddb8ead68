"""Spiking transformers in NumPy and float64, written from the released code and nothing of ours.

Tokens are [T, N, C]; everything is done one time step after another.
"""

import numpy as np


class LIF:
    """SpikingJelly's MultiStepLIFNode: decay_input, v_reset 0, fires at >=."""

    def __init__(self, v_threshold=1.0, tau=2.0, fires=np.greater_equal):
        self.v_threshold, self.tau, self.fires = v_threshold, tau, fires

    def __call__(self, x_seq):
        v = np.zeros_like(x_seq[0])
        out = []
        for x in x_seq:
            v = v + (x - v) / self.tau
            spike = self.fires(v, self.v_threshold).astype(float)
            v = (1 - spike) * v
            out.append(spike)
        return np.stack(out)


def project(state, matrix, bn, x, mean=True):
    w = state[f"{matrix}.weight"].reshape(len(state[f"{matrix}.weight"]), -1)
    y = x @ w.T + state.get(f"{matrix}.bias", 0)
    if bn is None:
        return y
    shift = state[f"{bn}.running_mean"] if mean else 0
    y = (y - shift) / np.sqrt(state[f"{bn}.running_var"] + 1e-5)
    return y * state[f"{bn}.weight"] + state[f"{bn}.bias"]


def heads_of(x, heads):
    steps, tokens, channels = x.shape
    return x.reshape(steps, tokens, heads, channels // heads).transpose(0, 2, 1, 3)


def sdt(state, x, heads, lif=LIF, depth=2, mean=True):
    """Return (spikes by layer, logits [K]) of tokens [T, N, I]."""
    seen = {}

    def fire(name, y, v=1.0):
        seen[name] = lif(v)(y)
        return seen[name]

    if "patch_embed.proj_conv.weight" in state:
        x = project(state, "patch_embed.proj_conv", "patch_embed.proj_bn", x, mean)
    for i in range(depth):
        a, m = f"block.{i}.attn.", f"block.{i}.mlp."
        s = fire(f"{a}shortcut_lif", x)
        q, k, v = (
            fire(f"{a}{p}_lif", project(state, f"{a}{p}_conv", f"{a}{p}_bn", s, mean))
            for p in "qkv"
        )
        q, k, v = (heads_of(y, heads) for y in (q, k, v))
        kv = lif(0.5)((k * v).sum(axis=2, keepdims=True))
        y = (q * kv).transpose(0, 2, 1, 3).reshape(s.shape)
        seen[f"{a}sdsa"] = y
        x = x + project(state, f"{a}proj_conv", f"{a}proj_bn", y, mean)
        h = project(state, f"{m}fc1_conv", f"{m}fc1_bn", fire(f"{m}fc1_lif", x), mean)
        if h.shape == x.shape:
            x = h = x + h
        x = x + project(state, f"{m}fc2_conv", f"{m}fc2_bn", fire(f"{m}fc2_lif", h), mean)
    last = fire("head_lif", x.mean(axis=1, keepdims=True))
    return seen, project(state, "head", None, last).mean(axis=(0, 1))


def spikformer(state, x, heads, lif=LIF, depth=2, kind="linear", mean=True):
    seen = {}

    def layer(name, y):
        prefix, part = name.rsplit(".", 1)
        seen[f"{name}_lif"] = lif()(
            project(state, f"{prefix}.{part}_{kind}", f"{prefix}.{part}_bn", y, mean)
        )
        return seen[f"{name}_lif"]

    if "patch_embed.proj_conv.weight" in state:
        x = project(state, "patch_embed.proj_conv", "patch_embed.proj_bn", x, mean)
        x = seen["patch_embed.proj_lif"] = lif()(x)
    for i in range(depth):
        a, m = f"block.{i}.attn.", f"block.{i}.mlp."
        q, k, v = (heads_of(layer(f"{a}{p}", x), heads) for p in "qkv")
        y = (q @ k.swapaxes(-1, -2)) * 0.125 @ v
        y = seen[f"{a}sdsa"] = lif(0.5)(y.transpose(0, 2, 1, 3).reshape(x.shape))
        x = x + layer(f"{a}proj", y)
        x = x + layer(f"{m}fc2", layer(f"{m}fc1", x))
    return seen, project(state, "head", None, x).mean(axis=(0, 1))


def attention_layer(state, x, heads, lif=LIF):
    """Return the spikes behind SpikingSelfAttention's projection."""
    qkv = lif()(project(state, "qkv_conv_bn.0", "qkv_conv_bn.1", x))
    q, k, v = (heads_of(y, heads) for y in np.split(qkv, 3, axis=2))
    y = (q @ k.swapaxes(-1, -2)) * 0.125 @ v
    y = lif(0.5)(y.transpose(0, 2, 1, 3).reshape(x.shape))
    return lif()(project(state, "proj_conv_bn.0", "proj_conv_bn.1", y))
