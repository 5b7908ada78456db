"""An independent float64 version of the whole DQN update in PyTorch, against what the C++ wrote down.

Usage: torch_check.py CASES.json. Each case holds a network, its parameters, one batch, the switches, and the C++
results: Q-values, loss, errors (|td|), every gradient, the parameters after the optimiser's step from these. Exits 3,
naming the case and the tensor, where the error's norm relative to PyTorch's result is above the case's tolerance or,
where the case gives a cosine, a gradient's angle is too wide.
"""
import json
import sys

import torch
from torch.nn import functional

torch.set_default_dtype(torch.float64)
STEP = 1e-5  # of a step in f32 from the same gradients
DISAGREES = 3  # the exit status; Python's own, of an exception, is 1


def tensors(case, which):
    return {p["name"]: torch.tensor(p[which]).reshape(p["shape"]) for p in case["parameters"]}


def observations(case, index):
    """[B, stacked shape]: rows oldest first, joined along the channel (or only) axis."""
    rows = torch.tensor(case["rows"]).reshape(-1, *case["row_shape"])
    index = torch.tensor(index).reshape(-1, case["stack"])
    frames = [rows[index[:, k]] for k in range(case["stack"])]
    if len(case["row_shape"]) == 2:
        frames = [f.unsqueeze(1) for f in frames]
    return torch.cat(frames, 1) * case["input_scale"]


def q_values(case, p, x):
    def linear(name, x):
        return x.flatten(1) @ p[name + ".weight"] + p[name + ".bias"]

    for i, layer in enumerate(case["layers"]):
        name = f"layers.{i}"
        if layer["kind"] == "linear":
            x = linear(name, x)
        elif layer["kind"] == "conv2d":
            x = functional.conv2d(x, p[name + ".weight"], p[name + ".bias"], stride=layer["stride"])
        elif layer["kind"] == "relu":
            x = functional.relu(x)
        else:
            shape = x.shape
            flat = x.flatten(1)
            x = functional.layer_norm(flat, flat.shape[1:], p[name + ".weight"], p[name + ".bias"]).reshape(shape)
    if not case["dueling"]:
        return linear("q", x)
    value, advantage = x, x
    if case["dueling_hidden"]:
        value, advantage = (functional.relu(linear(n, x)) for n in ("value_hidden", "advantage_hidden"))
    value, advantage = linear("value", value), linear("advantage", advantage)
    return value + advantage - advantage.mean(1, keepdim=True)


def rescale(x, epsilon):
    return x.sign() * ((x.abs() + 1).sqrt() - 1) + epsilon * x


def unrescale(x, epsilon):
    root = (1 + 4 * epsilon * (x.abs() + 1 + epsilon)).sqrt()
    return x.sign() * (((root - 1) / (2 * epsilon)) ** 2 - 1)


def q_loss_and_td(case, online, target):
    batch, switch = case["batch"], case["td"]
    state, next_state = observations(case, batch["state"]), observations(case, batch["next_state"])
    returns, bootstrap, weight = (torch.tensor(batch[k]) for k in ("returns", "bootstrap", "weight"))
    with torch.no_grad():
        next_q = q_values(case, target, next_state)
        choosing = q_values(case, online, next_state) if switch["double_q"] else next_q
        if batch["next_mask"] is not None:
            allowed = torch.tensor(batch["next_mask"]).reshape(choosing.shape) != 0
            choosing = choosing.masked_fill(~allowed, -torch.inf)
        best = next_q.gather(1, choosing.argmax(1, keepdim=True)).squeeze(1)
        if switch["rescale"]:
            goal = rescale(returns + bootstrap * unrescale(best, switch["epsilon"]), switch["epsilon"])
        else:
            goal = returns + bootstrap * best
    q = q_values(case, online, state)
    taken = q.gather(1, torch.tensor(batch["action"]).unsqueeze(1)).squeeze(1)
    if switch["huber"]:
        loss = functional.huber_loss(taken, goal, reduction="none", delta=switch["delta"])
    else:
        loss = (taken - goal) ** 2 / 2
    return q, (weight * loss).mean(), (goal - taken).abs().detach()


def optimiser_of(options, parameters):
    if options["kind"] == "adam":
        betas = (options["beta1"], options["beta2"])
        return torch.optim.Adam(parameters, options["rate"], betas=betas, eps=options["epsilon"])
    return torch.optim.RMSprop(parameters, options["rate"], alpha=options["decay"], eps=options["epsilon"],
                               centered=options["centered"])


def check(case, update):
    """What is wrong with one case. `update(case, online, target)`: Q-values, the loss, and what becomes priorities."""
    online = {name: p.requires_grad_() for name, p in tensors(case, "online").items()}
    q, loss, errors = update(case, online, tensors(case, "target"))
    loss.backward()
    wrong = []

    def compare(what, seen, wanted, cosine=-1, rounding=0, tolerance=case["tolerance"]):
        seen, wanted = torch.as_tensor(seen).flatten(), wanted.detach().flatten()
        if cosine > -1 and not torch.dot(seen, wanted) >= cosine * seen.norm() * wanted.norm():
            wrong.append(f"{case['name']}: {what} points elsewhere, wanted a cosine of {cosine:.3g}")
        error, allowed = (seen - wanted).norm(), tolerance * wanted.norm() + rounding
        if not error <= allowed:
            wrong.append(f"{case['name']}: {what} is off by {error:.3g}, allowed {allowed:.3g} of {wanted.norm():.3g}")

    if "q" in case:
        compare("Q-values", case["q"], q, case["cosine"])
    compare("loss", [case["loss"]], loss)
    compare("errors", case["errors"], errors)
    # What f32 makes of a sum of the gradient's size: a bias's may cancel to much less.
    rounding = 2**-24 * torch.stack([p.grad.norm() for p in online.values()]).norm()
    for p in case["parameters"]:
        compare("gradient of " + p["name"], p["gradient"], online[p["name"]].grad, case["cosine"], rounding)
    # The step from the gradients that C++ saw: what its own rounding did to them must not count twice.
    for name, gradient in tensors(case, "gradient").items():
        online[name].grad = gradient
    options = case["optimizer"]
    optimiser = optimiser_of(options, online.values())
    if options["max_grad_norm"] > 0:
        torch.nn.utils.clip_grad_norm_(online.values(), options["max_grad_norm"])
    optimiser.step()
    for p in case["parameters"]:
        before, after = (torch.tensor(p[when]) for when in ("online", "after"))
        step = online[p["name"]].flatten() - before
        compare("step of " + p["name"], after - before, step, rounding=2**-24 * after.norm(), tolerance=STEP)
    return wrong


def main(update, what):
    with open(sys.argv[1]) as file:
        cases = json.load(file)
    wrong = [line for case in cases for line in check(case, update)]
    print("\n".join(wrong[:20] or [f"{len(cases)} {what} agree with PyTorch {torch.__version__} in float64"]))
    sys.exit(DISAGREES if wrong or not cases else 0)


if __name__ == "__main__":
    main(q_loss_and_td, "cases")
