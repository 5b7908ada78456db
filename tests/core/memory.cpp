#include "core/memory.h"

#include "core/error.h"
#include "core/files.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using Catch::Matchers::Contains;
using qanat::test::TemporaryDirectory;

namespace {

// A machine of files: 8 GB available, and what a test adds.
class Machine {
 public:
  Machine() { put("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n"); }
  void put(const std::string& path, const std::string& content) {
    make_directories((dir_ / path).parent_path());
    write_file_atomically(dir_ / path, content);
  }
  void put_v2(const std::string& group, const std::string& limit, const std::string& usage, const std::string& stat) {
    put("sys/fs/cgroup" + group + "/memory.max", limit + "\n");
    put("sys/fs/cgroup" + group + "/memory.current", usage + "\n");
    put("sys/fs/cgroup" + group + "/memory.stat", stat);
  }
  void mount_v2(const std::string& own, const std::string& mounted = "/") {
    put("proc/self/cgroup", "0::" + own + "\n");
    put("proc/self/mountinfo", "22 1 0:2 / /proc rw - proc proc rw\n30 22 0:26 " + mounted +
                                   " /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup rw,nsdelegate\n");
  }
  [[nodiscard]] AvailableMemory available() const { return available_memory(dir_.path()); }

 private:
  TemporaryDirectory dir_;
};

constexpr std::uint64_t machine_bytes = 8'000'000ULL * 1024;

}  // namespace

TEST_CASE("memory: without a cgroup limit it is what the machine has available") {
  Machine machine;
  CHECK(machine.available().bytes == machine_bytes);
  CHECK(machine.available().bound_by == "the machine");
  machine.mount_v2("/user");
  machine.put_v2("/user", "max", "1000", "inactive_file 0\n");
  CHECK(machine.available().bytes == machine_bytes);
}

TEST_CASE("memory: a v2 limit less its usage, page cache not counted as used") {
  Machine machine;
  machine.mount_v2("/job");
  machine.put_v2("/job", "1000000", "300000", "anon 1\ninactive_file 100000\nactive_file 7\n");
  CHECK(machine.available().bytes == 800'000);
  CHECK(machine.available().bound_by == "the cgroup limit of /sys/fs/cgroup/job");
}

TEST_CASE("memory: the tightest of the groups above counts") {
  Machine machine;
  machine.mount_v2("/slice/job/step");
  machine.put_v2("/slice", "1000000", "600000", "");
  machine.put_v2("/slice/job", "900000", "100000", "");
  machine.put_v2("/slice/job/step", "max", "100000", "");
  CHECK(machine.available().bytes == 400'000);
  CHECK(machine.available().bound_by == "the cgroup limit of /sys/fs/cgroup/slice");
}

TEST_CASE("memory: a container's own group, mounted as the root, is found") {
  Machine machine;
  machine.put_v2("", "500000", "100000", "");
  machine.mount_v2("/docker/abc", "/docker/abc");
  CHECK(machine.available().bytes == 400'000);
  machine.mount_v2("/elsewhere", "/docker/abc");
  CHECK(machine.available().bytes == 400'000);
  machine.mount_v2("/");  // with a cgroup namespace
  CHECK(machine.available().bytes == 400'000);
}

TEST_CASE("memory: v1 limits, among other controllers' mounts") {
  Machine machine;
  machine.put("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/batch/job\n3:cpuset:/other\n0::/\n");
  machine.put("proc/self/mountinfo",
              "32 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
              "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,cpu,memory\n"
              "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n");
  const std::string group = "sys/fs/cgroup/memory/batch/job/";
  machine.put(group + "memory.limit_in_bytes", "2000000\n");
  machine.put(group + "memory.usage_in_bytes", "500000\n");
  machine.put(group + "memory.stat", "inactive_file 3\ntotal_inactive_file 100000\n");
  machine.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");  // v1's "none"
  machine.put("sys/fs/cgroup/memory/memory.usage_in_bytes", "500000\n");
  CHECK(machine.available().bytes == 1'600'000);
}

TEST_CASE("memory: a group over its limit has none left") {
  Machine machine;
  machine.mount_v2("/job");
  machine.put_v2("/job", "1000", "3000", "");
  CHECK(machine.available().bytes == 0);
}

TEST_CASE("memory: nonsense in the cgroup files sets no bound, a machine without MemAvailable is an error") {
  Machine machine;
  machine.put("proc/self/cgroup", "::::\n\nx\n0::");
  machine.put("proc/self/mountinfo", "1\n- - -\n30 22 0:26 / /sys/fs/cgroup rw - cgroup2\n");
  machine.put_v2("", "many", "", "inactive_file x\n");
  CHECK(machine.available().bytes == machine_bytes);
  machine.put("proc/meminfo", "MemTotal: 5 kB\n");
  CHECK_THROWS_WITH(machine.available(), Contains("MemAvailable"));
}

TEST_CASE("memory: this machine has some") { CHECK(available_memory().bytes > 0); }

TEST_CASE("memory: bytes for people") {
  CHECK(human_bytes(0) == "0 B");
  CHECK(human_bytes(1023) == "1023 B");
  CHECK(human_bytes(1024) == "1.0 KiB");
  CHECK(human_bytes(1536ULL << 20) == "1.5 GiB");
  CHECK(human_bytes((1ULL << 30) - 1) == "1.0 GiB");
  CHECK(human_bytes(~0ULL) == "16.0 EiB");
}
