#include "cli/new_run.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "cli/config_seal.h"
#include "core/config_writer.h"
#include "core/error.h"
#include "core/files.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

std::string prefix_of(const fs::path& path) { return text('.', path.filename().string(), ".new."); }

bool lives(std::string_view pid) {
  pid_t number = 0;
  const auto [end, wrong] = std::from_chars(pid.data(), pid.data() + pid.size(), number);
  return wrong != std::errc{} || end != pid.data() + pid.size() || number <= 0 || kill(number, 0) == 0 ||
         errno != ESRCH;
}

// What processes that were killed meanwhile left.
void remove_unfinished(const fs::path& path) {
  const auto prefix = prefix_of(path);
  for (const auto& name : list_directory(path.parent_path())) {
    std::error_code ignored;  // it is in nobody's way
    if (name.starts_with(prefix) && !lives(std::string_view(name).substr(prefix.size())))
      fs::remove_all(path.parent_path() / name, ignored);
  }
}

// Gone again, unless it got its name.
class Unfinished {
 public:
  explicit Unfinished(const fs::path& run) : run_(run), path_(run.parent_path() / text(prefix_of(run), getpid())) {
    make_directories(path_);
  }
  ~Unfinished() {
    std::error_code ignored;
    if (!finished_) fs::remove_all(path_, ignored);
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

  [[nodiscard]] const fs::path& path() const { return path_; }
  [[nodiscard]] bool finish() {
    sync_directory(path_);
    finished_ = rename_exclusively(path_, run_);
    if (finished_) sync_directory(run_.parent_path());
    return finished_;
  }

 private:
  fs::path run_;
  fs::path path_;
  bool finished_ = false;
};

[[noreturn]] void refuse(const fs::path& path, const std::string& way_out) {
  if (fs::exists(path / "config.yaml"))
    throw ConfigError(text("there is a run in ", path.string(), " already; ", way_out));
  throw ConfigError(text(path.string(),
                         " is there already, but no run: it has no config.yaml. Remove it if it was left by "
                         "a start that was killed, or choose another name"));
}

}  // namespace

void write_run_config(const fs::path& directory, const RunConfig& config) {
  write_file_atomically(directory / "config.yaml", seal_config(write_config(config)));
}

void write_epoch(const fs::path& directory, std::uint64_t epoch) {
  write_file_atomically(directory / "epoch", text(epoch, '\n'));
}

void make_run(const fs::path& path, const RunConfig& config, const std::string& way_out,
              const std::function<void(const fs::path&)>& prepare) {
  const auto run = fs::absolute(path).lexically_normal();
  if (fs::exists(fs::symlink_status(run))) refuse(path, way_out);
  try {
    make_directories(run.parent_path());
    remove_unfinished(run);
    Unfinished made(run);
    make_directories(made.path() / "logs");
    make_directories(made.path() / "checkpoints");
    write_epoch(made.path(), 1);
    write_run_config(made.path(), config);
    if (prepare) prepare(made.path());
    if (!made.finish()) refuse(path, way_out);
  } catch (const SystemError& error) {
    throw ConfigError(text(error.what(), "; wanted a place where a run's directory can be made (--runs-dir)"));
  }
}

}  // namespace qanat::cli
