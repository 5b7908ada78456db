"""What a user gets wrong is refused with the way out: exit code 2, before any process and before any directory."""

import os
import pathlib

from support import CONFIGS, Run, check, check_in, settings, until


def check_refused(place, *words, sets=(), arguments=(), config="catch.yaml", **environment):
    train = place.train(*arguments, config=config, sets=sets, **environment).expect(2, 10)
    for word in words:
        check_in(word, train.err, f"refusal of {sets or arguments or config}")
    check(train.err.startswith("qanat: "), "it says who speaks:", train.err)
    check(not train.run.path.exists(), "a run directory was made")
    check(not place.runs.exists(), "a runs directory was made")
    return train


def written(place, text, name="mine.yaml"):
    path = place.path / name
    path.write_text(text)
    return path


def test_a_misspelt_key_is_refused_with_its_place_and_the_nearest(place):
    config = written(place, "name: x\nenv:\n  id: catch\nlearner:\n  bach: 32\n")
    check_refused(place, f"{config}:5", "bach", "batch", config=config)
    config = written(place, "replya:\n  ratio: 2\n")
    check_refused(place, f"{config}:1", "replya", "replay", config=config)
    check_refused(place, "lerner", "learner", sets=["lerner.batch=3"])


def test_a_gpu_that_cannot_be_used_is_refused_with_the_reason(place):
    check_refused(place, "learner.device cuda:0 cannot be used", "/nowhere/libqanat_cuda.so: no such file",
                  sets=["learner.device=cuda:0"], QANAT_CUDA_LIBRARY="/nowhere/libqanat_cuda.so")


def test_every_problem_is_named_at_once(place):
    config = written(place, "env:\n  id: catch\nlearner:\n  bach: 32\n  prefetch: many\nactors:\n  slots: 7\n")
    check_refused(place, ":4", ":5", "bach", "prefetch", config=config)


def test_wrong_types_and_ranges_are_refused(place):
    config = written(place, "learner:\n  batch: thirty\n")
    check_refused(place, f"{config}:2", "batch", "thirty", config=config)
    config = written(place, "agent:\n  gamma: 1.5\n")
    check_refused(place, f"{config}:2", "gamma", "1.5", config=config)
    config = written(place, "learner: 5\n")
    check_refused(place, f"{config}:1", "learner", config=config)
    config = written(place, "learner:\n  batch: [1, 2]\n")
    check_refused(place, f"{config}:2", "batch", config=config)
    config = written(place, "replay:\n  selector: prioritized\n")
    check_refused(place, f"{config}:2", "prioritised", config=config)
    for wrong in ("learner.batch=0", "learner.batch=-1", "learner.batch=1.5", "learner.batch=", "learner.batch=1e99",
                  "agent.gamma=nan", "replay.ratio=inf", "stop.at_target_score=perhaps", "network.hidden=64",
                  "control.port=65536", "replay.capacity_steps=9223372036854775808"):
        check_refused(place, wrong.split("=")[0].split(".")[1], sets=[wrong])


def test_bad_assignments_are_refused(place):
    for wrong in ("learner.batch", "=3", "learner..batch=3", "learner.batch.size=3", "a b=3", ""):
        check_refused(place, sets=[wrong])


def test_settings_that_do_not_go_together_are_refused_with_the_sum(place):
    check_refused(place, "actors.slots", "7", "even", sets=["actors.slots=7"])
    # 32 * 2 + 4 * 16 * 2 * 8 = 1088
    check_refused(place, "ratio_window_steps", "1087", "32 * 2", "4 * 16 * 2 * 8", "1088",
                  sets=["replay.ratio_window_steps=1087"])
    check_refused(place, "min_size", sets=["replay.min_size=50000"])
    check_refused(place, "chunk_steps", sets=["actors.chunk_steps=20000", "replay.capacity_steps=20000"])


def test_an_unknown_environment_is_refused_with_the_nearest(place):
    check_refused(place, "CartPole-v1", sets=["env.id=CartPole-v2"])
    check_refused(place, "catch", sets=["env.id=cacth"])


def test_configurations_that_cannot_be_read_are_refused(place):
    check_refused(place, "nowhere.yaml", config=place.path / "nowhere.yaml")
    check_refused(place, str(place.path), config=place.path)
    config = written(place, "env: {id: catch\nlearner: [\n")
    check_refused(place, str(config), config=config)
    config = written(place, "a: &a [*a]\n")
    check_refused(place, str(config), config=config)
    config = written(place, "env:\n  id: catch\nenv:\n  id: catch\n")
    check_refused(place, f"{config}:3", "env", config=config)
    (place.path / "binary.yaml").write_bytes(bytes(range(256)) * 20)
    check_refused(place, "binary.yaml", config=place.path / "binary.yaml")
    config = written(place, "[" * 100_000)
    check_refused(place, str(config), config=config)


def test_an_empty_configuration_is_one_of_defaults(place):
    config = written(place, "")
    shown = place.call("config", "show", config).expect(0, 1)
    check_in("batch: 32", shown.out, "the defaults")


def test_bad_names_are_refused(place):
    for name in ("a/b", "..", ".hidden", "/tmp/x"):
        train = place.start("train", CONFIGS / "catch.yaml", "--runs-dir", place.runs, "--name", name).expect(2, 10)
        check_in("name", train.err, "the refusal")
        check(not place.runs.exists(), "a runs directory was made for", name)


