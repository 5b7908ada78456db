// Logs that grow without end stay within their bound, and say what went.
#include "cli/bounded_logs.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "core/error.h"
#include "core/files.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::cli;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using qanat::test::TemporaryDirectory;

namespace {

constexpr std::uint64_t most = 1000;

FileDescriptor appending(const std::filesystem::path& path) {
  return FileDescriptor(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
}

void put(const FileDescriptor& file, const std::string& text) {
  REQUIRE(write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

}  // namespace

TEST_CASE("bounded logs: a file that its writer holds open is cut to nothing and goes on, its newest part beside it") {
  const TemporaryDirectory dir;
  BoundedLogs logs(dir.path(), most);
  const auto file = appending(dir.path() / "actor-0.out");
  put(file, std::string(3000, 'a') + std::string(900, 'b') + "last");
  logs.look(Nanoseconds(0));
  put(file, "after\n");
  const auto now = read_text_file(dir.path() / "actor-0.out");
  CHECK(now ==
        "[3904 bytes were cut here (control.max_log_bytes is 1000); 1000 of them are in actor-0.out.1]\nafter\n");
  CHECK(read_text_file(dir.path() / "actor-0.out.1") == std::string(96, 'a') + std::string(900, 'b') + "last");
}

TEST_CASE(
    "bounded logs: however much is written, no more than twice the bound and what came in a quarter of a second stay") {
  const TemporaryDirectory dir;
  BoundedLogs logs(dir.path(), most);
  const auto file = appending(dir.path() / "train.log");
  std::uint64_t largest = 0;
  for (int quarter = 0; quarter < 100; ++quarter) {
    put(file, std::string(700, 'x') + "\n");
    logs.look(Milliseconds(250) * quarter);
    std::uint64_t all = 0;
    for (const auto& name : list_directory(dir.path())) all += std::filesystem::file_size(dir.path() / name);
    largest = std::max(largest, all);
  }
  CHECK(largest < 2 * most + 800);
  CHECK(list_directory(dir.path()) == std::vector<std::string>{"train.log", "train.log.1"});
}

TEST_CASE("bounded logs: small files, other files and what comes between two looks are left alone") {
  const TemporaryDirectory dir;
  BoundedLogs logs(dir.path(), most);
  write_file_atomically(dir.path() / "small.log", std::string(1000, 's'));
  write_file_atomically(dir.path() / "metrics.jsonl", std::string(5000, 'm'));
  logs.look(Nanoseconds(0));
  const auto file = appending(dir.path() / "late.out");
  put(file, std::string(5000, 'l'));
  logs.look(Milliseconds(249));
  CHECK(std::filesystem::file_size(dir.path() / "small.log") == 1000);
  CHECK(std::filesystem::file_size(dir.path() / "metrics.jsonl") == 5000);
  CHECK(std::filesystem::file_size(dir.path() / "late.out") == 5000);
  logs.look(Milliseconds(250));
  CHECK(std::filesystem::file_size(dir.path() / "late.out") < 200);
}

TEST_CASE(
    "bounded logs: a newest part that cannot be kept is lost with a word, and the hole of a writer that does not "
    "append is no size") {
  const TemporaryDirectory dir;
  BoundedLogs logs(dir.path(), 100'000);
  make_directories(dir.path() / "actor-0.out.1");  // where nothing can be written
  const FileDescriptor file(open((dir.path() / "actor-0.out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  put(file, std::string(200'000, 'a'));
  logs.look(Nanoseconds(0));
  CHECK_THAT(
      read_text_file(dir.path() / "actor-0.out"),
      StartsWith("[200000 bytes were cut here") && Contains("none of them are kept (cannot open: Is a directory)"));
  put(file, std::string(10, 'b'));
  logs.look(Milliseconds(1000));
  CHECK(std::filesystem::file_size(dir.path() / "actor-0.out") == 200'010);
}
