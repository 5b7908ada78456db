#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <system_error>
#include <unordered_map>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/error.h"
#include "replay/snapshot.h"
#include "replay/snapshot_format.h"

namespace qanat::replay {

namespace {

// Takes the sections of the file one after another.
class SectionReader {
 public:
  explicit SectionReader(const std::filesystem::path& path) : path_(path), file_(path, std::ios::binary) {
    if (!file_) throw_system_error("open", path, errno);
    std::error_code error;
    left_ = std::filesystem::file_size(path, error);
    if (error) throw_system_error("open", path, error.value());
  }

  std::vector<std::byte> next(std::uint64_t max_bytes) {
    std::array<std::uint64_t, 2> front{};
    read(std::as_writable_bytes(std::span(front)));
    if (front[0] > max_bytes) fail(text("saw a section of ", front[0], " bytes, wanted at most ", max_bytes));
    if (front[0] > left_) fail("the file is cut short");
    std::vector<std::byte> payload(front[0]);
    read(payload);
    if (checksum(payload) != front[1]) fail("a section's checksum does not match: the file is damaged");
    return payload;
  }

  void expect_end() {
    if (file_.peek() != std::ifstream::traits_type::eof()) fail("saw more bytes than the last section");
  }

  [[noreturn]] void fail(const std::string& message) const {
    throw InputError(text("replay snapshot ", path_.string(), ": ", message));
  }

 private:
  void read(std::span<std::byte> into) {
    file_.read(reinterpret_cast<char*>(into.data()), static_cast<std::streamsize>(into.size()));
    if (static_cast<std::size_t>(file_.gcount()) != into.size()) fail("the file is cut short");
    left_ -= into.size();
  }

  std::filesystem::path path_;
  std::ifstream file_;
  std::uint64_t left_ = 0;
};

TensorSpec get_spec(ByteReader& in) {
  TensorSpec spec;
  spec.name = in.get_string("column name", 4096);
  const auto dtype = in.get<std::uint8_t>("column type");
  if (dtype > static_cast<std::uint8_t>(DType::f64)) in.fail("column type", text("saw ", int{dtype}));
  spec.dtype = static_cast<DType>(dtype);
  spec.shape = in.get_vector<std::int64_t>("column shape", 64);
  return spec;
}

}  // namespace

// Builds the shard from the file, step by step. Everything is checked, although checksums have passed: a draw walks the
// links without looking.
class SnapshotLoader {
 public:
  SnapshotLoader(const std::filesystem::path& path, Shard& shard) : file_(path), path_(path), shard_(shard) {}

  void load(std::uint64_t generation_floor, const std::function<void()>& between) {
    read_head();
    read_streams();
    shard_.rows_.restart_at(begin_);
    while (shard_.rows_.end_position() < end_) {
      read_block();
      if (between) between();
    }
    file_.expect_end();
    check_streams();
    add_items();
    shard_.generation_offset_ = std::max(saved_generation_, generation_floor) - begin_;
  }

 private:
  static constexpr std::uint64_t max_section = std::uint64_t{1} << 31;

  template <class T>
  void expect(const char* what, const T& seen, const T& wanted) const {
    if (seen != wanted) file_.fail(text(what, " is ", seen, ", wanted ", wanted));
  }

  void read_head() {
    const std::vector<std::byte> bytes = file_.next(max_section);
    ByteReader in(bytes, path_.string());
    if (in.get<std::uint64_t>("magic") != snapshot_magic) file_.fail("this is no replay snapshot");
    expect("version", in.get<std::uint32_t>("version"), snapshot_version);
    expect("capacity", in.get<std::uint64_t>("capacity"), shard_.options_.capacity_rows);
    expect("stack", in.get<std::int64_t>("stack"), shard_.options_.stack);
    expect("n_step", in.get<std::int64_t>("n_step"), shard_.options_.n_step);
    const std::vector<TensorSpec> wanted = shard_.schema_.columns();
    expect<std::uint64_t>("column count", in.get<std::uint64_t>("column count"), wanted.size());
    for (const TensorSpec& spec : wanted) {
      const TensorSpec seen = get_spec(in);
      if (!(seen == spec)) expect("column", seen.describe(), spec.describe());
    }
    for (const auto member : snapshot_counters) shard_.counters_.*member = in.get<std::uint64_t>("counter");
    begin_ = in.get<std::uint64_t>("begin");
    end_ = in.get<std::uint64_t>("end");
    saved_generation_ = in.get<std::uint64_t>("generation");
    in.expect_end();
    if (begin_ > end_ || end_ - begin_ > shard_.options_.capacity_rows || end_ > saved_generation_) {
      file_.fail(text("positions ", begin_, " to ", end_, " and generation ", saved_generation_, " do not fit"));
    }
  }