def test_unknown_flags_and_missing_arguments_are_refused(place):
    for arguments in (["train"], ["train", "x.yaml", "--sed", "3"], ["trian", "x.yaml"], [], ["actor"], ["learner"],
                      ["head"], ["evaluate"], ["config"], ["env"], ["train", CONFIGS / "catch.yaml", "--seed", "many"],
                      ["evaluate", place.path / "nowhere"], ["actor", "--connect", "nonsense"],
                      ["head", "--run-dir", place.path / "nowhere"]):
        place.call(*arguments).expect(2, 10)


def test_a_second_run_of_one_name_is_refused_with_both_ways_out(place):
    first = place.train(sets=["stop.wall_seconds=2"])
    until(first.run.path.exists, 10, "the first run's directory")
    second = place.train().expect(2, 10)
    for words in (str(first.run.path), "--resume", "--name"):
        check_in(words, second.err, "the refusal")
    first.expect(0, 30)
    place.train().expect(2, 10)


def test_resuming_a_run_that_still_goes_on_is_refused(place):
    first = place.train(sets=["stop.wall_seconds=4", "stop.at_target_score=false"])
    first.until_training()
    second = place.train("--resume").expect(2, 10)
    check_in("still", second.err, "the refusal")
    first.expect(0, 30)
    check(first.run.summary()["restarts"] == 0, "the first run was not disturbed")


def test_resuming_what_is_not_there_is_refused(place):
    check_refused(place, "nothing to resume", "--resume", arguments=["--resume"])


def test_weights_of_another_network_are_refused_by_tensor(place):
    place.train(name="small", sets=["stop.updates=10", "network.hidden=[16]"]).expect(0, 30)
    weights = Run(place.runs / "small").checkpoints()[-1]
    other = place.train("--init-from", weights, name="large", sets=["network.hidden=[24]"]).expect(2, 10)
    for words in ("weights.bin", "saw [16,", "wanted [24,"):
        check_in(words, other.err, "the refusal")
    check(not other.run.path.exists(), "a run directory was made")
    missing = place.train("--init-from", place.path / "nothing", name="large").expect(2, 10)
    check_in("nothing", missing.err, "the refusal")
    check(not missing.run.path.exists(), "a run directory was made")
    broken = place.path / "broken.bin"
    broken.write_bytes((weights / "weights.bin").read_bytes()[:-9] + b"x" * 9)
    place.train("--init-from", broken, name="large", sets=["network.hidden=[16]"]).expect(2, 10)
    same = place.train("--init-from", weights, name="same", sets=["stop.updates=10", "network.hidden=[16]"]).expect(0, 30)
    check_in("weights from " + str(weights), same.run.log("learner-0"), "the learner's log")


def test_flags_of_a_new_run_are_refused_when_resuming(place):
    train = place.train(sets=["stop.updates=10"]).expect(0, 30)
    other = train.run.summary()["seed"] + 1
    check_in("--seed", place.train("--resume", "--seed", other).expect(2, 10).err, "the refusal")
    weights = train.run.checkpoints()[-1]
    check_in("--init-from", place.train("--resume", "--init-from", weights).expect(2, 10).err, "the refusal")


def test_resuming_with_another_network_is_refused(place):
    place.train(sets=["stop.updates=10", "network.hidden=[16]"]).expect(0, 30)
    other = place.train("--resume", sets=["network.hidden=[24]", "stop.updates=20"])
    other.expect(2, 10)
    check_in("wanted [24,", other.err, "the refusal")
    place.train("--resume", sets=["stop.updates=20"]).expect(0, 30)


def test_resuming_with_a_replay_of_another_form_is_refused(place):
    place.train(sets=["stop.updates=10"]).expect(0, 30)
    for changed, was in (("replay.shards=3", 2), ("replay.capacity_steps=5000", 50000), ("agent.n_step=5", 3)):
        other = place.train("--resume", sets=[changed, "stop.updates=20"]).expect(2, 10)
        check_in(changed.split("=")[0] + ": saw " + changed.split("=")[1] + f", wanted {was}", other.err, "the refusal")
    place.train("--resume", sets=["stop.updates=20"]).expect(0, 30)


def test_more_memory_than_there_is_is_refused_with_the_sum(place):
    train = check_refused(place, "replay.capacity_steps = 4000000000", "available", "processes of",
                          sets=["replay.capacity_steps=4_000_000_000"])
    check_in("needs about", train.err, "the refusal")
    check_refused(place, "capacity", sets=["replay.capacity_steps=1_000_000_000_000"])


def cgroup_with(limit_bytes):
    """A cgroup within our own with that limit, or None where none can be made."""
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = "/sys/fs/cgroup" if controllers == "" else "/sys/fs/cgroup/memory"
        limit = "memory.max" if controllers == "" else "memory.limit_in_bytes"
        group = pathlib.Path(root + path) / f"qanat-faults-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / limit).exists():  # not, where the controller is not handed down
            (group / limit).write_text(str(limit_bytes))
            return group
        group.rmdir()
    return None


def test_a_limit_of_the_cgroup_counts(place):
    group = cgroup_with(300 << 20)
    if not group:
        return  # tests/core/memory.cpp reads limits from a directory of its own
    try:
        # The shell moves itself into the group, and then becomes the program.
        (place.path / "in_group").write_text(f"#!/bin/sh\necho $$ > {group}/cgroup.procs && exec {place.program} \"$@\"\n")
        (place.path / "in_group").chmod(0o755)
        place.program = str(place.path / "in_group")
        check_refused(place, "cgroup", "available", sets=["replay.capacity_steps=50_000_000"])
    finally:
        place.check_nobody_left(5)
        group.rmdir()
