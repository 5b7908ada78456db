// A head and its members in one process, on a clock that only the test turns.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "control/head.h"
#include "control/member.h"
#include "core/clock.h"
#include "core/error.h"

namespace qanat::control::testing {

inline wire::EnvironmentSchema catch_schema() {
  return {"catch", {{{"board", DType::u8, {10, 5}}, 0, 1}}, 3, false, 0};
}

// As long must a member be silent before another may have its place.
inline constexpr Milliseconds dead_after = std::chrono::duration_cast<Milliseconds>(holder_silence) + Milliseconds(100);

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

struct World {
  explicit World(HeadOptions head_options = {}) : options(std::move(head_options)) {
    if (options.bind.empty()) options.bind = {"inproc://head"};
    head = make_head(options);
  }

  std::unique_ptr<Head> make_head(const HeadOptions& of) {
    return std::make_unique<Head>(context, clock, log, of,
                                  [this](const HeadStatus& status) { reported.push_back(status); });
  }

  Member& add(wire::Role role, MemberOptions with = {}) {
    with.role = role;
    if (with.incarnation == 0) with.incarnation = next_incarnation++;
    if (with.head.empty()) with.head = options.bind;
    members.push_back(std::make_unique<Member>(context, clock, std::move(with)));
    return *members.back();
  }
  // Adds and waits for the welcome.
  Member& join(wire::Role role, MemberOptions with = {}) {
    auto& member = add(role, std::move(with));
    settle();
    if (!member.joined()) throw RunError("the member was not welcomed");
    return member;
  }

  // The member's process dies: it says nothing more.
  void kill(Member& member) {
    std::erase_if(members, [&](const auto& one) { return one.get() == &member; });
  }

  // Everybody acts on what was said, no time passes. A question, its answer and what follows take three rounds.
  void settle() {
    for (int round = 0; round < 4; ++round) {
      if (head) {
        head->finish_writing();
        head->step();
      }
      for (auto& member : members) member->step();
    }
  }

  void pass(Milliseconds time, Milliseconds at_once = Milliseconds(50)) {
    const auto end = clock.now() + time;
    while (clock.now() < end) {
      clock.advance(std::min<Nanoseconds>(at_once, end - clock.now()));
      settle();
    }
  }

  // As `pass`, but the head does not get to act.
  void pass_without_head(Milliseconds time) {
    auto paused = std::move(head);
    pass(time);
    head = std::move(paused);
  }

  // Sends `message` to the head from a peer of its own and returns what comes back.
  // From somebody new each time: one who comes again while his last connection is being closed is not heard.
  std::vector<wire::Incoming> tell_head(wire::Message message) {
    wire::Socket socket(context, wire::SocketKind::dealer, {.identity = text("stranger-", strangers++)});
    socket.connect(options.bind.front());
    (void)socket.send(message);
    settle();
    return socket.receive_all();
  }

  [[nodiscard]] double metric(std::string_view name) const {
    for (const auto& [known, value] : head->status().metrics) {
      if (known == name) return value;
    }
    return -1e9;  // none
  }

  wire::Context context;
  VirtualClock clock;
  Logger log{LogOptions{"head-0", {}, false, LogLevel::error}};
  HeadOptions options;
  std::vector<HeadStatus> reported;
  std::unique_ptr<Head> head;
  std::vector<std::unique_ptr<Member>> members;
  std::uint64_t next_incarnation = 100;
  int strangers = 0;
};

inline const wire::MemberInfo* listed(const wire::Directory& directory, std::uint64_t incarnation) {
  for (const auto& member : directory.members) {
    if (member.incarnation == incarnation) return &member;
  }
  return nullptr;
}

}  // namespace qanat::control::testing
