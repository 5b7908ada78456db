#include "core/limits.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "core/error.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"

using namespace qanat;
using Catch::Matchers::Contains;

namespace {

// Limits are a process's own and cannot be raised again, so each case has a process: its last words, or nothing.
std::string in_a_process(const std::function<std::string()>& what) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const auto child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const auto said = what();
    [[maybe_unused]] const auto put = write(ends[1], said.data(), said.size());
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char some[512];
  for (ssize_t got = 0; (got = read(ends[0], some, sizeof some)) > 0;) said.append(some, static_cast<std::size_t>(got));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return said;
}

void limit_descriptors(rlim_t soft, rlim_t hard) {
  const rlimit limit{soft, hard};
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

TEST_CASE("limits: the soft limit of descriptors rises to the hard one, and a child of ours gets the old one back") {
  CHECK(in_a_process([] {
          limit_descriptors(100, 200);
          raise_limits();
          const auto with = descriptor_limit();
          restore_descriptor_limit();
          return text(with, ' ', descriptor_limit());
        }) == "200 100");
}

TEST_CASE("limits: too few descriptors are an error with both numbers and the limit that is wanted") {
  const auto said = in_a_process([] {
    limit_descriptors(60, 60);
    const auto enough = message_of([] { require_descriptors(20, "a head"); });
    return enough + "; " + message_of([] { require_descriptors(100, "a learner"); });
  });
  CHECK_THAT(said, Contains("nothing was thrown; ") && Contains("free, wanted 100 for a learner") &&
                       Contains("soft 60, hard 60") && Contains("raise it to 1"));
}

TEST_CASE("limits: too few threads are an error with both numbers") {
  const auto said = in_a_process([] {
    if (geteuid() == 0 && setuid(54'321) != 0) return std::string("cannot become another user");  // root has no limit
    const rlimit few{5, 5};
    setrlimit(RLIMIT_NPROC, &few);
    return message_of([] { require_threads(20, "a learner"); });
  });
  CHECK_THAT(said, Contains("more to be had, wanted 20 for a learner") && Contains("ulimit -u: 5"));
  CHECK(message_of([] { require_threads(20, "a learner"); }) == "nothing was thrown");
}
