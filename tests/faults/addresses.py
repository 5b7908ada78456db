"""Where a run listens: numbers of both kinds, names, and what is refused before anything is made."""

import re
import signal
import socket

from support import CONFIGS, check, check_in, until


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
        return True
    except OSError:
        return False


def test_a_run_listens_at_a_name_and_at_ipv6_and_others_join_it(place):
    for host in ["localhost", *(["::1", "[::]"] if has_ipv6() else [])]:
        train = place.train(name="at-" + re.sub(r"\W", "", host), sets=[f"control.bind_host='{host}'", "stop.wall_seconds=60",
                                                                        "stop.at_target_score=false", "actors.count=1"])
        train.until_training()
        address = re.search(r"--connect (\S+)", train.err).group(1)
        check(address.startswith("tcp://127.0.0.1:" if host == "localhost" else "tcp://[::"), "address", address, "for", host)
        port = address.rsplit(":", 1)[1]
        by = f"tcp://localhost:{port}" if host == "localhost" else f"tcp://[::1]:{port}"
        actor = place.start("actor", "--connect", by)
        until(lambda: "joined as actor" in actor.err or actor.ended(), 10, f"an actor joins at {by}")
        until(lambda: "acts in" in actor.err or actor.ended(), 10, f"it has weights:\n{actor.err}")
        check(not actor.ended(), "the actor ended:", actor.err)
        train.signal_group(signal.SIGTERM)
        train.expect(85, 20)
        actor.expect(0, 10)


def test_places_where_nobody_can_listen_are_refused_before_anything_is_made(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for sets, words in ((["control.bind_host='1::2::3'"], "wanted an IPv4 or IPv6 address or a name"),
                            (["control.bind_host=''"], "wanted an IPv4 or IPv6 address or a name"),
                            (["control.bind_host=192.0.2.1"], "wanted an address of this machine"),
                            ([f"control.port={port}"], "a port that nobody uses")):
            train = place.train(sets=sets).expect(2, 20)
            for word in ("control.bind_host", words):
                check_in(word, train.err, f"refusal of {sets}")
            check(not place.runs.exists(), "a runs directory was made for", sets)
        mine = place.path / "mine.yaml"
        mine.write_text((CONFIGS / "catch.yaml").read_text() + f"control:\n  port: {port}\n")
        head = place.call("head", "--config", mine, "--run-dir", place.path / "run").expect(2, 10)
        check_in("a port that nobody uses", head.err, "the head's refusal")
        check(not (place.path / "run").exists(), "the head made a run directory")


def test_a_head_without_a_host_is_refused(place):
    for address in ("tcp://1::2::3:5555", "tcp://:5555"):
        check_in(f"--connect {address}", place.call("actor", "--connect", address).expect(2, 10).err, "the refusal")
