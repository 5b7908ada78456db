#include "control/head_saver.h"

#include <utility>

#include "core/error.h"
#include "core/files.h"

namespace qanat::control {
namespace {

namespace fs = std::filesystem;

// A run has one learner, and that one save at a time.
constexpr std::size_t most_under_way = 8;

void write(const fs::path& run_dir, std::span<const std::byte> state, const std::optional<wire::SaveReply>& last,
           wire::SaveReply& reply) {
  const fs::path directory = reply.directory;
  const auto within = directory.lexically_normal().lexically_relative(run_dir.lexically_normal());
  std::error_code unknown;
  if (within.empty() || *within.begin() == "..") {
    reply.error = text(reply.directory, " is not within the run's directory, ", run_dir.string());
  } else if (last && last->directory == reply.directory && last->error.empty() &&
             fs::exists(directory / "head.bin", unknown)) {
    reply = *last;
  } else if (fs::exists(directory / "manifest.json", unknown)) {
    reply.error = text(reply.directory, " is complete: nothing is written into it any more");
  } else {
    try {
      reply.files = {write_file_atomically(directory / "head.bin", state)};
    } catch (const SystemError& error) {
      reply.error = error.what();
    }
  }
}

}  // namespace

HeadSaver::HeadSaver(fs::path run_dir) : run_dir_(std::move(run_dir)) {}

void HeadSaver::save(const std::string& peer, const std::string& directory, std::vector<std::byte> state) {
  for (auto& save : under_way_) {
    if (save.reply->directory != directory) continue;
    save.peer = peer;
    return;
  }
  auto reply = std::make_shared<wire::SaveReply>();
  reply->directory = directory;
  if (under_way_.size() >= most_under_way) {
    reply->error = text(under_way_.size(), " others are being written, wanted at most ", most_under_way);
    return refused_.push_back({peer, *reply});
  }
  try {
    if (!disk_) disk_.emplace("head's part", 0);
  } catch (const SystemError& error) {
    reply->error = error.what();
    return refused_.push_back({peer, *reply});
  }
  under_way_.push_back({peer, reply});
  disk_->give(
      [run_dir = run_dir_, state = std::move(state), last = last_, reply] { write(run_dir, state, last, *reply); });
}

std::vector<HeadSaver::Answer> HeadSaver::take() {
  auto out = std::exchange(refused_, {});
  if (under_way_.empty() || !disk_->idle()) return out;
  for (auto& save : under_way_) {
    last_ = *save.reply;
    out.push_back({save.peer, std::move(*save.reply)});
  }
  under_way_.clear();
  return out;
}

}  // namespace qanat::control
