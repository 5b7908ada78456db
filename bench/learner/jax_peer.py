"""The dueling double-DQN update of the Nature network in JAX under jit, in bf16 with f32 parameters.

Prints one flat JSON object a line: {"peer": ..., "name": ..., "ms": ...}: median wall time of an update in a row of 50,
batches in device memory. Adam and the network are written out, so that nothing but JAX is needed.
"""
import functools
import json
import os
import statistics
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
import jax
import jax.numpy as jnp

ACTIONS = 18
CONVS = ((8, 4, 4, 32), (4, 2, 32, 64), (3, 1, 64, 64))  # kernel, stride, channels in and out
LINEARS = {"value_hidden": (3136, 512), "advantage_hidden": (3136, 512), "value": (512, 1), "advantage": (512, ACTIONS)}


def initial(key):
    shapes = {f"conv{i}": (k, k, a, b) for i, (k, _, a, b) in enumerate(CONVS)} | LINEARS
    parameters = {}
    for name, shape in shapes.items():
        key, draw = jax.random.split(key)
        bound = 1 / jnp.sqrt(jnp.prod(jnp.array(shape[:-1])))
        parameters[name] = jax.random.uniform(draw, shape, minval=-bound, maxval=bound)
        parameters[name + "_bias"] = jnp.zeros(shape[-1])
    return parameters


def q_values(parameters, frames):
    p = {name: value.astype(jnp.bfloat16) for name, value in parameters.items()}
    x = frames.astype(jnp.bfloat16) / 255
    for i, (_, stride, _, _) in enumerate(CONVS):
        x = jax.lax.conv_general_dilated(x, p[f"conv{i}"], (stride, stride), "VALID",
                                         dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + p[f"conv{i}_bias"])
    x = x.reshape(x.shape[0], -1)

    def linear(name, x):
        return x @ p[name] + p[name + "_bias"]

    value = linear("value", jax.nn.relu(linear("value_hidden", x)))
    advantage = linear("advantage", jax.nn.relu(linear("advantage_hidden", x)))
    return (value + advantage - advantage.mean(1, keepdims=True)).astype(jnp.float32)


@functools.partial(jax.jit, donate_argnums=(0, 2))
def update(online, target, moments, batch):
    best = q_values(online, batch["next_state"]).argmax(1)
    next_q = jnp.take_along_axis(q_values(target, batch["next_state"]), best[:, None], 1)[:, 0]
    goal = batch["returns"] + batch["bootstrap"] * next_q

    def loss(parameters):
        q = jnp.take_along_axis(q_values(parameters, batch["state"]), batch["action"][:, None], 1)[:, 0]
        td = jnp.abs(goal - q)
        return (batch["weight"] * jnp.where(td < 1, 0.5 * td * td, td - 0.5)).mean(), td

    gradients, td = jax.grad(loss, has_aux=True)(online)
    norm = jnp.sqrt(sum((g * g).sum() for g in gradients.values()))
    clip = jnp.minimum(1.0, 40.0 / (norm + 1e-6))
    count = moments["count"] + 1
    parameters, mean, square = {}, {}, {}
    for name, gradient in gradients.items():
        g = clip * gradient
        mean[name] = 0.9 * moments["mean"][name] + 0.1 * g
        square[name] = 0.999 * moments["square"][name] + 0.001 * g * g
        root = jnp.sqrt(square[name] / (1 - 0.999**count)) + 1e-3
        parameters[name] = online[name] - 1e-4 * (mean[name] / (1 - 0.9**count)) / root
    return parameters, {"count": count, "mean": mean, "square": square}, td


def random_batch(key, size):
    keys = jax.random.split(key, 5)
    frames = [jax.random.randint(k, (size, 84, 84, 4), 0, 256, jnp.uint8) for k in keys[:2]]
    return {"state": frames[0], "next_state": frames[1], "action": jax.random.randint(keys[2], (size,), 0, ACTIONS),
            "returns": jax.random.normal(keys[3], (size,)), "bootstrap": jnp.full((size,), 0.97),
            "weight": jax.random.uniform(keys[4], (size,))}


def main():
    for size in (32, 512, 4096):
        online = initial(jax.random.PRNGKey(0))
        target = jax.tree.map(jnp.copy, online)
        moments = {"count": jnp.zeros(()), "mean": jax.tree.map(jnp.zeros_like, online),
                   "square": jax.tree.map(jnp.zeros_like, online)}
        batches = [random_batch(key, size) for key in jax.random.split(jax.random.PRNGKey(1), 3)]
        turn, times, end = 0, [], None
        while end is None or time.time() < end:
            start = time.perf_counter()
            for _ in range(50):
                online, moments, td = update(online, target, moments, batches[turn % len(batches)])
                turn += 1
            td.block_until_ready()
            if end is None:
                end = time.time() + 2  # the first round compiles
            else:
                times.append((time.perf_counter() - start) / 50 * 1e3)
        print(json.dumps({"peer": "JAX jit, bf16", "name": f"update/nature/batch_{size}",
                          "ms": round(statistics.median(times), 4)}), flush=True)


if __name__ == "__main__":
    main()
