#include "core/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <chrono>
#include <ctime>
#include <vector>

#include "core/bytes.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "core/utf8.h"

namespace qanat {
namespace {

// Protocol buffer wire format (protobuf.dev/programming-guides/encoding): a field is a varint of
// (number << 3 | wire type), then its value. Field numbers: tensorflow/core/util/event.proto, framework/summary.proto.
// What a SessionLog of status START means to readers: tensorboard/backend/event_processing/plugin_event_accumulator.py,
// `_CheckForRestartAndMaybePurge`.
constexpr std::uint32_t varint = 0;
constexpr std::uint32_t fixed64 = 1;
constexpr std::uint32_t length_delimited = 2;
constexpr std::uint32_t fixed32 = 5;

namespace event {
constexpr std::uint32_t wall_time = 1;
constexpr std::uint32_t step = 2;
constexpr std::uint32_t file_version = 3;
constexpr std::uint32_t summary = 5;
constexpr std::uint32_t session_log = 7;
}  // namespace event
namespace session_log {
constexpr std::uint32_t status = 1;
constexpr std::int64_t start = 1;
}  // namespace session_log
namespace summary {
constexpr std::uint32_t value = 1;
}
namespace value {
constexpr std::uint32_t tag = 1;
constexpr std::uint32_t simple_value = 2;
}  // namespace value

class Message {
 public:
  void put_double(std::uint32_t field, double number) {
    put_key(field, fixed64);
    out_.put(number);
  }
  void put_float(std::uint32_t field, float number) {
    put_key(field, fixed32);
    out_.put(number);
  }
  void put_int(std::uint32_t field, std::int64_t number) {
    put_key(field, varint);
    put_varint(static_cast<std::uint64_t>(number));
  }
  void put_bytes(std::uint32_t field, std::span<const std::byte> bytes) {
    put_key(field, length_delimited);
    put_varint(bytes.size());
    out_.put_raw(bytes);
  }
  [[nodiscard]] std::span<const std::byte> bytes() const { return out_.bytes(); }

 private:
  void put_key(std::uint32_t field, std::uint32_t wire_type) { put_varint(field << 3 | wire_type); }
  void put_varint(std::uint64_t number) {
    for (; number >= 0x80; number >>= 7) out_.put(static_cast<std::uint8_t>(number | 0x80));
    out_.put(static_cast<std::uint8_t>(number));
  }

  ByteWriter out_;
};

// A CRC over bytes that hold CRCs is weak, so the format stores them rotated and shifted.
std::uint32_t masked_crc(std::span<const std::byte> bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8U; }

std::vector<std::byte> record_of(const Message& message) {
  const std::uint64_t length = message.bytes().size();
  ByteWriter out;
  out.put(length);
  out.put(masked_crc(out.bytes()));
  out.put_raw(message.bytes());
  out.put(masked_crc(message.bytes()));
  return out.take();
}

double time_of_day() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

constexpr std::string_view name_prefix = "events.out.tfevents.";

// Readers sort by name, and what was undone must come before what says so: two files of one second must not be told
// apart by their pids.
std::int64_t begin_time(const std::filesystem::path& directory) {
  std::int64_t time = std::time(nullptr);
  for (const auto& name : list_directory(directory)) {
    if (!name.starts_with(name_prefix)) continue;
    std::int64_t other = 0;
    std::from_chars(name.data() + name_prefix.size(), name.data() + name.size(), other);
    time = std::max(time, other + 1);
  }
  return time;
}

AppendFile new_event_file(const std::filesystem::path& directory) {
  char host[256] = "localhost";
  if (::gethostname(host, sizeof host - 1) != 0 || host[0] == '\0') std::snprintf(host, sizeof host, "localhost");
  const auto path = directory / text(name_prefix, begin_time(directory), '.', host, '.', ::getpid());
  return AppendFile(path, AppendFile::Mode::create_new);
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& directory, std::optional<std::int64_t> start)
    : file_(new_event_file(directory)) {
  Message first;
  first.put_double(event::wall_time, time_of_day());
  first.put_bytes(event::file_version, bytes_of("brain.Event:2"));
  file_.append(record_of(first));
  if (!start) return;
  Message log;
  log.put_int(session_log::status, session_log::start);
  Message begin;
  begin.put_double(event::wall_time, time_of_day());
  begin.put_int(event::step, *start);
  begin.put_bytes(event::session_log, log.bytes());
  file_.append(record_of(begin));
}

void EventFile::add(std::int64_t step, std::span<const Metric> scalars) {
  Message values;
  for (const auto& scalar : scalars) {
    Message one;
    one.put_bytes(value::tag, bytes_of(to_utf8(scalar.name)));
    one.put_float(value::simple_value, static_cast<float>(scalar.value));
    values.put_bytes(summary::value, one.bytes());
  }
  Message whole;
  whole.put_double(event::wall_time, time_of_day());
  whole.put_int(event::step, step);
  whole.put_bytes(event::summary, values.bytes());
  file_.append(record_of(whole));
}

}  // namespace qanat
