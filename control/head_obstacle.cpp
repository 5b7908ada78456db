// What a run without updates waits for, in words.
#include <string>
#include <vector>

#include "control/head.h"
#include "core/error.h"

namespace qanat::control {
namespace {

using wire::MemberState;

// Of a thousand actors that wait for the same, some suffice.
constexpr std::size_t members_named = 3;

}  // namespace

std::string Head::obstacle() const {
  std::vector<std::string> reasons;
  const bool all_wanted = state_ <= wire::RunState::running;  // at its end everybody leaves, which is no reason
  if (all_wanted && alive(wire::Role::learner) == 0) reasons.emplace_back("the learner has not joined");
  if (const auto shards = alive(wire::Role::replay);
      all_wanted && shards < static_cast<std::size_t>(options_.expected_shards)) {
    reasons.push_back(text(shards, " of ", options_.expected_shards, " replay shards have joined"));
  }
  if (all_wanted && alive(wire::Role::actor) == 0)
    reasons.emplace_back("no actor has joined, which each does when its environments are made");
  std::size_t waiting = 0;
  for (const auto& member : members_) {
    if (member.info.state != MemberState::alive || member.waiting.empty()) continue;
    if (++waiting <= members_named)
      reasons.push_back(text(wire::name_of(member.info.role), '-', member.info.index, ": ", member.waiting));
  }
  if (waiting > members_named) reasons.push_back(text(waiting - members_named, " more processes wait"));
  if (const auto ledger = ledger_.waiting(); !ledger.empty()) reasons.push_back(ledger);
  if (reasons.empty()) {
    reasons.push_back(ledger_.inserted_total() == 0
                          ? text("no env step has come yet from ", alive(wire::Role::actor), " actors")
                          : "nobody says what for; see the logs");
  }
  std::string out;
  for (const auto& reason : reasons) out += (out.empty() ? "" : "; ") + reason;
  return out;
}

}  // namespace qanat::control
