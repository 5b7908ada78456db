// Message heads with random content, and equality through their bytes.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "core/rng.h"
#include "wire/messages.h"

namespace qanat::wire::testing {

// Fills every field of a head through its own serialize(), so that a new field is covered without a change here.
class Filler {
 public:
  explicit Filler(Rng& rng) : rng_(rng) {}

  template <class... Fields>
  void operator()(Fields&... fields) {
    (fill(fields), ...);
  }

 private:
  template <class T>
  requires std::is_integral_v<T>
  void fill(T& value) { value = static_cast<T>(rng_.next()); }
  void fill(bool& value) { value = rng_.chance(0.5); }
  void fill(double& value) { value = rng_.normal() * 1e6; }
  void fill(float& value) { value = static_cast<float>(rng_.normal()); }
  void fill(std::string& value) {
    value.resize(rng_.below(40));
    for (auto& character : value) character = static_cast<char>(rng_.below(256));  // any bytes, zero as well
  }
  void fill(Role& value) { value = static_cast<Role>(rng_.below(6)); }
  void fill(MemberState& value) { value = static_cast<MemberState>(rng_.below(3)); }
  void fill(RunState& value) { value = static_cast<RunState>(rng_.below(5)); }
  void fill(AckStatus& value) { value = static_cast<AckStatus>(rng_.below(4)); }
  void fill(DType& value) { value = static_cast<DType>(rng_.below(5)); }
  template <class T>
  void fill(std::vector<T>& list) {
    list.resize(rng_.below(4));
    for (auto& element : list) fill(element);
  }
  template <class T, std::size_t N>
  void fill(std::array<T, N>& list) {
    for (auto& element : list) fill(element);
  }
  template <class A, class B>
  void fill(std::pair<A, B>& both) {
    fill(both.first);
    fill(both.second);
  }
  template <class T>
  requires std::is_class_v<T>
  void fill(T& value) { value.serialize(*this); }

  Rng& rng_;
};

template <class Head>
Head random_head(Rng& rng) {
  Head head;
  Filler filler(rng);
  head.serialize(filler);
  return head;
}

using AllHeads = std::tuple<ConfigGet, ConfigReply, Join, JoinReply, Heartbeat, HeartbeatReply, Leave, LedgerReport,
                            LedgerGrant, Insert, InsertAck, SampleRequest, SampleReply, PriorityUpdate, SaveRequest,
                            SaveReply, WeightsAnnounce, WeightsGet, Weights, EvaluationReport>;

// Calls visit.operator()<Head>() for every message type there is.
template <class Visit>
void for_every_head(Visit visit) {
  [&]<class... Heads>(std::tuple<Heads...>*) {
    (visit.template operator()<Heads>(), ...);
  }(static_cast<AllHeads*>(nullptr));
}

}  // namespace qanat::wire::testing
