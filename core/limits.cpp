#include "core/limits.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/files.h"

namespace qanat {
namespace {

rlimit descriptors_before{};  // written once, before there are threads
bool raised = false;

rlimit limit_of(__rlimit_resource which) {
  rlimit limit{};
  getrlimit(which, &limit);
  return limit;
}

rlimit raise(__rlimit_resource which) {
  const auto before = limit_of(which);
  const rlimit wanted{before.rlim_max, before.rlim_max};
  // Where it is not allowed, what there is must do.
  if (before.rlim_cur != before.rlim_max) (void)setrlimit(which, &wanted);
  return before;
}

std::string in_words(rlim_t limit) { return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit); }

// Threads that wait until all are there; they hardly need a stack.
void* wait_for_gate(void* gate) {
  const std::lock_guard wait(*static_cast<std::mutex*>(gate));
  return nullptr;
}

}  // namespace

void raise_limits() {
  descriptors_before = raise(RLIMIT_NOFILE);
  raised = true;
  raise(RLIMIT_NPROC);
}

void restore_descriptor_limit() {
  if (raised) (void)setrlimit(RLIMIT_NOFILE, &descriptors_before);
}

std::uint64_t descriptor_limit() { return limit_of(RLIMIT_NOFILE).rlim_cur; }

std::uint64_t descriptor_reserve(std::uint64_t limit) { return std::clamp<std::uint64_t>(limit / 8, 16, 128); }

void require_descriptors(std::uint64_t wanted, std::string_view whose) {
  std::vector<FileDescriptor> tried;
  tried.reserve(wanted);
  int why = 0;
  while (why == 0 && tried.size() < wanted) {
    FileDescriptor one(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (one) {
      tried.push_back(std::move(one));
    } else if (errno != EINTR) {
      why = errno;
    }
  }
  if (why == 0) return;
  const auto seen = tried.size();
  tried.clear();
  const auto limit = limit_of(RLIMIT_NOFILE);
  throw ConfigError(text("descriptors: saw ", seen, " free, wanted ", wanted, " for ", whose, " (", std::strerror(why),
                         "; ulimit -n: soft ", in_words(limit.rlim_cur), ", hard ", in_words(limit.rlim_max),
                         "); raise it to ", limit.rlim_cur - seen + wanted, " or more"));
}

void require_threads(std::uint64_t wanted, std::string_view whose) {
  std::mutex gate;
  std::vector<pthread_t> tried;
  tried.reserve(wanted);
  int why = 0;
  {
    const std::lock_guard closed(gate);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, std::size_t{64} << 10);
    while (why == 0 && tried.size() < wanted) {
      pthread_t one{};
      why = pthread_create(&one, &attributes, wait_for_gate, &gate);
      if (why == 0) tried.push_back(one);
    }
    pthread_attr_destroy(&attributes);
  }
  for (const auto one : tried) pthread_join(one, nullptr);
  if (why == 0) return;
  throw ConfigError(text("processes and threads: saw ", tried.size(), " more to be had, wanted ", wanted, " for ",
                         whose, " (", std::strerror(why), "; ulimit -u: ", in_words(limit_of(RLIMIT_NPROC).rlim_cur),
                         " for all of this user's together; a container or cgroup may set pids.max); raise that by ",
                         wanted - tried.size(), " or more"));
}

}  // namespace qanat
