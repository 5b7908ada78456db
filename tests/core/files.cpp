#include "core/files.h"

#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "core/error.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using Catch::Matchers::Contains;
using qanat::test::TemporaryDirectory;

TEST_CASE("files: what was written atomically reads back, and replaces what was there") {
  const TemporaryDirectory dir;
  const auto path = dir / "state.bin";
  write_file_atomically(path, "first, and longer");
  write_file_atomically(path, "second");
  CHECK(read_text_file(path) == "second");
  CHECK(read_file(path).size() == 6);
  CHECK(list_directory(dir.path()) == std::vector<std::string>{"state.bin"});
}

TEST_CASE("files: a write that is not committed leaves the old file and nothing else") {
  const TemporaryDirectory dir;
  const auto path = dir / "state.bin";
  write_file_atomically(path, "old");
  {
    AtomicFile file(path);
    file.write(bytes_of("half of the new"));
    CHECK(list_directory(dir.path()).size() == 2);
  }
  CHECK(read_text_file(path) == "old");
  CHECK(list_directory(dir.path()) == std::vector<std::string>{"state.bin"});
}

TEST_CASE("files: a temporary file left by a dead process is in nobody's way") {
  const TemporaryDirectory dir;
  const auto path = dir / "state.bin";
  AtomicFile abandoned(path);
  write_file_atomically(path, "new");
  CHECK(read_text_file(path) == "new");
}

TEST_CASE("files: a file is verified against what was written, however it was cut into pieces") {
  const TemporaryDirectory dir;
  std::vector<std::byte> bytes((std::size_t{5} << 19) + 7);  // two and a half of the pieces in which it is read
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 31 >> 3);
  AtomicFile file(dir / "a");
  file.write(std::span(bytes).first(1000));
  file.write(std::span(bytes).subspan(1000));
  const auto written = file.commit();
  CHECK(written == WrittenFile{"a", bytes.size(), checksum(bytes)});
  CHECK_NOTHROW(verify_file(dir.path(), written));
  for (const std::size_t place : {std::size_t{0}, std::size_t{1} << 20, bytes.size() - 1}) {
    bytes[place] ^= std::byte{1};
    write_file_atomically(dir / "a", bytes);
    CHECK_THROWS_AS(verify_file(dir.path(), written), InputError);
    CHECK_THROWS_WITH(verify_file(dir.path(), written), Contains("/a: checksum mismatch"));
    bytes[place] ^= std::byte{1};
  }
  write_file_atomically(dir / "a", std::span(bytes).first(10));
  CHECK_THROWS_WITH(verify_file(dir.path(), written), Contains(text("/a: saw 10 bytes, wanted the ", bytes.size())));
  CHECK_THROWS_WITH(verify_file(dir.path(), {"b", 0, 0}), Contains("/b is missing"));
}

TEST_CASE("files: errors name the path and the cause") {
  const TemporaryDirectory dir;
  CHECK_THROWS_AS(read_file(dir / "absent"), SystemError);
  CHECK_THROWS_WITH(read_file(dir / "absent"), Contains("/absent'") && Contains("No such file or directory"));
  CHECK_THROWS_WITH(read_file(dir.path()), Contains("Is a directory"));
  CHECK_THROWS_WITH(write_file_atomically(dir / "no" / "file", ""), Contains("/no/file") && Contains("No such file"));
  CHECK_THROWS_WITH(list_directory(dir / "absent"), Contains("/absent'") && Contains("No such file"));
  CHECK_THROWS_WITH(create_directory_exclusively(dir / "a" / "b"), Contains("/a/b'"));
  write_file_atomically(dir / "plain", "x");
  CHECK_THROWS_AS(make_directories(dir / "plain" / "below"), SystemError);
}

TEST_CASE("files: a file over the limit is refused, one of exactly the limit is read") {
  const TemporaryDirectory dir;
  write_file_atomically(dir / "f", "12345");
  CHECK(read_text_file(dir / "f", 5) == "12345");
  CHECK_THROWS_WITH(read_text_file(dir / "f", 4), Contains("larger than 4 bytes"));
}

TEST_CASE("files: files whose size the system reports as 0 are read whole") {
  CHECK(read_text_file("/proc/self/status").find("VmPeak") != std::string::npos);
}

TEST_CASE("files: of many that create one directory, exactly one did") {
  const TemporaryDirectory dir;
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> made{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] { made += create_directory_exclusively(dir / std::to_string(round)) ? 1 : 0; });
    }
    for (auto& thread : threads) thread.join();
    CHECK(made == 1);
  }
}

TEST_CASE("files: a disk that refuses the bytes leaves the old file") {
  const TemporaryDirectory dir;
  write_file_atomically(dir / "f", "old");
  // A file size limit stands in for a full disk; without ignoring SIGXFSZ it would kill the test.
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string message;
  try {
    write_file_atomically(dir / "f", std::string(5000, 'x'));
  } catch (const SystemError& error) {
    message = error.what();
  }
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, old_handler);
  CHECK_THAT(message, Contains("cannot write") && Contains("File too large"));
  CHECK(read_text_file(dir / "f") == "old");
  CHECK(list_directory(dir.path()).size() == 1);
}

TEST_CASE("files: a rename takes no other's name") {
  const TemporaryDirectory dir;
  make_directories(dir / "new" / "inner");
  make_directories(dir / "taken");
  CHECK(!rename_exclusively(dir / "new", dir / "taken"));  // which rename(2) would do, as that one is empty
  CHECK(rename_exclusively(dir / "new", dir / "free"));
  CHECK(list_directory(dir.path()) == std::vector<std::string>{"free", "taken"});
  CHECK_THROWS_AS(rename_exclusively(dir / "new", dir / "other"), SystemError);
}

TEST_CASE("files: one that is replaced without a flush appears whole, or its directory is named") {
  const TemporaryDirectory dir;
  replace_file(dir / "status", "first");
  replace_file(dir / "status", "second");
  CHECK(read_text_file(dir / "status") == "second");
  CHECK(list_directory(dir.path()).size() == 1);
  CHECK_THROWS_WITH(replace_file(dir / "absent" / "status", "x"), Contains("/absent/status"));
}
