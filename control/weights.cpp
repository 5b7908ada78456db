#include "control/weights.h"

#include <cstring>

#include "core/checksum.h"
#include "core/error.h"

namespace qanat::control {
namespace {

constexpr std::size_t kept_for_evaluation = 4;
constexpr Milliseconds ask_again{250};

std::vector<float> floats_of(const wire::Frame& frame) {
  std::vector<float> values(frame.size() / sizeof(float));
  std::memcpy(values.data(), frame.bytes().data(), values.size() * sizeof(float));
  return values;
}

// ipc and inproc names must differ between the two services; tcp picks a port for each.
std::string named(const std::string& address, const char* suffix) {
  return address.starts_with("tcp://") ? address : address + suffix;
}

}  // namespace

WeightPublisher::WeightPublisher(wire::Context& context, const std::vector<std::string>& addresses)
    : announce_(context, wire::SocketKind::publisher), serve_(context, wire::SocketKind::router) {
  wire::Endpoint announce{"announce", {}};
  wire::Endpoint serve{"weights", {}};
  for (const auto& address : addresses) {
    announce.addresses.push_back(announce_.bind(named(address, "-announce")));
    serve.addresses.push_back(serve_.bind(named(address, "-weights")));
  }
  endpoints_ = {announce, serve};
}

void WeightPublisher::publish(wire::WeightVersion version, std::uint64_t layout, std::span<const float> parameters) {
  frame_ = wire::Frame::copy_of(parameters);
  newest_ = wire::Weights{version, checksum(frame_.bytes()), layout};
  auto message = wire::encode(wire::WeightsAnnounce{version, newest_->hash, frame_.size()});
  (void)announce_.send(message);  // a lost announcement is made good by the next one or by asking
}

void WeightPublisher::answer(const std::string& peer) {
  std::vector<wire::Frame> parts;
  parts.push_back(frame_.share());
  auto message = wire::encode(*newest_, std::move(parts));
  (void)serve_.send_to(peer, message);  // a peer that is gone or full asks again
}

bool WeightPublisher::step() {
  bool any = false;
  for (const auto& message : serve_.receive_all()) {
    any = true;
    try {
      if (message.type == static_cast<std::uint16_t>(wire::MessageType::evaluation_report)) {
        Evaluation evaluation{wire::decode<wire::EvaluationReport>(message), {}};
        for (const auto& kept : kept_) {
          if (kept.version == evaluation.report.version) evaluation.parameters = floats_of(kept.frame);
        }
        evaluations_.push_back(std::move(evaluation));
        continue;
      }
      const auto get = wire::decode<wire::WeightsGet>(message);
      if (!newest_ || newest_->version <= get.have) continue;
      if (get.for_evaluation && (kept_.empty() || kept_.back().version != newest_->version)) {
        kept_.push_back({newest_->version, frame_.share()});
        if (kept_.size() > kept_for_evaluation) kept_.erase(kept_.begin());
      }
      answer(message.peer);
    } catch (const InputError&) {
      continue;  // a malformed question gets no answer
    }
  }
  return any;
}

std::vector<WeightPublisher::Evaluation> WeightPublisher::take_evaluations() { return std::exchange(evaluations_, {}); }

wire::Traffic WeightPublisher::traffic() const {
  auto sum = announce_.traffic();
  sum += serve_.traffic();
  return sum;
}

WeightSubscriber::WeightSubscriber(wire::Context& context, const Clock& clock, std::string identity, bool for_evaluation)
    : context_(context), clock_(clock), identity_(std::move(identity)), for_evaluation_(for_evaluation) {}

void WeightSubscriber::connect(const std::string& announce, const std::string& serve) {
  if (announce == announce_address_ && serve == serve_address_) return;
  closed_ = traffic();
  announce_address_ = announce;
  serve_address_ = serve;
  announce_.emplace(context_, wire::SocketKind::subscriber);
  announce_->connect(announce);
  fetch_.emplace(context_, wire::SocketKind::dealer, wire::SocketOptions{.identity = identity_});
  fetch_->connect(serve);
  next_get_ = Nanoseconds::min();
}

void WeightSubscriber::get() {
  auto message = wire::encode(wire::WeightsGet{have_, for_evaluation_});
  if (fetch_->send(message) == wire::Sent::yes) next_get_ = clock_.now() + ask_again;
}

bool WeightSubscriber::step(std::uint64_t layout) {
  if (!connected()) return false;
  for (const auto& message : announce_->receive_all()) {
    const auto news = wire::decode<wire::WeightsAnnounce>(message);
    if (news.version > announced_ && news.version.epoch >= epoch_) {
      announced_ = news.version;
      if (automatic_) next_get_ = Nanoseconds::min();
    }
  }
  bool newer = false;
  for (const auto& message : fetch_->receive_all()) {
    const auto head = wire::decode<wire::Weights>(message);
    if (head.version <= have_ || head.version.epoch < epoch_) continue;
    if (message.parts.size() != 1) throw InputError(text("weights: saw ", message.parts.size(), " parts, wanted 1"));
    if (head.layout != layout) throw InputError("weights: they are for a network of other layers than ours");
    if (checksum(message.parts[0].bytes()) != head.hash) throw InputError("weights: the hash is not that of the bytes");
    parameters_ = floats_of(message.parts[0]);
    have_ = head.version;
    newer = true;
    asked_ = false;
  }
  const bool behind = automatic_ ? !available() || announced_ > have_ : asked_;
  if (behind && clock_.now() >= next_get_) get();
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

void WeightSubscriber::adopt(wire::WeightVersion version, std::span<const float> parameters) {
  have_ = announced_ = version;
  parameters_.assign(parameters.begin(), parameters.end());
}

}  // namespace qanat::control
