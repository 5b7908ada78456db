#include "wire/messages.h"

#include <cereal/cereal.hpp>
#include <cereal/types/array.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/utility.hpp>

#include "core/error.h"

namespace qanat::wire {
namespace {

// Cereal's binary archive over memory instead of a stream (a stringstream costs 4 ms a MiB), and with every
// length checked against the bytes that are left before anything is allocated.
class HeadWriter : public cereal::OutputArchive<HeadWriter, cereal::AllowEmptyClassElision> {
 public:
  explicit HeadWriter(std::vector<std::byte>& out) : OutputArchive(this), out_(out) {}
  void write(const void* data, std::size_t bytes) {
    const auto* first = static_cast<const std::byte*>(data);
    out_.insert(out_.end(), first, first + bytes);
  }

 private:
  std::vector<std::byte>& out_;
};

class HeadReader : public cereal::InputArchive<HeadReader, cereal::AllowEmptyClassElision> {
 public:
  explicit HeadReader(std::span<const std::byte> in) : InputArchive(this), in_(in) {}
  void read(void* data, std::size_t bytes) {
    if (bytes > in_.size())
      throw InputError(text("message head ends early: ", bytes, " bytes wanted, ", in_.size(), " left"));
    if (bytes == 0) return;  // an empty list's data may be null
    std::memcpy(data, in_.data(), bytes);
    in_ = in_.subspan(bytes);
  }
  // Every element takes at least `bytes_each`, so a longer list than bytes left cannot be honest.
  void check_length(std::uint64_t length, std::size_t bytes_each) const {
    if (length > in_.size() / bytes_each) {
      throw InputError(text("message head names ", length, " elements, ", in_.size(), " bytes are left"));
    }
  }
  [[nodiscard]] std::size_t left() const { return in_.size(); }

