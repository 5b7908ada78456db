// The head's part of a checkpoint on its way to the disk, by a thread that waits for it, so that the head serves
// meanwhile.
//
// Who asks again for what is being written, or is written, has not heard the answer and gets the same one: what a
// checkpoint may already list is not written once more, and nothing is written into a complete one. One owner.
#pragma once

#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/io_thread.h"
#include "wire/messages.h"

namespace qanat::control {

class HeadSaver {
 public:
  explicit HeadSaver(std::filesystem::path run_dir);

  // `state` goes into head.bin of the folder, which must be within the run's.
  void save(const std::string& peer, const std::string& directory, std::vector<std::byte> state);
  struct Answer {
    std::string peer;
    wire::SaveReply reply;
  };
  // What is due since the last call.
  [[nodiscard]] std::vector<Answer> take();
  // Waits for the disk: for an owner that has nothing else to do.
  void finish_writing() {
    if (disk_) disk_->finish();
  }

 private:
  struct Save {
    std::string peer;
    std::shared_ptr<wire::SaveReply> reply;  // the job alone touches it until the disk is idle
  };

  std::filesystem::path run_dir_;
  std::deque<Save> under_way_;
  std::vector<Answer> refused_;
  std::optional<wire::SaveReply> last_;
  std::optional<IoThread> disk_;  // from the first save on; its jobs do not throw
};

}  // namespace qanat::control
