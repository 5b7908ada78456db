"""An independent float64 version of the recurrent update in PyTorch, against what the C++ wrote down.

Usage: torch_sequence_check.py CASES.json. Each case holds a recurrent network, its parameters, one batch of sequences,
the switches, and the C++ results, compared as torch_check.py does; its errors are the sequences' priorities.
"""
import torch
from torch.nn import functional
from torch_check import main, observations, rescale, unrescale

torch.set_default_dtype(torch.float64)


def layer(case, p, index, x):
    name, kind = f"layers.{index}", case["layers"][index]["kind"]
    if kind == "linear":
        return x.flatten(1) @ p[name + ".weight"] + p[name + ".bias"]
    if kind == "conv2d":
        return functional.conv2d(x, p[name + ".weight"], p[name + ".bias"], stride=case["layers"][index]["stride"])
    assert kind == "relu"
    return functional.relu(x)


def q_values(case, p):
    """[U, B, actions] of the steps after the burn-in; the burn-in is run without a gradient, as a pass of its own."""
    batch, burn_in = case["batch"], case["burn_in"]
    kinds = [l["kind"] for l in case["layers"]]
    at = kinds.index("lstm")
    size = len(batch["length"])
    x = observations(case, batch["index"])
    for i in range(at):
        x = layer(case, p, i, x)
    x = x.flatten(1).reshape(-1, size, x.flatten(1).shape[1])
    previous = torch.tensor(batch["previous_action"]).reshape(-1, size)
    one_hot = functional.one_hot(previous.clamp_min(0), case["actions"]) * (previous >= 0).unsqueeze(-1)
    reward = torch.tensor(batch["previous_reward"]).reshape(-1, size, 1)
    x = torch.cat([x, one_hot.to(x.dtype), reward], -1)
    state = tuple(torch.tensor(batch[k]).reshape(1, size, -1) for k in ("hidden", "cell"))
    # torch.nn.LSTM's own parameters, transposed from ours, so that gradients flow into ours.
    name = f"layers.{at}"
    weights = [p[name + ".input.weight"].T, p[name + ".recurrent.weight"].T, p[name + ".input.bias"],
               p[name + ".recurrent.bias"]]
    run = lambda x, state: torch.lstm(x, state, weights, True, 1, 0.0, False, False, False)
    if burn_in > 0:
        with torch.no_grad():
            _, *state = run(x[:burn_in], state)
    y = run(x[burn_in:], tuple(state))[0].flatten(0, 1)
    for i in range(at + 1, len(kinds)):
        y = layer(case, p, i, y)
    linear = lambda n, z: z @ p[n + ".weight"] + p[n + ".bias"]
    if not case["dueling"]:
        return linear("q", y).reshape(-1, size, case["actions"])
    value, advantage = y, y
    if case["dueling_hidden"]:
        value, advantage = (functional.relu(linear(n, y)) for n in ("value_hidden", "advantage_hidden"))
    value, advantage = linear("value", value), linear("advantage", advantage)
    return (value + advantage - advantage.mean(1, keepdim=True)).reshape(-1, size, case["actions"])


def q_loss_and_priorities(case, online, target):
    batch, td, n, gamma = case["batch"], case["td"], case["n_step"], case["gamma"]
    size, burn_in = len(batch["length"]), case["burn_in"]
    q = q_values(case, online)
    with torch.no_grad():
        target_q = q_values(case, target)
    column = lambda name: torch.tensor(batch[name]).reshape(-1, size)
    action, reward = column("action")[burn_in:], column("reward")[burn_in:]
    loss, priorities = 0, []
    for b in range(size):
        last = batch["length"][b] - burn_in - 1  # the last observation, counted from the burn-in's end
        end = ("open", "terminated", "truncated")[batch["end"][b]]
        errors = []
        for t in range(last if end != "open" else last - n + 1):
            until = min(t + n, last)
            goal = sum(gamma ** k * reward[t + k, b] for k in range(until - t))
            if until < last or end != "terminated":
                with torch.no_grad():
                    choosing = (q if td["double_q"] else target_q)[until, b]
                    if batch["mask"] is not None:
                        mask = torch.tensor(batch["mask"]).reshape(-1, size, case["actions"])[burn_in + until, b]
                        choosing = choosing.masked_fill(mask == 0, -torch.inf)
                    value = target_q[until, b, choosing.argmax()]
                    goal = goal + gamma ** (until - t) * (unrescale(value, td["epsilon"]) if td["rescale"] else value)
            goal = rescale(goal, td["epsilon"]) if td["rescale"] else goal
            taken = q[t, b, action[t, b]]
            if td["huber"]:
                loss = loss + batch["weight"][b] * functional.huber_loss(taken, goal, delta=td["delta"])
            else:
                loss = loss + batch["weight"][b] * (taken - goal) ** 2 / 2
            errors.append((goal - taken).abs().detach())
        errors = torch.stack(errors)
        priorities.append(case["eta"] * errors.max() + (1 - case["eta"]) * errors.mean())
    return q, loss / size, torch.stack(priorities)


if __name__ == "__main__":
    main(q_loss_and_priorities, "recurrent cases")
