#include "core/metrics.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/bytes.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using Catch::Matchers::Contains;
using qanat::test::TemporaryDirectory;

namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

std::vector<nlohmann::json> rows_of(const std::filesystem::path& path) {
  std::istringstream in(read_text_file(path));
  std::vector<nlohmann::json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

std::vector<std::string> event_files(const TemporaryDirectory& dir) {
  std::vector<std::string> names;
  for (const auto& name : list_directory(dir.path())) {
    if (name.starts_with("events.out.tfevents.")) names.push_back(name);
  }
  return names;
}

// The records of an event file, both checksums of each checked.
std::vector<std::vector<std::byte>> records_of(const std::filesystem::path& path) {
  const auto unmasked = [](std::uint32_t masked) { return std::rotl(masked - 0xa282ead8U, 15); };
  const auto file = read_file(path);
  ByteReader in(file, path.string());
  std::vector<std::vector<std::byte>> records;
  while (in.remaining() > 0) {
    const auto length_bytes = std::span(file).subspan(in.position(), 8);
    const auto length = in.get<std::uint64_t>("length");
    CHECK(unmasked(in.get<std::uint32_t>("length crc")) == crc32c(length_bytes));
    const auto data = in.get_raw("data", length);
    CHECK(unmasked(in.get<std::uint32_t>("data crc")) == crc32c(data));
    records.emplace_back(data.begin(), data.end());
  }
  return records;
}

std::vector<std::byte> bytes_in(std::string_view words) {
  const auto bytes = bytes_of(words);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("crc32c: the values of RFC 3720, appendix B.4") {
  std::vector<std::byte> bytes(32, std::byte{0});
  CHECK(crc32c(bytes) == 0x8a9136aaU);
  std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
  CHECK(crc32c(bytes) == 0x62a8ab43U);
  for (std::size_t i = 0; i < 32; ++i) bytes[i] = static_cast<std::byte>(i);
  CHECK(crc32c(bytes) == 0x46dd794eU);
  for (std::size_t i = 0; i < 32; ++i) bytes[i] = static_cast<std::byte>(31 - i);
  CHECK(crc32c(bytes) == 0x113fdb5cU);
  CHECK(crc32c(bytes_of("123456789")) == 0xe3069283U);
  CHECK(crc32c({}) == 0);
}

TEST_CASE("metrics: a row is a line of JSON, in the order given, null for what is not finite") {
  const TemporaryDirectory dir;
  MetricsWriter metrics(dir.path(), MetricsStart{});
  metrics.write({1.5, 100, 3, {{"loss", 0.25}, {"policy_lag_updates", nan_value}, {"q", -INFINITY}}});
  CHECK(read_text_file(dir / "metrics.jsonl") ==
        "{\"time\":1.5,\"env_steps\":100,\"updates\":3,\"loss\":0.25,\"policy_lag_updates\":null,\"q\":null}\n");
}

TEST_CASE("metrics: a resumed run appends, and a line torn by a kill is cut off first") {
  const TemporaryDirectory dir;
  { MetricsWriter(dir.path(), MetricsStart{}).write({1, 100, 1, {{"loss", 1}}}); }
  write_file_atomically(dir / "metrics.jsonl",
                        read_text_file(dir / "metrics.jsonl") + R"({"time": 2, "env_st)" + std::string(10'000, 'x'));
  { MetricsWriter(dir.path(), MetricsStart{1, 100, 1}).write({3, 300, 3, {{"loss", 3}}}); }
  const auto rows = rows_of(dir / "metrics.jsonl");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["env_steps"] == 100);
  CHECK(rows[1]["env_steps"] == 300);
  CHECK(event_files(dir).size() == 2);
}

TEST_CASE("metrics: what came after the checkpoint that a run goes on from is moved away") {
  const TemporaryDirectory dir;
  constexpr int lines = 3000;  // more than are read at once
  {
    MetricsWriter metrics(dir.path(), MetricsStart{});
    for (int i = 1; i <= lines; ++i) metrics.write({i * 1.0, i * 100, i, {{"loss", i * 0.5}}});
  }
  const auto whole = read_text_file(dir / "metrics.jsonl");
  const auto seen = [&](const char* name) {
    std::vector<std::int64_t> steps;
    for (const auto& row : rows_of(dir / name)) steps.push_back(row["env_steps"]);
    return steps;
  };
  SECTION("nothing came after it") {
    MetricsWriter(dir.path(), MetricsStart{lines + 0.5, lines * 100, lines});
    CHECK(read_text_file(dir / "metrics.jsonl") == whole);
    CHECK(!std::filesystem::exists(dir / "metrics.undone.jsonl"));
  }
  SECTION("nothing is said to be undone") {
    MetricsWriter(dir.path(), std::nullopt);
    CHECK(read_text_file(dir / "metrics.jsonl") == whole);
    CHECK(records_of(dir / event_files(dir).back()).size() == 1);
  }
  SECTION("by any of the three") {
    const auto start = GENERATE(MetricsStart{2990, 1'000'000, 1'000'000}, MetricsStart{1e9, 299'000, 1'000'000},
                                MetricsStart{1e9, 1'000'000, 2990});
    MetricsWriter(dir.path(), start).write({2991, 299'050, 2991, {}});
    CHECK(seen("metrics.jsonl").size() == 2991);
    CHECK(seen("metrics.jsonl").back() == 299'050);
    CHECK(seen("metrics.undone.jsonl").size() == 10);
    CHECK(seen("metrics.undone.jsonl").front() == 299'100);
  }
  SECTION("most of it") {
    MetricsWriter(dir.path(), MetricsStart{3, 300, 3});
    CHECK(seen("metrics.jsonl") == std::vector<std::int64_t>{100, 200, 300});
    CHECK(read_text_file(dir / "metrics.jsonl") + read_text_file(dir / "metrics.undone.jsonl") == whole);
  }
  SECTION("all of it, and a second time") {
    MetricsWriter(dir.path(), MetricsStart{}).write({1, 100, 1, {}});
    MetricsWriter(dir.path(), MetricsStart{}).write({1, 100, 1, {}});
    CHECK(seen("metrics.jsonl").size() == 1);
    CHECK(seen("metrics.undone.jsonl").size() == lines + 1);
  }
  SECTION("with a line that is damaged among it") {
    auto damaged = whole;
    damaged.replace(damaged.rfind("\"env_steps\":299900"), 5, "?????");
    write_file_atomically(dir / "metrics.jsonl", damaged);
    MetricsWriter(dir.path(), MetricsStart{2990, 299'000, 2990});
    CHECK(seen("metrics.jsonl").size() == 2990);
  }
}

TEST_CASE("metrics: a file that is one torn line becomes empty, a whole one is kept") {
  const TemporaryDirectory dir;
  write_file_atomically(dir / "torn", std::string(9000, 'x'));
  AppendFile(dir / "torn", AppendFile::Mode::append_lines).append(bytes_of("a\n"));
  CHECK(read_text_file(dir / "torn") == "a\n");
  AppendFile(dir / "torn", AppendFile::Mode::append_lines).append(bytes_of("b\n"));
  CHECK(read_text_file(dir / "torn") == "a\nb\n");
}

TEST_CASE("metrics: names that are not UTF-8 do not stop a run") {
  const TemporaryDirectory dir;
  MetricsWriter metrics(dir.path(), MetricsStart{});
  metrics.write({0, 0, 0, {{"\xffname", 1}}});
  CHECK(rows_of(dir / "metrics.jsonl").at(0)["?name"] == 1.0);
}

TEST_CASE("metrics: a directory that is not there is an error that names it") {
  const TemporaryDirectory dir;
  CHECK_THROWS_WITH(MetricsWriter(dir / "absent", MetricsStart{}), Contains("/absent/metrics.jsonl"));
}

TEST_CASE("tensorboard: the bytes are the protocol buffers worked out by hand") {
  const TemporaryDirectory dir;
  EventFile events(dir.path(), 5);
  events.add(300, std::vector<Metric>{{"ab", 1.0}, {"c", -2.0}});
  const auto records = records_of(events.path());
  REQUIRE(records.size() == 3);
  // Field 1, double: the time, 9 bytes; then field 3, text of 13 characters.
  REQUIRE(records[0].size() == 9 + 2 + 13);
  CHECK(records[0][0] == std::byte{0x09});
  CHECK(std::vector(records[0].begin() + 9, records[0].end()) == bytes_in("\x1a\x0d"
                                                                          "brain.Event:2"));
  // Field 2, varint 5; field 7, two bytes of SessionLog: field 1, varint START = 1.
  REQUIRE(records[1].size() == 9 + 6);
  CHECK(std::vector(records[1].begin() + 9, records[1].end()) == bytes_in(std::string("\x10\x05\x3a\x02\x08\x01", 6)));
  // Field 2, varint 300 = 0xac 0x02; field 5, 21 bytes of summary: two values of field 1.
  REQUIRE(records[2].size() > 9);
  const std::string wanted = std::string("\x10\xac\x02\x2a\x15", 5) +
                             std::string(
                                 "\x0a\x09\x0a\x02"
                                 "ab\x15\x00\x00\x80\x3f",
                                 11) +
                             std::string(
                                 "\x0a\x08\x0a\x01"
                                 "c\x15\x00\x00\x00\xc0",
                                 10);
  CHECK(std::vector(records[2].begin() + 9, records[2].end()) == bytes_in(wanted));
}

TEST_CASE("tensorboard: files begun in one second are told apart, and sort in the order of their beginning") {
  const TemporaryDirectory dir;
  std::vector<std::string> begun;
  for (int i = 0; i < 3; ++i) begun.push_back(EventFile(dir.path(), 0).path().filename().string());
  CHECK(event_files(dir) == begun);
}

TEST_CASE("tensorboard: the tensorboard package reads back every scalar, over a resume") {
  const char* python = std::getenv("QANAT_TEST_PYTHON");
  if (python == nullptr) {
    WARN("skipped: QANAT_TEST_PYTHON names no Python with the tensorboard package");
    return;
  }
  const TemporaryDirectory dir;
  constexpr std::int64_t far = 1'000'000'000'000;
  {
    MetricsWriter metrics(dir.path(), MetricsStart{});
    metrics.write({1, 0, 0, {{"train/loss", 0.5}, {"mean_return", -1.25}}});
    metrics.write({2, far, 5, {{"train/loss", 0.1}}});  // the checkpoint's moment
    metrics.write({3, far + 500, 8, {{"train/loss", 7}, {"mean_return", 7}}});
    metrics.write({4, far + 900, 9, {{"train/loss", 8}}});
  }
  MetricsWriter(dir.path(), MetricsStart{2.5, far, 5}).write({3, far + 1, 6, {{"mean_return", 1e30}}});

  const auto script = std::filesystem::path(QANAT_CORE_TEST_DIR) / "read_events.py";
  const std::string command = text("'", python, "' '", script.string(), "' '", dir.path().string(), "' 2>/dev/null");
  FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  char block[4096];
  while (const std::size_t got = std::fread(block, 1, sizeof block, pipe)) output.append(block, got);
  REQUIRE(::pclose(pipe) == 0);
  const auto wanted = nlohmann::json::array({
      {"mean_return", 0, -1.25},
      {"mean_return", far + 1, static_cast<double>(1e30F)},
      {"train/loss", 0, 0.5},
      {"train/loss", far, static_cast<double>(0.1F)},
  });
  CHECK(nlohmann::json::parse(output) == wanted);
}
