"""R2D2's update (64 sequences of 40 burn-in and 80 learnt steps, LSTM 512) in PyTorch, as a user would write it today, in
its fastest forms.

Prints one flat JSON object a line: {"peer": ..., "name": ..., "ms": ...}; milliseconds are the median by CUDA events,
each update on another batch that is in device memory already. PEERS in the environment picks modes: eager, graph,
compile.
"""
import json
import os

import torch
from torch import nn
from torch.nn import functional
from torch_peer import ACTIONS, DEVICE, captured, median_ms

SEQUENCES, BURN_IN, UNROLL, N_STEP, GAMMA, ETA, EPSILON = 64, 40, 80, 5, 0.997, 0.9, 1e-3


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(4, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3, 1)
        self.linear, self.lstm = nn.Linear(3136, 512), nn.LSTM(512 + ACTIONS + 1, 512)
        self.value_hidden, self.advantage_hidden = nn.Linear(512, 512), nn.Linear(512, 512)
        self.value, self.advantage = nn.Linear(512, 1), nn.Linear(512, ACTIONS)

    def core(self, x, extra, state):
        steps, size = x.shape[:2]
        x = x.flatten(0, 1)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = functional.relu(conv(x))
        x = functional.relu(self.linear(x.flatten(1))).view(steps, size, -1)
        return self.lstm(torch.cat([x, extra], -1), state)

    def head(self, h):
        value = self.value(functional.relu(self.value_hidden(h)))
        advantage = self.advantage(functional.relu(self.advantage_hidden(h)))
        return value + advantage - advantage.mean(-1, keepdim=True)


def rescale(x):
    return torch.sign(x) * (torch.sqrt(x.abs() + 1) - 1) + EPSILON * x


def unrescale(x):
    root = torch.sqrt(1 + 4 * EPSILON * (x.abs() + 1 + EPSILON))
    return torch.sign(x) * (((root - 1) / (2 * EPSILON)) ** 2 - 1)


def update(online, target, optimiser, batch):
    with torch.autocast("cuda", torch.bfloat16):
        frames = batch["frames"].flatten(0, 1).to(torch.bfloat16) / 255
        x = frames.contiguous(memory_format=torch.channels_last).view(BURN_IN + UNROLL, SEQUENCES, 4, 84, 84)
        extra, first = batch["extra"], (batch["hidden"], batch["cell"])
        with torch.no_grad():
            _, online_state = online.core(x[:BURN_IN], extra[:BURN_IN], first)
            _, target_state = target.core(x[:BURN_IN], extra[:BURN_IN], first)
            target_q = target.head(target.core(x[BURN_IN:], extra[BURN_IN:], target_state)[0]).float()
        online_q = online.head(online.core(x[BURN_IN:], extra[BURN_IN:], online_state)[0]).float()
    learnt = UNROLL - N_STEP
    with torch.no_grad():
        value = unrescale(target_q.gather(-1, online_q.argmax(-1, keepdim=True)).squeeze(-1))
        reward = batch["reward"][BURN_IN:]
        returns = sum(GAMMA**k * reward[k:k + learnt] for k in range(N_STEP))
        goal = rescale(returns + GAMMA**N_STEP * value[N_STEP:])
    q = online_q.gather(-1, batch["action"][BURN_IN:].unsqueeze(-1)).squeeze(-1)[:learnt]
    td = goal - q
    loss = (batch["weight"] * 0.5 * td.pow(2).sum(0)).mean()
    optimiser.zero_grad(set_to_none=False)
    loss.backward()
    nn.utils.clip_grad_norm_(online.parameters(), 40.0, foreach=True)
    optimiser.step()
    size = td.abs()
    return ETA * size.max(0)[0] + (1 - ETA) * size.mean(0)


def random_batch():
    steps = BURN_IN + UNROLL
    return {"frames": torch.randint(0, 256, (steps, SEQUENCES, 4, 84, 84), dtype=torch.uint8, device=DEVICE),
            "extra": torch.randn(steps, SEQUENCES, ACTIONS + 1, device=DEVICE),
            "action": torch.randint(0, ACTIONS, (steps, SEQUENCES), device=DEVICE),
            "reward": torch.randn(steps, SEQUENCES, device=DEVICE), "weight": torch.rand(SEQUENCES, device=DEVICE),
            "hidden": torch.randn(1, SEQUENCES, 512, device=DEVICE),
            "cell": torch.randn(1, SEQUENCES, 512, device=DEVICE)}


def main():
    for mode in os.environ.get("PEERS", "eager,graph,compile").split(","):
        torch.manual_seed(0)
        online, target = (Recurrent().to(DEVICE).to(memory_format=torch.channels_last) for _ in range(2))
        optimiser = torch.optim.Adam(online.parameters(), lr=1e-4, eps=1e-3, fused=True, capturable=True)
        batches = [random_batch() for _ in range(2)]

        def step(batch):
            return update(online, target, optimiser, batch)

        if mode == "compile":
            torch._dynamo.reset()
            step = torch.compile(step, mode="max-autotune-no-cudagraphs")
        if mode != "eager":
            step = captured(step, batches)
        name = {"eager": "PyTorch eager", "graph": "PyTorch, CUDA graph",
                "compile": "PyTorch, torch.compile and CUDA graph"}[mode]
        print(json.dumps({"peer": f"{name}, bf16", "name": f"update/r2d2/sequences_{SEQUENCES}",
                          "ms": round(median_ms(step, batches), 4)}), flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