 private:
  std::span<const std::byte> in_;
};

template <class T>
requires std::is_arithmetic_v<T>
void CEREAL_SAVE_FUNCTION_NAME(HeadWriter& archive, const T& value) { archive.write(&value, sizeof value); }

template <class T>
requires std::is_arithmetic_v<T>
void CEREAL_LOAD_FUNCTION_NAME(HeadReader& archive, T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    std::uint8_t byte = 0;
    archive.read(&byte, 1);
    if (byte > 1) throw InputError(text("message head: a boolean is ", int{byte}, ", wanted 0 or 1"));
    value = byte == 1;
  } else {
    archive.read(&value, sizeof value);
  }
}

template <class Archive, class T>
void CEREAL_SERIALIZE_FUNCTION_NAME(Archive& archive, cereal::NameValuePair<T>& pair) {
  archive(pair.value);
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(HeadWriter& archive, const cereal::SizeTag<T>& tag) {
  archive(static_cast<std::uint64_t>(tag.size));
}

template <class T>
void CEREAL_LOAD_FUNCTION_NAME(HeadReader& archive, cereal::SizeTag<T>& tag) {
  std::uint64_t length = 0;
  archive(length);
  archive.check_length(length, 1);
  tag.size = static_cast<cereal::size_type>(length);
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(HeadWriter& archive, const cereal::BinaryData<T>& data) {
  archive.write(data.data, static_cast<std::size_t>(data.size));
}

template <class T>
void CEREAL_LOAD_FUNCTION_NAME(HeadReader& archive, cereal::BinaryData<T>& data) {
  archive.read(data.data, static_cast<std::size_t>(data.size));
}

// Lists are ours rather than Cereal's, which makes room for all elements before it reads the first: a hostile
// length would then cost the size of a struct for each byte received. Here memory grows with what was decoded.
template <class T>
void CEREAL_SAVE_FUNCTION_NAME(HeadWriter& archive, const std::vector<T>& list) {
  archive(static_cast<std::uint64_t>(list.size()));
  if constexpr (std::is_arithmetic_v<T>) {
    archive.write(list.data(), list.size() * sizeof(T));
  } else {
    for (const auto& element : list) archive(element);
  }
}

template <class T>
void CEREAL_LOAD_FUNCTION_NAME(HeadReader& archive, std::vector<T>& list) {
  std::uint64_t length = 0;
  archive(length);
  list.clear();
  if constexpr (std::is_arithmetic_v<T>) {
    archive.check_length(length, sizeof(T));
    list.resize(static_cast<std::size_t>(length));
    archive.read(list.data(), list.size() * sizeof(T));
  } else {
    archive.check_length(length, 1);
    for (; length > 0; --length) archive(list.emplace_back());
  }
}

// Enums are checked here, once, so that nobody downstream meets a value without a name.
constexpr Role last_of(Role) { return Role::supervisor; }
constexpr MemberState last_of(MemberState) { return MemberState::lost; }
constexpr RunState last_of(RunState) { return RunState::ended; }
constexpr AckStatus last_of(AckStatus) { return AckStatus::unwanted; }
constexpr DType last_of(DType) { return DType::f64; }

template <class E>
requires std::is_enum_v<E>
void CEREAL_SAVE_FUNCTION_NAME(HeadWriter& archive, const E& value) {
  archive(static_cast<std::underlying_type_t<E>>(value));
}

template <class E>
requires std::is_enum_v<E>
void CEREAL_LOAD_FUNCTION_NAME(HeadReader& archive, E& value) {
  std::underlying_type_t<E> number = 0;
  archive(number);
  if (number > static_cast<std::underlying_type_t<E>>(last_of(E{}))) {
    throw InputError(
        text("message head: an enumeration is ", int{number}, ", wanted at most ", static_cast<int>(last_of(E{}))));
  }
  value = static_cast<E>(number);
}

}  // namespace
}  // namespace qanat::wire

// Cereal knows enums by itself, without our check.
template <class E>
requires std::is_enum_v<E>
struct cereal::specialize<qanat::wire::HeadWriter, E, cereal::specialization::non_member_load_save> {
};
template <class E>
requires std::is_enum_v<E>
struct cereal::specialize<qanat::wire::HeadReader, E, cereal::specialization::non_member_load_save> {
};

CEREAL_REGISTER_ARCHIVE(qanat::wire::HeadWriter)
CEREAL_REGISTER_ARCHIVE(qanat::wire::HeadReader)
CEREAL_SETUP_ARCHIVE_TRAITS(qanat::wire::HeadReader, qanat::wire::HeadWriter)

namespace qanat::wire {

std::string_view name_of(Role role) {
  constexpr std::string_view names[] = {"head", "learner", "replay", "actor", "evaluate", "supervisor"};
  const auto index = static_cast<std::size_t>(role);
  return index < std::size(names) ? names[index] : "unknown";
}

std::string_view name_of(RunState state) {
  constexpr std::string_view names[] = {"starting", "running", "draining", "closing", "ended"};
  const auto index = static_cast<std::size_t>(state);
  return index < std::size(names) ? names[index] : "unknown";
}

std::string EnvironmentSchema::describe() const {
  std::string out = text(id, ": ");
  for (const auto& observation : observations) out += observation.tensor.describe() + ", ";
  return out + text(actions, " actions", has_action_mask ? ", masked" : "");
}

template <class Head>
Message encode(const Head& head, std::vector<Frame> parts) {
  Message message;
  message.type = static_cast<std::uint16_t>(Head::type);
  HeadWriter archive(message.head);
  archive(head);
  message.parts = std::move(parts);
  return message;
}

template <class Head>
Head decode(const Message& message) {
  if (message.type != static_cast<std::uint16_t>(Head::type)) {
    throw InputError(text("message type ", message.type, ", wanted ", static_cast<int>(Head::type)));
  }
  Head head;
  HeadReader archive(message.head);
  archive(head);
  if (archive.left() != 0) throw InputError(text("message head has ", archive.left(), " bytes too many"));
  return head;
}

#define QANAT_MESSAGE(Head)                                       \
  template Message encode<Head>(const Head&, std::vector<Frame>); \
  template Head decode<Head>(const Message&);
QANAT_MESSAGE(ConfigGet)
QANAT_MESSAGE(ConfigReply)
QANAT_MESSAGE(Join)
QANAT_MESSAGE(JoinReply)
QANAT_MESSAGE(Heartbeat)
QANAT_MESSAGE(HeartbeatReply)
QANAT_MESSAGE(Leave)
QANAT_MESSAGE(LedgerReport)
QANAT_MESSAGE(LedgerGrant)
QANAT_MESSAGE(Insert)
QANAT_MESSAGE(InsertAck)
QANAT_MESSAGE(SampleRequest)
QANAT_MESSAGE(SampleReply)
QANAT_MESSAGE(PriorityUpdate)
QANAT_MESSAGE(SaveRequest)
QANAT_MESSAGE(SaveReply)
QANAT_MESSAGE(WeightsAnnounce)
QANAT_MESSAGE(WeightsGet)
QANAT_MESSAGE(Weights)
QANAT_MESSAGE(EvaluationReport)
#undef QANAT_MESSAGE

}  // namespace qanat::wire
