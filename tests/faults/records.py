"""What a run leaves behind."""

import json
import os
import signal
import struct
import time

from support import CONFIGS, ENDLESS, check, check_in, until

# Stable names: tools read them.
EVERY_LINE = {"time", "env_steps", "updates", "env_steps_per_second", "updates_per_second", "replay_ratio",
              "ledger_balance", "actors", "episodes"}
WHILE_TRAINING = {"loss", "gradient_norm", "q_value", "learning_rate", "importance_beta", "learner_wait_share",
                  "learner_hold_share", "learner_device_share", "learner_train_share", "insert_hold_share", "insert_wait_share", "replay_items", "replay_rows",
                  "skipped_updates", "stale_priority_updates", "refused_messages", "policy_lag_updates",
                  "episode_return_mean", "episode_length_mean", "epsilon_mean", "evaluation_mean"}


def event_records(path):
    """Payloads of a TensorBoard file: length, its checksum, payload, its checksum."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        check(len(data) >= 16 + length, "a torn record in", path)
        yield data[12:12 + length]
        data = data[16 + length:]


def test_a_run_leaves_everything_behind(place):
    train = place.train("--seed", 7, sets=[*ENDLESS, "stop.wall_seconds=5"]).expect(0, 40)
    run = train.run
    check_in(str(run.path), train.out, "the path of the run is printed")
    check_in("evaluation: mean", train.out, "the evaluation is printed")

    summary = run.summary()
    evaluation = summary["evaluation"]
    check(evaluation["episodes"] == 10 and -1 <= evaluation["mean"] <= 1 and evaluation["standard_error"] >= 0, evaluation)
    check_in(f"mean {evaluation['mean']:.2f}", train.out, "the printed mean is the summary's")
    check(summary["seed"] == 7, "seed", summary["seed"])
    check(summary["env_steps"] > 1000 and summary["updates"] > 100, "counters", summary["env_steps"], summary["updates"])
    check(5 <= summary["wall_seconds"] < 15, "wall_seconds", summary["wall_seconds"])
    check(summary["stop_cause"] == "wall_seconds" and summary["restarts"] == 0, summary["stop_cause"], summary["restarts"])
    commit = place.call("--version").out.split("(")[1].split(")")[0]
    check(summary["commit"] == commit, "commit", summary["commit"], "wanted", commit)
    check(summary["updates"] == int(run.checkpoints()[-1].name[5:]), "the updates are those of the last checkpoint:",
          summary["updates"], run.checkpoints()[-1].name)
    ratio = summary["metrics"]["replay_ratio"]
    check(abs(ratio - 4) < 0.08, "the end ratio is within 2% of the configured 4: saw", ratio)

    members = {(p["role"], p["index"]): p for p in summary["processes"]}
    wanted = {("learner", 0), ("replay", 0), ("replay", 1), ("actor", 0), ("actor", 1), ("evaluate", 0)}
    check(wanted <= set(members), "processes", sorted(members))
    for key in wanted:
        member = members[key]
        check(member["pid"] > 1 and all(member[field] > 0 for field in ("messages_in", "messages_out", "bytes_in", "bytes_out")),
              "traffic of", key, member)
    check(len({members[key]["pid"] for key in wanted}) == len(wanted), "each role is a process of its own")

    for role, index in wanted | {("head", 0)}:
        check(run.log(f"{role}-{index}").strip(), f"the log of {role}-{index} is empty")
    check(run.log("train") is not None and (run.path / "logs/train.log").exists(), "the supervisor's log")
    config = (run.path / "config.yaml").read_text()
    for setting in ("seed: 7", "rms_decay:", "ladder_exponent:", "max_frame_megabytes:", "give_up_seconds:"):
        check_in(setting, config, "the resolved configuration is complete")
    seal, plain = config.split("\n", 1)
    check_in("checksum", seal, "its first line")
    check(place.call("config", "show", run.path / "config.yaml").expect(0, 1).out == plain, "it reads back as itself")


def test_metrics_are_lines_of_json_with_stable_names(place):
    train = place.train(sets=[*ENDLESS, "stop.wall_seconds=6"]).expect(0, 40)
    raw = (train.run.path / "metrics.jsonl").read_text()
    check(raw.endswith("\n"), "the last line is complete")
    lines = [json.loads(line) for line in raw.splitlines()]
    check(len(lines) >= 10, "lines in 6 s at 4 a second:", len(lines))
    for line in lines:
        check(EVERY_LINE <= set(line), "missing in a line:", EVERY_LINE - set(line))
        check(all(isinstance(value, (int, float)) for value in line.values()), "a value is no number:", line)
    seen = set().union(*lines)
    check(WHILE_TRAINING <= seen, "never seen:", WHILE_TRAINING - seen)
    documented = (CONFIGS.parent / "docs/metrics.md").read_text()
    missing = [name for name in seen if f"`{name}`" not in documented]
    check(not missing, "not in docs/metrics.md:", sorted(missing))
    for key in ("time", "env_steps", "updates", "episodes"):
        values = [line[key] for line in lines]
        check(values == sorted(values), key, "falls:", values)


def test_tensorboard_files_hold_the_metrics(place):
    train = place.train(sets=[*ENDLESS, "stop.wall_seconds=3"]).expect(0, 40)
    files = list(train.run.path.glob("events.out.tfevents.*"))
    check(len(files) == 1, "event files", files)
    records = list(event_records(files[0]))
    check_in(b"brain.Event:2", records[0], "the first record")
    check(any(b"episode_return_mean" in record for record in records), "returns are there")
    check(len(records) > len(train.run.metrics()), "a record for each metric of each line:", len(records))


def test_a_run_that_failed_says_so_in_its_summary(place):
    train = place.train(sets=ENDLESS)
    train.until_training()
    os.kill(place.role("learner"), signal.SIGKILL)
    train.expect(1, 20)
    summary = train.run.summary()
    check("failure: " in summary["stop_cause"], "stop_cause", summary["stop_cause"])
    check("evaluation" not in summary, "there is no final evaluation of a failed run")
    check(train.run.status()["updates"] > 0, "counters are kept")


def test_the_evaluation_can_be_repeated(place):
    train = place.train(sets=["stop.updates=200", "evaluation.final_episodes=20"]).expect(0, 40)
    mean = train.run.summary()["evaluation"]["mean"]
    again = place.call("evaluate", train.run.path).expect(0, 5)
    check_in(f"mean {mean:.2f}", again.out, "the same weights and seeds give the same mean")
    last = place.call("evaluate", train.run.path, "--last", "--episodes", 3).expect(0, 5)
    check_in("over 3 episodes (last, update 200 weights)", last.out, "what --last says")


def test_a_long_evaluation_says_how_far_it_is_and_ends_in_time(place):
    # Episodes of up to a million steps, which no one sees the end of.
    train = place.train(sets=["env.id=witness", "env.options=dtype=f32,longest=1000000", "stop.updates=10",
                              "stop.at_target_score=false", "evaluation.max_steps=1000000000",
                              "evaluation.final_max_seconds=4", "actors.count=1"]).expect(0, 60)
    check_in(" of 100 episodes, ", train.err, "its progress")
    check_in(" | left ", train.err, "its progress")
    check_in("ended after 4 s (evaluation.final_max_seconds)", train.err, "its end")
    evaluation = train.run.summary()["evaluation"]
    check(evaluation["cut"] >= 1 and evaluation["not_begun"] >= 1, "what was cut is counted:", evaluation)
    check(evaluation["episodes"] + evaluation["not_begun"] == 100, "the episodes in all:", evaluation)
    begin = time.monotonic()
    again = place.call("evaluate", train.run.path, "--set", "evaluation.final_max_seconds=0.5").expect(0, 15)
    check("evaluating" not in again.err, "a short one says nothing:", again.err)
    check_in("ended after 0.5 s", again.err, "its end")
    check(time.monotonic() - begin < 10, "it is over after", time.monotonic() - begin)


def test_a_resumed_run_of_a_finished_one_evaluates_again(place):
    place.train(sets=["stop.updates=100", "evaluation.final_episodes=5"]).expect(0, 40)
    again = place.train("--resume").expect(0, 10)
    check(again.run.summary()["updates"] == 100, "updates", again.run.summary()["updates"])
    check(again.run.summary()["stop_cause"] == "updates", "stop_cause", again.run.summary()["stop_cause"])
    check(again.run.summary()["evaluation"]["episodes"] == 5, "episodes")


def test_two_runs_at_once_do_not_clash(place):
    both = [place.train(name=name, sets=[*ENDLESS, "stop.wall_seconds=4"]) for name in ("one", "two")]
    for train in both:
        train.until_training()
    for train in both:
        train.expect(0, 40)
    for train in both:
        summary = train.run.summary()
        check(summary["restarts"] == 0 and summary["metrics"]["refused_messages"] == 0 if "refused_messages" in
              summary["metrics"] else True, "undisturbed")
        check(sum(p["role"] == "actor" for p in summary["processes"]) == 2, "only its own actors joined")


def test_nothing_lies_in_dev_shm(place):
    train = place.train(sets=ENDLESS)
    train.until_training()
    for pid, command in place.living().items():
        with open(f"/proc/{pid}/maps") as maps:
            check("/dev/shm" not in maps.read(), "mapped by", command)
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            except OSError:
                continue
            check(not target.startswith("/dev/shm"), "opened by", command)
    os.kill(train.pid, signal.SIGTERM)
    train.expect(85, 20)


def test_a_long_temporary_directory_and_spaces_are_no_trouble(place):
    deep = place.path / ("temporary " + "x" * 90) / ("y" * 90)
    deep.mkdir(parents=True)
    runs = place.path / "runs with spaces" / "and ümlauts"
    train = place.train(runs=runs, sets=["stop.wall_seconds=2"], TMPDIR=str(deep)).expect(0, 40)
    check(train.run.summary()["updates"] > 0, "it trained")
    check(not list(deep.iterdir()), "nothing is left in the temporary directory")


def test_the_sockets_directory_is_gone_afterwards(place):
    temporary = place.path / "tmp"
    temporary.mkdir()
    train = place.train(sets=ENDLESS, TMPDIR=str(temporary))
    train.until_training()
    train.signal_group(signal.SIGINT)
    train.expect(130, 20)
    check(not list(temporary.iterdir()), "left:", list(temporary.iterdir()))


def test_what_processes_and_environments_print_is_bounded(place):
    train = place.train(sets=[*ENDLESS, "control.max_log_bytes=100000"])
    train.until_training()
    out, kept = (train.run.path / "logs" / name for name in ("actor-0.out", "actor-0.out.1"))
    with open(out, "ab") as chatty:  # as an environment would, through the actor's standard output
        for _ in range(3):
            chatty.write(b"x" * 150_000)
            chatty.flush()
            until(lambda: out.stat().st_size < 1000, 5, "the file is cut")
    check_in("150", out.read_text(), "what was cut is said")
    check(kept.stat().st_size == 100_000, "the newest part is kept:", kept.stat().st_size)
    train.signal_group(signal.SIGTERM)
    train.expect(85, 20)


def test_a_run_ends_at_its_env_steps_a_chunk_a_slot_further_at_most(place):
    slots, chunk = 32, 16
    # Only from 4,000 steps on does training hold the actors back: what is near the end must.
    train = place.train(sets=["stop.env_steps=5000", "stop.at_target_score=false", "stop.wall_seconds=60", "actors.count=2",
                              f"actors.slots={slots // 2}", f"actors.chunk_steps={chunk}", "replay.min_size=4000",
                              "evaluation.final_episodes=10"])
    train.expect(0, 40)
    summary = train.run.summary()
    check(summary["stop_cause"] == "env_steps", "stop_cause", summary["stop_cause"])
    check(5000 <= summary["env_steps"] <= 5000 + slots * chunk, "env_steps", summary["env_steps"])
    check("not everything" not in train.run.log("actor-0"), "the actor waited in vain:\n" + train.run.log("actor-0"))
