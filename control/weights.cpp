#include "control/weights.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "control/address.h"
#include "control/member.h"
#include "core/checksum.h"
#include "core/error.h"

namespace qanat::control {
namespace {

constexpr std::size_t kept_for_evaluation = 4;
// Doubled each time: weights that take longer to arrive than this must not be asked for ever more often.
constexpr Milliseconds ask_again_first{250};
constexpr Milliseconds ask_again_last{8000};
// How often an asker that believes itself up to date makes sure.
constexpr Milliseconds ask_anyway{5000};
constexpr std::size_t most_waiting = 100'000;
// How long closing waits for a last evaluation report to be sent.
constexpr Milliseconds farewell{1000};

std::vector<float> floats_of(const wire::Frame& frame) {
  std::vector<float> values(frame.size() / sizeof(float));
  std::memcpy(values.data(), frame.bytes().data(), values.size() * sizeof(float));
  return values;
}

std::vector<std::byte> bytes_of(const wire::Frame& frame) { return {frame.bytes().begin(), frame.bytes().end()}; }

// Of both frames' checksums, which are computed once, however often the frames are sent.
std::uint64_t hash_of(const wire::Frame& parameters, const wire::Frame& statistics) {
  const std::array sums = {parameters.checksum(), statistics.checksum()};
  return checksum(std::as_bytes(std::span(sums)));
}

wire::Weights checked(const wire::Incoming& message) {
  const auto head = wire::decode<wire::Weights>(message);
  if (message.parts.size() != 2 || message.parts[0].size() % sizeof(float) != 0) {
    throw InputError(text("weights: saw ", message.parts.size(), " parts, wanted one of whole f32 numbers and one of ",
                          "statistics"));
  }
  if (hash_of(message.parts[0], message.parts[1]) != head.hash)
    throw InputError("weights: the hash is not that of the bytes");
  return head;
}

}  // namespace

WeightPublisher::WeightPublisher(wire::Context& context, const std::vector<std::string>& addresses)
    : announce_(context, wire::SocketKind::publisher), serve_(context, wire::SocketKind::router) {
  endpoints_ = {bind_service(announce_, "announce", addresses), bind_service(serve_, "weights", addresses)};
}

void WeightPublisher::publish(wire::WeightVersion version, std::uint64_t layout, std::span<const float> parameters,
                              std::span<const std::byte> statistics) {
  Published now{{}, wire::Frame::copy_of(parameters), wire::Frame::copy_of(statistics)};
  now.head = {version, hash_of(now.parameters, now.statistics), layout};
  newest_ = std::move(now);
  auto message = wire::encode(
      wire::WeightsAnnounce{version, newest_->head.hash, newest_->parameters.size() + newest_->statistics.size()});
  (void)announce_.send(message);  // a lost announcement is made good by the next one or by asking
  for (const auto& [peer, for_evaluation] : std::exchange(waiting_, {})) answer(peer, for_evaluation);
}

void WeightPublisher::answer(const std::string& peer, bool for_evaluation) {
  if (for_evaluation && (kept_.empty() || kept_.back().head.version != newest_->head.version)) {
    kept_.push_back(newest_->share());
    if (kept_.size() > kept_for_evaluation) kept_.erase(kept_.begin());
  }
  std::vector<wire::Frame> parts;
  parts.push_back(newest_->parameters.share());
  parts.push_back(newest_->statistics.share());
  auto message = wire::encode(newest_->head, std::move(parts));
  (void)serve_.send_to(peer, message);  // a peer that is gone or full asks again
}

void WeightPublisher::take(const wire::Incoming& message) {
  if (message.type == static_cast<std::uint16_t>(wire::MessageType::evaluation_report)) {
    Evaluation evaluation{wire::decode<wire::EvaluationReport>(message), {}, {}};
    for (const auto& kept : kept_) {
      if (kept.head.version != evaluation.report.version) continue;
      evaluation.parameters = floats_of(kept.parameters);
      evaluation.statistics = bytes_of(kept.statistics);
    }
    evaluations_.push_back(std::move(evaluation));
    return;
  }
  const auto get = wire::decode<wire::WeightsGet>(message);
  if (newest_ && newest_->head.version > get.have) {
    answer(message.peer, get.for_evaluation);
  } else if (waiting_.size() < most_waiting) {
    waiting_[message.peer] = get.for_evaluation;
  }
}

bool WeightPublisher::step() {
  const auto messages = serve_.receive_all();
  for (const auto& message : messages) {
    try {
      take(message);
    } catch (const InputError& error) {
      serve_.refuse(error.what());
    }
  }
  return !messages.empty();
}

std::vector<WeightPublisher::Evaluation> WeightPublisher::take_evaluations() { return std::exchange(evaluations_, {}); }

wire::Traffic WeightPublisher::traffic() const {
  auto sum = announce_.traffic();
  sum += serve_.traffic();
  return sum;
}

WeightSubscriber::WeightSubscriber(wire::Context& context, const Clock& clock, std::string identity,
                                   bool for_evaluation)
    : context_(context),
      clock_(clock),
      identity_(std::move(identity)),
      for_evaluation_(for_evaluation),
      patience_(ask_again_first) {}

void WeightSubscriber::follow(const Member& member) {
  require_epoch(member.epoch());
  for (const auto* learner : member.alive(wire::Role::learner)) {
    const auto announce = member.address_of(*learner, "announce");
    const auto serve = member.address_of(*learner, "weights");
    if (!announce.empty() && !serve.empty()) connect(announce, serve);
  }
}

void WeightSubscriber::connect(const std::string& announce, const std::string& serve) {
  if (announce == announce_address_ && serve == serve_address_) return;
  closed_ = traffic();
  announce_address_ = announce;
  serve_address_ = serve;
  announce_.emplace(context_, wire::SocketKind::subscriber);
  announce_->connect(announce);
  fetch_.emplace(context_, wire::SocketKind::dealer,
                 wire::SocketOptions{.identity = identity_, .linger = farewell, .watched = true});
  fetch_->connect(serve);
  connections_ = 0;
  question_lost();
}

void WeightSubscriber::question_lost() {
  open_question_ = false;
  patience_ = ask_again_first;
  next_get_ = Nanoseconds::min();
}

void WeightSubscriber::get() {
  auto message = wire::encode(wire::WeightsGet{have_, for_evaluation_});
  if (fetch_->send(message) != wire::Sent::yes) return;
  open_question_ = true;
  next_get_ = clock_.now() + patience_;
  patience_ = std::min<Nanoseconds>(2 * patience_, ask_again_last);
}

void WeightSubscriber::take_news(const wire::Incoming& message) {
  const auto news = wire::decode<wire::WeightsAnnounce>(message);
  if (news.version > announced_ && news.version.epoch >= epoch_) announced_ = news.version;
}

bool WeightSubscriber::take_weights(const wire::Incoming& message, std::uint64_t layout) {
  wire::Weights head;
  try {
    head = checked(message);
  } catch (const InputError& error) {
    fetch_->refuse(error.what());
    return false;
  }
  if (head.version <= have_ || head.version.epoch < epoch_) return false;
  if (!automatic_ && !asked_) return false;  // a second answer to one question
  if (head.layout != layout) throw InputError("weights: they are for a network of other layers than ours");
  parameters_ = floats_of(message.parts[0]);
  statistics_ = bytes_of(message.parts[1]);
  have_ = head.version;
  asked_ = open_question_ = false;
  patience_ = ask_again_first;
  next_get_ = clock_.now() + ask_anyway;
  return true;
}

bool WeightSubscriber::step(std::uint64_t layout) {
  if (!connected()) return false;
  for (const auto& message : announce_->receive_all()) {
    try {
      take_news(message);
    } catch (const InputError& error) {
      announce_->refuse(error.what());
    }
  }
  bool newer = false;
  for (const auto& message : fetch_->receive_all()) newer |= take_weights(message, layout);
  // With a connection that breaks go question, answer and announcements that were under way.
  const auto connections = fetch_->connections();
  if (connections != connections_ && connections_ > 0) question_lost();
  connections_ = connections;
  const bool behind = automatic_ ? !available() || announced_ > have_ : asked_;
  if ((behind && !open_question_) || ((behind || automatic_) && clock_.now() >= next_get_)) get();
  return newer;
}

std::span<const float> WeightSubscriber::parameters() const { return parameters_; }

void WeightSubscriber::report(const wire::EvaluationReport& report) {
  if (!connected()) return;
  auto message = wire::encode(report);
  (void)fetch_->send(message);
}

std::vector<wire::Socket*> WeightSubscriber::sockets() {
  if (!connected()) return {};
  return {&*announce_, &*fetch_};
}

wire::Traffic WeightSubscriber::traffic() const {
  auto sum = closed_;
  if (announce_) sum += announce_->traffic();
  if (fetch_) sum += fetch_->traffic();
  return sum;
}

void WeightSubscriber::adopt(wire::WeightVersion version, std::span<const float> parameters,
                             std::span<const std::byte> statistics) {
  have_ = announced_ = version;
  parameters_.assign(parameters.begin(), parameters.end());
  statistics_.assign(statistics.begin(), statistics.end());
}

}  // namespace qanat::control