  void read_streams() {
    const std::vector<std::byte> bytes = file_.next(max_section);
    ByteReader in(bytes, path_.string());
    const std::size_t count = in.get_count("streams", shard_.options_.capacity_rows * 16 + 65'536, 46);
    for (std::size_t i = 0; i < count; ++i) {
      const auto saved_index = in.get<std::uint32_t>("stream index");
      Stream stream;
      stream.id.incarnation = in.get<std::uint64_t>("incarnation");
      stream.id.slot = in.get<std::uint32_t>("slot");
      stream.next_sequence = in.get<std::uint64_t>("next sequence");
      stream.next_row = in.get<std::uint64_t>("next row");
      stream.episode_first = in.get<std::uint64_t>("episode's first row");
      stream.resident_rows = in.get<std::uint64_t>("resident rows");
      stream.last_flags = in.get<std::uint8_t>("last flags");
      stream.ended = in.get<bool>("ended");
      if (shard_.streams_.find(stream.id)) in.fail("stream", "appears twice");
      if (stream.resident_rows > stream.next_row || stream.episode_first > stream.next_row || stream.last_flags > 15) {
        in.fail("stream", "its numbers do not fit together");
      }
      const std::uint32_t index = shard_.streams_.add(stream.id);
      if (!indices_.emplace(saved_index, index).second) in.fail("stream index", "appears twice");
      expected_rows_.push_back(stream.resident_rows);
      stream.resident_rows = 0;
      shard_.streams_[index] = stream;
    }
    const std::size_t forgotten = in.get_count("forgotten streams", StreamTable::max_forgotten, 20);
    for (std::size_t i = 0; i < forgotten; ++i) {
      StreamId id;
      id.incarnation = in.get<std::uint64_t>("incarnation");
      id.slot = in.get<std::uint32_t>("slot");
      shard_.streams_.remember_forgotten(id, in.get<std::uint64_t>("next sequence"));
    }
    in.expect_end();
  }

  void read_block() {
    const std::uint64_t at = shard_.rows_.end_position();
    const std::uint64_t rows = std::min(snapshot_block_rows(shard_.schema_), end_ - at);
    const std::vector<std::byte> bytes = file_.next(rows * snapshot_row_bytes(shard_.schema_));
    ByteReader in(bytes, path_.string());
    const auto take = [&](auto& into, const char* what) {
      std::memcpy(into.data(), in.get_raw(what, rows * sizeof(into[0])).data(), rows * sizeof(into[0]));
    };
    std::vector<std::uint8_t> steps(rows);
    std::vector<float> priorities(rows);
    std::vector<std::uint32_t> streams(rows);
    take(steps, "window lengths");
    take(priorities, "priorities");
    take(streams, "stream indices");
    std::vector<std::span<const std::byte>> columns;
    for (std::size_t c = 0; c < shard_.rows_.column_count(); ++c) {
      columns.push_back(in.get_raw("column", rows * shard_.rows_.column_bytes(c)));
    }
    in.expect_end();
    for (std::uint64_t first = 0; first < rows;) {
      std::uint64_t last = first + 1;
      while (last < rows && streams[last] == streams[first]) ++last;
      append_run(columns, first, last - first, streams[first]);
      first = last;
    }
    for (std::uint64_t i = 0; i < rows; ++i) {
      if (steps[i] == 0) continue;
      if (steps[i] > shard_.n_step_ || !(priorities[i] >= 0) || !std::isfinite(priorities[i])) {
        file_.fail(text("item at position ", at + i, " has window ", int{steps[i]}, ", priority ", priorities[i]));
      }
      items_.push_back({shard_.rows_.slot_of(at + i), steps[i], priorities[i]});
    }
  }

  // Rows of one stream, from place `first` of the block.
  void append_run(std::span<const std::span<const std::byte>> columns, std::uint64_t first, std::uint64_t rows,
                  std::uint32_t saved_index) {
    const auto index = indices_.find(saved_index);
    if (index == indices_.end()) file_.fail(text("a row belongs to stream ", saved_index, ", which is not there"));
    std::vector<std::span<const std::byte>> run;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const std::size_t bytes = shard_.rows_.column_bytes(c);
      run.push_back(columns[c].subspan(first * bytes, rows * bytes));
    }
    Stream& stream = shard_.streams_[index->second];
    shard_.rows_.append(run, static_cast<std::uint32_t>(rows), index->second, stream.last_slot);
    stream.resident_rows += rows;
    stream.last_slot = shard_.rows_.slot_of(shard_.rows_.end_position() - 1);
  }

  void check_streams() {
    for (std::uint32_t i = 0; i < expected_rows_.size(); ++i) {
      expect("a stream's number of rows", shard_.streams_[i].resident_rows, expected_rows_[i]);
    }
  }

  // The rows that an item needs are there and are what they must be.
  [[nodiscard]] bool fits(std::uint32_t slot, std::uint32_t steps) const {
    std::uint32_t oldest = slot;
    for (std::uint32_t i = 1; i < shard_.stack_ && !(shard_.rows_.flags(oldest) & flag_first); ++i) {
      oldest = shard_.rows_.links(oldest).previous;
      if (oldest == no_slot) return false;
    }
    std::uint32_t row = slot;
    for (std::uint32_t i = 0; i < steps; ++i, row = shard_.rows_.links(row).next) {
      if (row == no_slot || (shard_.rows_.flags(row) & flag_last_observation) != 0) return false;
    }
    return true;
  }

  void add_items() {
    std::vector<std::uint32_t> slots;
    std::vector<float> priorities;
    for (const SavedItem& item : items_) {
      if (!fits(item.slot, item.steps)) file_.fail(text("the item in slot ", item.slot, " lacks rows"));
      shard_.items_.add(item.slot, item.steps, item.priority);
      slots.push_back(item.slot);
      priorities.push_back(item.priority);
    }
    shard_.selector_->set(slots, priorities);
  }

  struct SavedItem {
    std::uint32_t slot;
    std::uint8_t steps;
    float priority;
  };

  SectionReader file_;
  std::filesystem::path path_;
  Shard& shard_;
  std::uint64_t begin_ = 0;
  std::uint64_t end_ = 0;
  std::uint64_t saved_generation_ = 0;
  std::unordered_map<std::uint32_t, std::uint32_t> indices_;  // saved to present
  std::vector<std::uint64_t> expected_rows_;                  // by present index
  std::vector<SavedItem> items_;
};

void load_snapshot(const std::filesystem::path& path, std::uint64_t generation_floor, Shard& fresh,
                   const std::function<void()>& between) {
  SnapshotLoader(path, fresh).load(generation_floor, between);
}

}  // namespace qanat::replay
