"""Damaged checkpoints: resuming takes the newest whole one, says what is wrong with others, deletes none for them."""

import json
import shutil

import lockstep
from support import Run, check, check_in

SHORT = ["checkpoint.every_updates=40", "evaluation.final_episodes=2"]


def flip(file):
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 4
    file.write_bytes(whole)


def cut(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:len(whole) * 2 // 3])


def damaged(run):
    return sorted(path.name for path in (run.path / "checkpoints").glob("damaged-*"))


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(place):
    place.train(name="first", sets=[*SHORT, "stop.updates=120"]).expect(0, 30)
    for name, damage in (("learner.bin", cut), ("weights.bin", flip), ("head.bin", flip), ("shard-0.bin", flip),
                         ("shard-1.bin", cut), ("shard-1.rng", flip), ("manifest.json", flip)):
        run = Run(place.runs / name)
        shutil.copytree(place.runs / "first", run.path)
        older, newest = run.checkpoints()[-2:]
        damage(newest / name)
        again = place.train("--resume", name=name, sets=[*SHORT, "stop.updates=160", "checkpoint.every_updates=1000"])
        again.expect(0, 30)
        check(again.err.count("qanat: warning: ") == 1, "one warning:", again.err)
        for words in (str(newest / name), f"older checkpoint {older}", f"damaged-{newest.name}"):
            check_in(words, again.err, "the warning")
            check_in(words, again.run.log("train"), "the log")
        check_in(f"resumed from {older}", again.run.log("learner-0"), "the learner's log")
        check_in("restored ", again.run.log("replay-0"), "the shard's log")
        check(damaged(run) == [f"damaged-{newest.name}"], "set aside:", damaged(run))
        # Two are kept: the one that it went on from, and the last.
        kept = run.checkpoints()
        check(len(kept) == 2 and kept[0] == older, "kept:", kept)
        check(run.summary()["updates"] == 160, "updates", run.summary()["updates"])
        quiet = place.train("--resume", name=name, sets=["stop.updates=160"]).expect(0, 30)
        check("qanat: warning: " not in quiet.err, "whole checkpoints are no reason to warn:", quiet.err)


def test_lockstep_repeats_what_it_lost_with_a_damaged_checkpoint_exactly(place):
    lockstep.hash_of(place, "catch.yaml", "run", lockstep.HALF)
    full = lockstep.hash_of(place, "catch.yaml", "run", lockstep.FULL, "--resume")
    older, newest = Run(place.runs / "run").checkpoints()
    flip(newest / "actor-0.bin")
    again = lockstep.hash_of(place, "catch.yaml", "run", lockstep.FULL, "--resume")
    check(again == full, "gone on from", older.name, "after damage to", newest.name, "gives", again, "wanted", full)
    check_in(str(newest / "actor-0.bin"), Run(place.runs / "run").log("lockstep"), "the log")


def test_a_run_of_damaged_checkpoints_alone_is_refused_with_each(place):
    run = place.train(sets=[*SHORT, "stop.updates=120"]).expect(0, 30).run
    first, second = run.checkpoints()
    flip(first / "head.bin")
    cut(second / "learner.bin")
    again = place.train("--resume", sets=["stop.updates=160"]).expect(1, 10)
    for words in (str(first / "head.bin"), str(second / "learner.bin"), "checksum mismatch", "bytes, wanted"):
        check_in(words, again.err, "the refusal")
    check(run.checkpoints() == [first, second] and not damaged(run), "all is where it was")
    check(run.path.joinpath("epoch").read_text() == "1\n", "the run was not started")


def test_the_best_weights_stay_when_the_run_goes_on_from_before_them(place):
    run = place.train(sets=[*SHORT, "stop.updates=1500", "evaluation.every_seconds=0"]).expect(0, 30).run
    flip(run.checkpoints()[-1] / "learner.bin")
    best = run.path / "checkpoints/best"
    record = json.loads((best / "best.json").read_text())
    (best / "best.json").write_text(json.dumps({**record, "mean": 1e6}))  # better than whatever is played from here on
    weights = (best / "weights.bin").read_bytes()
    check(record["updates"] > 0, "what has not learned anything is nobody's best")
    again = place.train("--resume", sets=[*SHORT, "stop.updates=3000", "evaluation.every_seconds=0"]).expect(0, 30)
    check(any("evaluation of update" in line for line in again.run.log("learner-0").splitlines()), "evaluations came")
    check(json.loads((best / "best.json").read_text())["mean"] == 1e6, "the record of the best stayed")
    check((best / "weights.bin").read_bytes() == weights, "its weights stayed")


def test_a_damaged_file_of_an_older_versions_checkpoint_is_named_by_who_reads_it(place):
    run = place.train(sets=["stop.updates=10"]).expect(0, 30).run
    newest = run.checkpoints()[-1]
    manifest = json.loads((newest / "manifest.json").read_text())  # those of the first format listed no files
    first = {name: value for name, value in manifest.items() if name not in ("files", "checksum")}
    (newest / "manifest.json").write_text(json.dumps({**first, "format": 1}))
    for name in ("head.bin", "learner.bin"):
        whole = (newest / name).read_bytes()
        cut(newest / name)
        again = place.train("--resume", sets=["stop.updates=20"])
        check(again.wait(10) in (1, 2), "exit code", again.process.returncode)
        check_in(name, again.err, "the refusal")
        place.check_nobody_left()
        (newest / name).write_bytes(whole)
    place.train("--resume", sets=["stop.updates=20"]).expect(0, 30)


def test_a_damaged_checkpoint_that_was_named_is_refused(place):
    run = place.train(sets=[*SHORT, "stop.updates=120"]).expect(0, 30).run
    newest = run.checkpoints()[-1]
    flip(newest / "weights.bin")
    cut(newest / "shard-0.bin")
    begun = place.train("--init-from", newest, name="other", sets=["stop.updates=20"]).expect(2, 10)
    check_in(str(newest / "weights.bin"), begun.err, "the refusal")
    head = place.call("head", "--run-dir", run.path, "--resume-from", newest).expect(1, 10)
    check_in(str(newest), head.err, "the refusal")
    check(not damaged(run), "all is where it was")
