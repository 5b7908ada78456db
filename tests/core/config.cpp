#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/config_reader.h"
#include "core/config_scalar.h"
#include "core/config_writer.h"
#include "core/error.h"
#include "core/files.h"
#include "core/rng.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using Catch::Matchers::Contains;
using Catch::Matchers::Equals;

namespace {

struct Replay {
  std::int64_t capacity_steps = 1'000'000;
  double alpha = 0.6;
  double horizon = std::numeric_limits<double>::infinity();
  void describe(ConfigVisitor& v) {
    v.field("capacity_steps", capacity_steps, "Steps kept over all shards.", {.low = 1});
    v.field("alpha", alpha, "Priority exponent; 0 is uniform.", {.low = 0, .high = 1});
    v.field("horizon", horizon, "Steps | or none.");
  }
  friend bool operator==(const Replay&, const Replay&) = default;
};

struct Layer {
  std::string type = "linear";
  std::int64_t units = 64;
  void describe(ConfigVisitor& v) {
    v.field("type", type, "What it does.", {"linear", "conv2d", "relu"});
    v.field("units", units, "Outputs.", {.low = 1, .high = 65536});
  }
  friend bool operator==(const Layer&, const Layer&) = default;
};

struct Run {
  std::string name = "run";
  bool lockstep = false;
  std::int64_t seed = 0;
  Replay replay;
  std::vector<Layer> layers{{"conv2d", 16}, {"linear", 128}};
  std::vector<std::int64_t> hidden{256, 256};
  std::vector<double> weights{0.5};
  std::vector<std::string> tags;
  void describe(ConfigVisitor& v) {
    v.field("name", name, "The run's name.");
    v.field("lockstep", lockstep, "One thread.");
    v.field("seed", seed, "Seed of everything.");
    v.section("replay", replay, "The replay.");
    v.list("layers", layers, "The network.");
    v.field("hidden", hidden, "Widths.", {.low = 1});
    v.field("weights", weights, "Some reals.", {.low = 0, .high = 1});
    v.field("tags", tags, "Some words.");
  }
  friend bool operator==(const Run&, const Run&) = default;
};

Run read(std::string_view yaml, const std::vector<std::string>& overrides = {}) {
  ConfigTree tree(yaml, "run.yaml");
  for (const auto& o : overrides) tree.set(o);
  Run run;
  read_config(tree, run);
  return run;
}

// What the user is told; empty when the text is accepted.
std::string complaint(std::string_view yaml, const std::vector<std::string>& overrides = {}) {
  try {
    read(yaml, overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("config: an empty file and empty sections leave every default") {
  CHECK(read("") == Run{});
  CHECK(read("# only a comment\n") == Run{});
  CHECK(read("replay:\n  # alpha: 1\nname: run\n") == Run{});
}

TEST_CASE("config: every kind of field is read") {
  const Run run = read(R"(
name: "a: b"
lockstep: true
seed: -3
replay: {capacity_steps: 100_000, alpha: 1e-1, horizon: -.inf}
layers:
  - {type: relu}
  - units: 7
hidden: [1e2, 2]
weights: [0, 1, .5]
tags: [no, 010, "", ~x]
)");
  CHECK(run.name == "a: b");
  CHECK(run.lockstep);
  CHECK(run.seed == -3);
  CHECK(run.replay == Replay{100'000, 0.1, -std::numeric_limits<double>::infinity()});
  CHECK(run.layers == std::vector<Layer>{{"relu", 64}, {"linear", 7}});  // from Layer{}, not from the default list
  CHECK(run.hidden == std::vector<std::int64_t>{100, 2});
  CHECK(run.weights == std::vector<double>{0, 1, 0.5});
  CHECK(run.tags == std::vector<std::string>{"no", "010", "", "~x"});
}

TEST_CASE("config: an unknown key is refused with file, line and the nearest key") {
  CHECK_THAT(complaint("seed: 1\nreplay:\n  capasity: 5\n"),
             Equals("run.yaml:3: key 'replay.capasity' is unknown; did you mean 'replay.capacity_steps'?"));
  CHECK_THAT(complaint("sede: 1\n"), Equals("run.yaml:1: key 'sede' is unknown; did you mean 'seed'?"));
  CHECK_THAT(complaint("\n\nhiden: [1]\n"), Equals("run.yaml:3: key 'hiden' is unknown; did you mean 'hidden'?"));
  // The right key in the wrong section.
  CHECK_THAT(complaint("alpha: 0.5\n"), Equals("run.yaml:1: key 'alpha' is unknown; did you mean 'replay.alpha'?"));
  CHECK_THAT(complaint("replay:\n  zzzzzzzz: 1\n"),
             Equals("run.yaml:2: key 'replay.zzzzzzzz' is unknown; there are: capacity_steps, alpha, horizon"));
  CHECK_THAT(complaint("layers:\n- units: 3\n- unit: 3\n"),
             Equals("run.yaml:3: key 'layers.1.unit' is unknown; did you mean 'layers.1.units'?"));
}

TEST_CASE("config: all problems are told at once, in the order of the file, overrides last") {
  CHECK_THAT(complaint("tags: 3\nseed: x\nreplay:\n  alpha: 2\n  bogus_key_here: 1\n", {"name=[]"}),
             Equals("run.yaml:1: key 'tags' is a single value, wanted a sequence, such as [a, b] or []\n"
                    "run.yaml:2: key 'seed' is 'x', wanted an integer\n"
                    "run.yaml:4: key 'replay.alpha' is 2, wanted 0 to 1\n"
                    "run.yaml:5: key 'replay.bogus_key_here' is unknown; there are: capacity_steps, alpha, horizon\n"
                    "--set name=[]: key 'name' is a sequence, wanted text (\"\" is the empty one)"));
}

TEST_CASE("config: a value of the wrong type, out of range or not a choice is refused") {
  const std::pair<const char*, const char*> cases[] = {
      {"lockstep: yes", "run.yaml:1: key 'lockstep' is 'yes', wanted true or false"},
      {"lockstep: 1", "key 'lockstep' is '1', wanted true or false"},
      {"lockstep: 'true'", "key 'lockstep' is \"true\", wanted true or false"},
      {"seed: 010", "key 'seed' is '010', wanted an integer without leading zeros"},
      {"seed: 0x10", "key 'seed' is '0x10', wanted an integer"},
      {"seed: 1.5", "key 'seed' is '1.5', wanted an integer"},
      {"seed: '5'", "key 'seed' is \"5\", wanted an integer without quotes"},
      {"seed: 9223372036854775808", "wanted an integer that fits into 64 bits"},
      {"seed:", "key 'seed' has no value, wanted an integer"},
      {"seed: {a: 1}", "key 'seed' is a section of keys, wanted an integer"},
      {"seed: [1]", "key 'seed' is a sequence, wanted an integer"},
      {"name: ~", "key 'name' has no value, wanted text"},
      {"replay: 3", "key 'replay' is a single value, wanted a section of keys"},
      {"replay: {capacity_steps: 0}", "key 'replay.capacity_steps' is 0, wanted at least 1"},
      {"replay: {alpha: .nan}", "key 'replay.alpha' is '.nan', wanted a number"},
      {"replay: {alpha: .inf}", "key 'replay.alpha' is .inf, wanted 0 to 1"},
      {"replay: {alpha: 1e400}", "wanted a number that fits into 64 bits"},
      {"layers: [{type: liner}]",
       "key 'layers.0.type' is 'liner', wanted one of linear, conv2d, relu; did you mean "
       "'linear'?"},
      {"layers: {units: 3}", "key 'layers' is a section of keys, wanted a sequence"},
      {"layers: [3]", "key 'layers.0' is a single value, wanted a section of keys"},
      {"layers: [~]", "key 'layers.0' is empty, wanted a section of keys"},
      {"layers:", "key 'layers' is empty, wanted a sequence"},
      {"hidden: [1, 0]", "key 'hidden.1' is 0, wanted at least 1"},
      {"hidden: [1, [2]]", "key 'hidden.1' is a sequence, wanted an integer"},
      {"- 1", "run.yaml:1: the file is a sequence, wanted a section of keys"},
      {"just words", "run.yaml:1: the file is a single value, wanted a section of keys"},
  };
  for (const auto& [yaml, wanted] : cases) {
    CAPTURE(yaml);
    CHECK_THAT(complaint(yaml), Contains(wanted));
  }
}

TEST_CASE("config: what YAML allows and we do not is refused with file and line") {
  const std::pair<const char*, const char*> cases[] = {
      {"seed: 1\nseed: 2\n", "run.yaml:2: key 'seed' appears twice, first at run.yaml:1"},
      {"replay:\n  alpha: 1\n  alpha: 1\n", "run.yaml:3: key 'replay.alpha' appears twice, first at run.yaml:2"},
      {"layers:\n- units: 1\n- units: 1\n  units: 2\n", "run.yaml:4: key 'layers.1.units' appears twice"},
      {"a: &x 1\nb: *x\n", "run.yaml:1: anchors are not supported"},
      {"seed: !!int 3\n", "run.yaml:1: tags are not supported"},
      {"seed: 1\n---\nseed: 2\n", "a second document begins"},
      {"seed: [1\n", "not YAML"},
      {"seed: 1\n]\n", "run.yaml:2: not YAML"},  // yaml-cpp reads such a bracket for ever when asked for every document
      {"seed: 1\n\tname: x\n", "run.yaml:2: not YAML"},
      {"? [a, b]\n: 1\n", "a key must be plain text"},
      {": 1\n", "a key is missing"},
      {"name: \xff\n", "run.yaml:1: the text is not UTF-8 (byte 255)"},
      {"seed: 1\nname: a\x04z\n", "run.yaml:2: a control character stands in the text (byte 4)"},
  };
  for (const auto& [yaml, wanted] : cases) {
    CAPTURE(yaml);
    CHECK_THAT(complaint(yaml), Contains(wanted));
  }
  CHECK_THAT(complaint(std::string(100'000, '[')), Contains("not YAML"));
}

TEST_CASE("config: overrides replace what the file says, the last one winning") {
  CHECK(read("seed: 1", {"seed=2", "seed=3"}).seed == 3);
  CHECK(read("", {"replay.alpha=0.25"}).replay.alpha == 0.25);
  CHECK(read("replay:", {"replay.alpha=0.25"}).replay.alpha == 0.25);
  CHECK(read("", {"name=tcp://*:5555"}).name == "tcp://*:5555");
  CHECK(read("", {"name=a=b"}).name == "a=b");
  CHECK(read("", {"name=\"\""}).name.empty());
  CHECK(read("", {"hidden=[3, 4]"}).hidden == std::vector<std::int64_t>{3, 4});
  CHECK(read("", {"layers=[{type: relu}]"}).layers == std::vector<Layer>{{"relu", 64}});
}

TEST_CASE("config: an override reaches one entry of a list, of the file's or of the default") {
  CHECK(read("layers: [{units: 1}, {units: 2}]", {"layers.1.units=5"}).layers ==
        std::vector<Layer>{{"linear", 1}, {"linear", 5}});
  CHECK(read("", {"layers.0.units=5"}).layers == std::vector<Layer>{{"conv2d", 5}, {"linear", 128}});
  CHECK(read("", {"hidden.1=5"}).hidden == std::vector<std::int64_t>{256, 5});
  CHECK_THAT(complaint("hidden: [1]", {"hidden.1=5"}), Contains("'hidden' is a list of 1 at run.yaml:1"));
  CHECK_THAT(complaint("", {"layers.2.units=5"}),
             Equals("--set layers.2.units=5: key 'layers.2' is no index into the list, which has 2"));
}

TEST_CASE("config: a wrong override is refused by its own text") {
  CHECK_THAT(complaint("seed: 1", {"sead=2"}), Equals("--set sead=2: key 'sead' is unknown; did you mean 'seed'?"));
  CHECK_THAT(complaint("", {"seed=x"}), Equals("--set seed=x: key 'seed' is 'x', wanted an integer"));
  CHECK_THAT(complaint("", {"seed"}), Contains("--set seed: '=' is missing"));
  CHECK_THAT(complaint("", {"replay..alpha=1"}), Contains("empty part"));
  CHECK_THAT(complaint("", {"=1"}), Contains("empty part"));
  CHECK_THAT(complaint("", {"replay={alpha: 1}"}), Contains("the value is a map"));
  CHECK_THAT(complaint("", {"hidden=[1"}), Contains("--set hidden=[1: not YAML"));
  CHECK_THAT(complaint("seed: 1", {"seed.x=1"}), Contains("'seed' is a single value at run.yaml:1, not a section"));
}

TEST_CASE("config: an error leaves the settings as they were") {
  Run run;
  CHECK_THROWS_AS(read_config_text("seed: 5\nname: other\nbogus: 1\n", "f", run), ConfigError);
  CHECK(run == Run{});
}

TEST_CASE("config: a file is read by its path, and named by it") {
  const test::TemporaryDirectory dir;
  write_file_atomically(dir / "my.yaml", "seed: 4\nnme: x\n");
  Run run;
  CHECK_THROWS_WITH(read_config(ConfigTree::load(dir / "my.yaml"), run), Contains("my.yaml:2: key 'nme'"));
  CHECK_THROWS_AS(ConfigTree::load(dir / "absent.yaml"), SystemError);
}

TEST_CASE("config: thousands of unknown keys are told briefly") {
  std::string yaml;
  for (int i = 0; i < 5000; ++i) yaml += "qqq" + std::to_string(i) + ": 1\n";
  const std::string message = complaint(yaml);
  CHECK(std::count(message.begin(), message.end(), '\n') == 50);
  CHECK_THAT(message, Catch::Matchers::EndsWith("and 4950 more"));
}

TEST_CASE("config: integers are exact or refused") {
  const auto value = [](std::string_view s) { return parse_integer(s).value; };
  const auto fault = [](std::string_view s) { return parse_integer(s).fault; };
  CHECK(value("1e6") == 1'000'000);
  CHECK(value("1_000_000") == 1'000'000);
  CHECK(value("1.5e3") == 1500);
  CHECK(value("2.0") == 2);
  CHECK(value("1200e-2") == 12);
  CHECK(value("-0") == 0);
  CHECK(value("+7") == 7);
  CHECK(value("9223372036854775807") == std::numeric_limits<std::int64_t>::max());
  CHECK(value("-9223372036854775808") == std::numeric_limits<std::int64_t>::min());
  CHECK(value("0e999999999999") == 0);
  CHECK(fault("9223372036854775808") == NumberFault::too_large);
  CHECK(fault("1e19") == NumberFault::too_large);
  CHECK(fault("1e999999999999") == NumberFault::too_large);
  CHECK(fault("1.5") == NumberFault::not_exact);
  CHECK(fault("1e-999999999999") == NumberFault::not_exact);
  CHECK(fault("010") == NumberFault::leading_zero);
  CHECK(fault("-010") == NumberFault::leading_zero);
  for (const char* bad :
       {"", "-", "_1", "1_", "1__0", ".", "e5", "1e", "1e+", "0x1", "1 ", " 1", "one", "--1", "1_e5"}) {
    CAPTURE(bad);
    CHECK(fault(bad) == NumberFault::not_a_number);
  }
}

TEST_CASE("config: reals are written as the shortest text that reads back to the same bits") {
  CHECK(write_real(0.1) == "0.1");
  CHECK(write_real(1) == "1.0");
  CHECK(write_real(1e-5) == "1.0e-05");
  CHECK(write_real(2.5e-7) == "2.5e-07");
  CHECK(write_real(1e300) == "1.0e+300");
  Rng rng(5);
  for (int i = 0; i < 20'000; ++i) {
    const double value = std::bit_cast<double>(rng.next());
    if (std::isnan(value)) continue;
    const auto back = parse_real(write_real(value));
    REQUIRE(back.fault == NumberFault::none);
    REQUIRE(std::bit_cast<std::uint64_t>(back.value) == std::bit_cast<std::uint64_t>(value));
  }
}

TEST_CASE("config: the written configuration reads back equal") {
  CHECK(read(write_config(Run{})) == Run{});
  Run run;
  run.name.clear();
  run.replay.alpha = 0.1 + 0.2;
  run.replay.horizon = -0.0;
  run.layers.clear();
  run.hidden.clear();
  CHECK(read(write_config(run)) == run);

  // Random text, with everything that means something to YAML.
  const std::vector<std::string> pieces{"a",
                                        "Z",
                                        "0",
                                        " ",
                                        ":",
                                        "#",
                                        "-",
                                        "?",
                                        "'",
                                        "\"",
                                        "\\",
                                        "\n",
                                        "\t",
                                        "\r",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        ",",
                                        "&",
                                        "*",
                                        "!",
                                        "|",
                                        ">",
                                        "%",
                                        "@",
                                        "`",
                                        "~",
                                        "=",
                                        "null",
                                        "true",
                                        "no",
                                        "1e5",
                                        "\xc3\xa9",
                                        "\xe2\x80\xa8",
                                        "\xf0\x9f\x90\x8d",
                                        std::string(1, '\0'),
                                        "\x04",
                                        "\x7f",
                                        "\xc2\x85",
                                        "\xef\xbb\xbf",
                                        "...",
                                        "---"};
  Rng rng(11);
  const auto word = [&] {
    std::string out;
    for (std::uint64_t n = rng.below(6); n > 0; --n) out += pieces[rng.below(pieces.size())];
    return out;
  };
  for (int trial = 0; trial < 2000; ++trial) {
    run.name = word();
    run.tags.clear();
    for (std::uint64_t n = rng.below(3); n > 0; --n) run.tags.push_back(word());
    const std::string yaml = write_config(run);
    CAPTURE(yaml);
    REQUIRE(read(yaml) == run);
  }
}

TEST_CASE("config: the written configuration is plain block YAML") {
  Run run;
  run.tags = {"no", "a b"};
  CHECK_THAT(write_config(run), Equals(R"(name: run
lockstep: false
seed: 0
replay:
  capacity_steps: 1000000
  alpha: 0.6
  horizon: .inf
layers:
  - type: conv2d
    units: 16
  - type: linear
    units: 128
hidden: [256, 256]
weights: [0.5]
tags: ["no", "a b"]
)"));
}

TEST_CASE("config: what YAML cannot carry is not written") {
  Run run;
  run.replay.alpha = std::nan("");
  CHECK_THROWS_WITH(write_config(run), Contains("'replay.alpha' is NaN"));
  run.replay.alpha = 1;
  run.name.assign(1, static_cast<char>(0xff));
  CHECK_THROWS_WITH(write_config(run), Contains("'name'") && Contains("not UTF-8"));
}

TEST_CASE("config: the schema has types, defaults, ranges, choices and help") {
  const auto schema = nlohmann::json::parse(config_schema(Run{}, "a run"));
  CHECK(schema["$schema"] == "https://json-schema.org/draft/2020-12/schema");
  CHECK(schema["title"] == "a run");
  CHECK(schema["additionalProperties"] == false);
  const auto& keys = schema["properties"];
  CHECK(keys.size() == 8);
  CHECK(keys["seed"] == nlohmann::json{{"type", "integer"}, {"default", 0}, {"description", "Seed of everything."}});
  const auto& replay = keys["replay"];
  CHECK(replay["additionalProperties"] == false);
  CHECK(replay["properties"]["capacity_steps"]["minimum"] == 1);
  CHECK(!replay["properties"]["capacity_steps"].contains("maximum"));
  CHECK(replay["properties"]["alpha"]["default"] == 0.6);
  CHECK(!replay["properties"]["horizon"].contains("default"));  // JSON has no infinity
  CHECK(keys["layers"]["type"] == "array");
  CHECK(keys["layers"]["default"].size() == 2);
  CHECK(keys["layers"]["items"]["additionalProperties"] == false);
  CHECK(keys["layers"]["items"]["properties"]["type"]["enum"] == nlohmann::json{"linear", "conv2d", "relu"});
  CHECK(keys["hidden"]["items"]["minimum"] == 1);
  CHECK(keys["hidden"]["default"] == nlohmann::json{256, 256});
}

TEST_CASE("config: the reference page has a table a section and a row a key") {
  const std::string page = config_reference(Run{}, "Settings");
  CHECK_THAT(page, Catch::Matchers::StartsWith("# Settings\n"));
  CHECK_THAT(page, Contains("\n## replay\n\nThe replay.\n"));
  CHECK_THAT(page, Contains("| `replay.alpha` | real | `0.6` | 0 to 1 | Priority exponent; 0 is uniform. |\n"));
  CHECK_THAT(page, Contains("| `replay.horizon` | real | `.inf` |  | Steps \\| or none. |\n"));
  CHECK_THAT(page, Contains("| `layers.N.type` | choice | `linear` | `linear`, `conv2d`, `relu` | What it does. |\n"));
  CHECK_THAT(page, Contains("| `hidden` | list of integers | `[256, 256]` | at least 1 | Widths. |\n"));
  // The root's table stands whole before the first section, though "hidden" is described after "replay".
  CHECK(page.find("`hidden`") < page.find("## replay"));
}

TEST_CASE("config: hostile text is accepted or refused with ConfigError, never worse") {
  const std::string good = write_config(Run{}) + "# comment\nextra: {a: [1, \"x\\n\"], b: 'y'}\n";
  const std::string_view specials = "{}[],:-#&*!|>'\"%@`?~\n\t \\<=0aé\x04\xff";
  Rng rng(21);
  int accepted = 0;
  int refused = 0;
  for (int trial = 0; trial < 6000; ++trial) {
    std::string yaml = good.substr(0, rng.chance(0.5) ? good.size() : rng.below(good.size() + 1));
    for (std::uint64_t n = rng.below(4); n > 0 && !yaml.empty(); --n) {
      const std::size_t at = rng.below(yaml.size());
      if (rng.chance(0.3))
        yaml[at] = static_cast<char>(yaml[at] ^ (1 << rng.below(8)));
      else if (rng.chance(0.5))
        yaml.insert(at, 1, specials[rng.below(specials.size())]);
      else
        yaml.erase(at, 1 + rng.below(5));
    }
    CAPTURE(yaml);
    try {
      static_cast<void>(read(yaml));
      ++accepted;
    } catch (const ConfigError& error) {
      ++refused;
      REQUIRE_THAT(error.what(), Catch::Matchers::StartsWith("run.yaml:"));
    }
  }
  CHECK(accepted > 100);  // truncations at a line's end
  CHECK(refused > 3000);  // the rest: the extra key alone makes half of them wrong
}
