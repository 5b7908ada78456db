"""Lockstep runs repeat bit for bit, also over a stop and a resumption."""

import re

from support import check, check_in

# A hundred and sixty updates are enough for several target updates, weight versions, evictions and wraps of the replay.
SMALL = ["replay.capacity_steps=2000", "replay.min_size=200", "learner.target_update_every=50", "learner.publish_every=10",
         "learner.batch=16", "network.hidden=[32]", "actors.slots=4", "actors.chunk_steps=8", "evaluation.final_episodes=2",
         "replay.ratio=1"]
HALF, FULL = 80, 160


def hash_of(place, config, name, updates, *arguments, seed=5, sets=()):
    again = "--resume" in arguments
    seeds = [] if again else ["--seed", seed]
    train = place.train("--lockstep", *seeds, *arguments, config=config, name=name,
                        sets=[*SMALL, f"checkpoint.every_updates={HALF}", f"stop.updates={updates}", *sets])
    train.expect(0, 60)
    found = re.search(r"lockstep: (\d+) updates, weights ([0-9a-f]{16})", train.out)
    check(found, "the hash is printed:\n" + train.out)
    check(int(found.group(1)) == updates, "updates", found.group(1))
    check(train.run.summary()["updates"] == updates, "updates in the summary", train.run.summary()["updates"])
    return found.group(2)


def check_repeats(place, config, sets=()):
    straight = hash_of(place, config, "straight", FULL, sets=sets)
    again = hash_of(place, config, "again", FULL, sets=sets)
    check(straight == again, "two runs of one seed:", straight, again)
    other = hash_of(place, config, "other", FULL, seed=6, sets=sets)
    check(other != straight, "another seed gives the same weights", other)
    half = hash_of(place, config, "halves", HALF, sets=sets)
    check(half != straight, "half the updates give the same weights", half)
    resumed = hash_of(place, config, "halves", FULL, "--resume", sets=sets)
    check(resumed == straight, "resumed at half:", resumed, "straight:", straight)


def test_catch_repeats_and_resumes_exactly(place):
    check_repeats(place, "catch.yaml")


def test_cartpole_repeats_and_resumes_exactly(place):
    check_repeats(place, "cartpole.yaml")


def test_uniform_replay_and_linear_exploration_repeat_and_resume_exactly(place):
    check_repeats(place, "cartpole.yaml", ["replay.selector=uniform", "actors.exploration.kind=linear",
                                           "actors.exploration.linear_steps=3000"])


def test_a_lockstep_run_goes_on_from_its_own_checkpoints_only(place):
    hash_of(place, "catch.yaml", "run", HALF)
    train = place.train("--lockstep", "--resume", sets=[f"stop.updates={HALF}"]).expect(2, 10)
    check_in(f"at update {HALF}", train.err, "the refusal of a run that is over")
    place.train("--resume", sets=[f"stop.updates={FULL}"]).expect(0, 30)
    train = place.train("--lockstep", "--resume", sets=[f"stop.updates={2 * FULL}"]).expect(2, 10)
    check_in("not of a lockstep run", train.err, "the refusal")


def test_a_lockstep_run_needs_its_one_stop_condition(place):
    train = place.train("--lockstep").expect(2, 10)
    check("stop.updates" in train.err, train.err)
    check(not train.run.path.exists(), "no directory was made")
