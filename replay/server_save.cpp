// ShardServer: its part of a checkpoint.
#include "core/bytes.h"
#include "core/error.h"
#include "core/files.h"
#include "replay/server.h"

namespace qanat::replay {
namespace {

namespace fs = std::filesystem;

// Rows copied and not yet written: about what the disk may fall behind before inserts wait for it.
constexpr std::uint64_t most_waiting_bytes = 64 << 20;
// Copied at a time, between two rounds of serving.
constexpr std::uint64_t copied_bytes = 1;  // a block
// Of the time in which others are served, copying takes one part in so many.
constexpr int copying_share = 20;

}  // namespace

ShardServer::Save::Save(std::string asked_by, std::string into)
    : peer(std::move(asked_by)), directory(std::move(into)), disk("checkpoint", most_waiting_bytes) {}

// A checkpoint goes into the run's directory, whoever asks: nobody writes elsewhere by our hand.
bool ShardServer::within_run(const fs::path& directory) const {
  const auto run_dir = fs::path(member_.welcome().run_dir).lexically_normal();
  const auto within = directory.lexically_normal().lexically_relative(run_dir);
  return !within.empty() && *within.begin() != "..";
}

fs::path ShardServer::part(const fs::path& directory) const {
  return directory / text("shard-", member_.welcome().index, ".bin");
}

// The part holds what was applied before this message, so it is begun now or refused: one that waited for another to
// end would hold priorities that came later.
void ShardServer::serve_save(const wire::Incoming& message) {
  const auto request = wire::decode<wire::SaveRequest>(message);
  if (request.epoch != member_.epoch()) throw InputError(text("a checkpoint of epoch ", request.epoch));
  const auto refuse = [&](const std::string& why) {
    answer(message.peer, wire::encode(wire::SaveReply{request.directory, why, {}}));
    throw InputError(text("a checkpoint into ", request.directory, ": ", why));
  };
  if (!within_run(request.directory)) refuse("it is not within the run's directory");
  if (save_ && save_->directory == request.directory) {  // asked again: it will be answered
    save_->peer = message.peer;
    return;
  }
  // The answer was lost: what a checkpoint may already list is not written once more.
  std::error_code unknown;
  if (saved_ && saved_->directory == request.directory && fs::exists(part(request.directory), unknown))
    return answer(message.peer, wire::encode(*saved_));
  if (fs::exists(fs::path(request.directory) / "manifest.json", unknown)) refuse("it is complete");
  if (save_) refuse(text("the one into ", save_->directory, " is still being written; ask again when it is done"));
  try {
    begin_save(message.peer, request.directory);
  } catch (const SystemError& error) {
    save_.reset();
    refuse(error.what());
  }
}

void ShardServer::begin_save(const std::string& peer, const std::string& directory) {
  save_.emplace(peer, directory);
  ByteWriter state;
  state.put(rng_.state());
  save_->disk.give([written = save_->random_numbers.get(), directory = fs::path(directory),
                    name = text("shard-", member_.welcome().index, ".rng"), bytes = state.take()] {
    make_directories(directory);
    *written = write_file_atomically(directory / name, bytes);
  });
  shard_->begin_snapshot(part(directory), save_->disk);
}

std::vector<WrittenFile> ShardServer::save(const fs::path& directory) {
  begin_save({}, directory.string());
  std::optional<WrittenFile> snapshot;
  while (!(snapshot = shard_->snapshot_some(most_waiting_bytes))) save_->disk.finish();
  std::vector<WrittenFile> files = {*save_->random_numbers, *snapshot};
  save_.reset();
  return files;
}

bool ShardServer::continue_save(bool served) {
  if (!save_) return false;
  const auto now = clock_.now();
  const bool copies = !shard_->snapshot_copied() && (!served || now >= save_->copy_again);
  try {
    const auto snapshot = shard_->snapshot_some(copies ? copied_bytes : 0);
    if (snapshot) end_save({}, {*save_->random_numbers, *snapshot});
  } catch (const Error& error) {
    end_save(error.what(), {});
  }
  if (save_ && copies) save_->copy_again = now + copying_share * (clock_.now() - now);
  return copies;
}

void ShardServer::end_save(const std::string& error, std::vector<WrittenFile> files) {
  if (!error.empty()) log_.warn("this shard's part of a checkpoint failed: ", error);
  wire::SaveReply reply{save_->directory, error, std::move(files)};
  answer(save_->peer, wire::encode(reply));
  if (error.empty()) saved_ = std::move(reply);
  save_.reset();
}

}  // namespace qanat::replay
