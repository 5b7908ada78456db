"""The check of rooms, checked: planted violations are found, what is allowed is not reported."""

import tempfile
import unittest
from pathlib import Path

import rooms


def violations(files):
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return list(rooms.check(root))


class Rooms(unittest.TestCase):
    def refused(self, file, header):
        found = violations({file: f"// x\n#include {header}\n"})
        self.assertEqual(len(found), 1, f"{file} includes {header}")
        self.assertTrue(found[0].startswith(f"{file}:2: "), found[0])

    def allowed(self, file, header):
        self.assertEqual(violations({file: f"#include {header}\n"}), [])

    def test_a_room_never_includes_a_room_above_itself(self):
        for file, header in [
            ("core/a.h", '"wire/socket.h"'), ("core/a.h", '"qanat/env.h"'), ("include/qanat/env.hpp", '"core/rng.h"'),
            ("wire/a.cpp", '"control/head.h"'), ("envs/a.cpp", '"wire/frame.h"'), ("nn/a.cpp", '"envs/abi.h"'),
            ("control/a.cpp", '"replay/schema.h"'), ("learner/a.cpp", '"cli/train.h"'),
        ]:
            self.refused(file, header)

    def test_actors_learner_and_shards_do_not_know_each_other(self):
        for file, header in [
            ("actors/a.cpp", '"learner/agent.h"'), ("actors/a.cpp", '"replay/server.h"'),
            ("actors/a.cpp", '"replay/client.h"'), ("learner/a.cpp", '"actors/actor.h"'),
            ("learner/a.cpp", '"envs/registry.h"'), ("learner/a.cpp", '"replay/server.h"'),
            ("learner/a.cpp", '"replay/shard.h"'), ("replay/server.cpp", '"actors/actor.h"'),
        ]:
            self.refused(file, header)
        self.allowed("actors/a.cpp", '"replay/schema.h"')
        self.allowed("learner/a.cpp", '"replay/client.h"')
        self.allowed("cli/a.cpp", '"replay/server.h"')

    def test_replay_has_a_core_without_the_wire(self):
        self.refused("replay/shard.cpp", '"wire/frame.h"')
        self.refused("replay/shard.cpp", '"replay/client.h"')
        self.allowed("replay/server.cpp", '"wire/frame.h"')
        self.allowed("replay/server.cpp", '"replay/shard.h"')

    def test_backends_are_named_by_their_factory_alone(self):
        self.refused("nn/engine.h", '"nn/cpu/kernels.h"')
        self.refused("learner/a.cpp", '"nn/cpu/fast.h"')
        self.allowed("nn/backend.cpp", '"nn/cpu/backends.h"')

    def test_cuda_stays_in_its_shared_object(self):
        self.refused("nn/backend.cpp", '"nn/cuda/ops.h"')
        self.refused("nn/cuda_loader.cpp", "<cuda_runtime.h>")
        self.refused("learner/a.cpp", "<cudnn.h>")
        self.allowed("nn/cuda/a.cu", '"nn/cuda/ops.h"')
        self.allowed("nn/cuda/a.cu", "<cuda_bf16.h>")

    def test_each_library_has_its_place(self):
        for file, header in [
            ("wire/socket.h", "<zmq.hpp>"), ("control/head.cpp", "<zmq.h>"), ("core/config.h", "<yaml-cpp/yaml.h>"),
            ("cli/a.cpp", "<yaml-cpp/yaml.h>"), ("wire/messages.h", "<cereal/cereal.hpp>"),
            ("control/a.cpp", "<nlohmann/json.hpp>"), ("wire/a.cpp", "<hwy/highway.h>"), ("cli/a.h", "<CLI/CLI.hpp>"),
        ]:
            self.refused(file, header)
        self.allowed("wire/socket.cpp", "<zmq.hpp>")
        self.allowed("core/config_tree.cpp", "<yaml-cpp/yaml.h>")

    def test_long_files_and_native_code_are_reported(self):
        self.assertEqual(violations({"core/a.cpp": "\n" * 800}), [])
        self.assertEqual(len(violations({"core/a.cpp": "\n" * 801})), 1)
        self.assertEqual(len(violations({"nn/CMakeLists.txt": "add_compile_options(-march=native)"})), 1)


if __name__ == "__main__":
    unittest.main()
