"""The dueling double-DQN update of the Nature network in PyTorch, as a user would write it today, in its fastest forms.

Prints one flat JSON object a line: {"peer": ..., "name": ..., "ms": ...}; milliseconds are the median by CUDA events,
each update on another batch that is in device memory already. PEERS in the environment picks modes: eager, graph,
compile.
"""
import json
import os
import statistics
import time

import torch
from torch import nn
from torch.nn import functional

DEVICE = torch.device("cuda")
ACTIONS = 18
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
torch.backends.cudnn.benchmark = True


class Dueling(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(4, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3, 1)
        self.value_hidden, self.advantage_hidden = nn.Linear(3136, 512), nn.Linear(3136, 512)
        self.value, self.advantage = nn.Linear(512, 1), nn.Linear(512, ACTIONS)

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = functional.relu(conv(x))
        x = x.flatten(1)
        value = self.value(functional.relu(self.value_hidden(x)))
        advantage = self.advantage(functional.relu(self.advantage_hidden(x)))
        return value + advantage - advantage.mean(1, keepdim=True)


def update(online, target, optimiser, batch):
    def pixels(x):
        return (x.to(torch.bfloat16) / 255).contiguous(memory_format=torch.channels_last)

    with torch.autocast("cuda", torch.bfloat16):
        state, next_state = pixels(batch["state"]), pixels(batch["next_state"])
        with torch.no_grad():
            best = online(next_state).argmax(1, keepdim=True)
            goal = batch["returns"] + batch["bootstrap"] * target(next_state).gather(1, best).squeeze(1).float()
        q = online(state).gather(1, batch["action"]).squeeze(1).float()
    loss = (batch["weight"] * functional.huber_loss(q, goal, reduction="none")).mean()
    optimiser.zero_grad(set_to_none=False)
    loss.backward()
    nn.utils.clip_grad_norm_(online.parameters(), 40.0, foreach=True)
    optimiser.step()
    return (goal - q).abs()


def random_batch(size):
    def frames():
        return torch.randint(0, 256, (size, 4, 84, 84), dtype=torch.uint8, device=DEVICE)

    return {"state": frames(), "next_state": frames(), "action": torch.randint(0, ACTIONS, (size, 1), device=DEVICE),
            "returns": torch.randn(size, device=DEVICE), "bootstrap": torch.full((size,), 0.97, device=DEVICE),
            "weight": torch.rand(size, device=DEVICE)}


def captured(step, batches):
    """Replays one CUDA graph of `step`, after copying a batch to where the graph reads it."""
    static = {name: column.clone() for name, column in batches[0].items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            step(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(static)

    def replay(batch):
        for name, column in static.items():
            column.copy_(batch[name], non_blocking=True)
        graph.replay()

    return replay


def median_ms(step, batches, seconds=2.0):
    for i in range(30):
        step(batches[i % len(batches)])
    torch.cuda.synchronize()
    times, end, turn = [], time.time() + seconds, 0
    while time.time() < end:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(10):
            step(batches[turn % len(batches)])
            turn += 1
        last.record()
        last.synchronize()
        times.append(first.elapsed_time(last) / 10)
    return statistics.median(times)


def main():
    modes = os.environ.get("PEERS", "eager,graph,compile").split(",")
    for size in (32, 512, 4096):
        for mode in modes:
            torch.manual_seed(0)
            online, target = (Dueling().to(DEVICE).to(memory_format=torch.channels_last) for _ in range(2))
            optimiser = torch.optim.Adam(online.parameters(), lr=1e-4, eps=1e-3, fused=True, capturable=True)
            batches = [random_batch(size) for _ in range(6 if size < 1000 else 3)]

            def step(batch):
                return update(online, target, optimiser, batch)

            if mode == "compile":
                torch._dynamo.reset()
                step = torch.compile(step, mode="max-autotune-no-cudagraphs")
            if mode != "eager":
                step = captured(step, batches)
            name = {"eager": "PyTorch eager", "graph": "PyTorch, CUDA graph",
                    "compile": "PyTorch, torch.compile and CUDA graph"}[mode]
            print(json.dumps({"peer": f"{name}, bf16", "name": f"update/nature/batch_{size}",
                              "ms": round(median_ms(step, batches), 4)}), flush=True)
            del online, target, optimiser, batches, step
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
