"""The peer of bench_nn: the same double-DQN update and forward pass in PyTorch eager, one thread.

Needs torch. Prints one JSON object a line: {"name", "value", "unit"}, named as bench_nn names its own.
"""
import json
import statistics
import time

import torch
from torch import nn


def minatar():
    return nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 6))


def mlp():
    return nn.Sequential(nn.Linear(4, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2))


def nature():
    return nn.Sequential(nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3),
                         nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 18))


NETWORKS = {"minatar": (minatar, (4, 10, 10), 6), "mlp": (mlp, (4,), 2), "nature": (nature, (4, 84, 84), 18)}


def median_microseconds(call, seconds=1.5):
    """Of processor time, as bench_nn measures: what other programs do in between does not count."""
    for _ in range(20):
        call()
    start = time.process_time()
    call()
    calls = max(1, int(200e-6 / max(time.process_time() - start, 1e-7)))
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 20:
        start = time.process_time()
        for _ in range(calls):
            call()
        times.append((time.process_time() - start) / calls)
    return statistics.median(times) * 1e6


def update_call(make, shape, actions, batch):
    online, target = make(), make()
    optimiser = torch.optim.Adam(online.parameters(), 1e-3, fused=True)
    state, next_state = torch.rand(batch, *shape), torch.rand(batch, *shape)
    action = torch.randint(actions, (batch, 1))
    returns, bootstrap, weight = torch.rand(batch), torch.full((batch,), 0.99), torch.rand(batch)

    def update():
        with torch.no_grad():
            best = online(next_state).argmax(1, keepdim=True)
            goal = returns + bootstrap * target(next_state).gather(1, best).squeeze(1)
        td = goal - online(state).gather(1, action).squeeze(1)
        loss = (weight * nn.functional.huber_loss(td, torch.zeros_like(td), reduction="none")).mean()
        optimiser.zero_grad(set_to_none=False)
        loss.backward()
        nn.utils.clip_grad_norm_(online.parameters(), 10.0)
        optimiser.step()
        return td.abs()

    return update


def forward_call(make, shape, batch, dtype):
    network, state = make().to(dtype), torch.rand(batch, *shape, dtype=dtype)
    if dtype == torch.bfloat16 and len(shape) == 3:  # what its matrix units like best
        network, state = network.to(memory_format=torch.channels_last), state.to(memory_format=torch.channels_last)

    def forward():
        with torch.inference_mode():
            return network(state)

    return forward


def main():
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as bench_nn does: the peer at its best
    for name, (make, shape, actions) in NETWORKS.items():
        for batch in (32, 512) if name != "nature" else ():
            value = median_microseconds(update_call(make, shape, actions, batch))
            print(json.dumps({"name": f"update/{name}/batch_{batch}", "value": value, "unit": "us"}), flush=True)
        for suffix, dtype in (("", torch.float32), ("_bf16", torch.bfloat16))[:1 if name == "mlp" else 2]:
            for batch in (1, 4, 16, 256):
                value = median_microseconds(forward_call(make, shape, batch, dtype), 0.7) / batch
                print(json.dumps({"name": f"forward/{name}{suffix}/batch_{batch}", "value": value, "unit": "us/observation"}),
                      flush=True)


if __name__ == "__main__":
    main()
