#include "envs/games/seaquest.h"

#include <algorithm>
#include <stdexcept>

#include "envs/games/games.h"

namespace qanat::envs {
namespace {

using namespace minatar;

constexpr std::array<std::int32_t, 6> minimal_set = {none, left, up, right, down, fire};
constexpr int deepest = 8;
constexpr std::int8_t shot_interval = 10, diver_move_interval = 5;
constexpr std::int32_t gun_interval = 5, diver_interval = 30;
constexpr std::int32_t full_oxygen = 200, oxygen_a_cell = 20;
constexpr std::int32_t full_boat = 6;
constexpr std::int32_t lowest_move_interval = 2;

bool same_cell(const Seaquest::Swimmer& a, const Seaquest::Swimmer& b) {
  return a.row == b.row && a.column == b.column;
}

void advance(Seaquest::Swimmer& swimmer) {
  swimmer.column = static_cast<std::int8_t>(swimmer.column + swimmer.heading);
}

// At an edge, heading inwards, in a row drawn from those below the surface.
Seaquest::Swimmer at_edge(env::Rng& rng, std::int32_t move_countdown) {
  const bool rightwards = rng.below(2) == 0;
  return {.row = static_cast<std::int8_t>(1 + rng.below(deepest)),
          .column = static_cast<std::int8_t>(rightwards ? 0 : size - 1),
          .heading = static_cast<std::int8_t>(rightwards ? 1 : -1),
          .move_countdown = static_cast<std::int8_t>(move_countdown)};
}

// Removes the first of `list` in `bullet`'s cell, if there is one.
template <std::size_t N>
bool hits(Seaquest::List<N>& list, const Seaquest::Swimmer& bullet) {
  for (int i = 0; i < list.size(); ++i) {
    if (!same_cell(list[i], bullet)) continue;
    list.remove(i);
    return true;
  }
  return false;
}

}  // namespace

template <std::size_t N>
void Seaquest::List<N>::remove(int i) {
  std::copy(items.begin() + i + 1, items.begin() + count, items.begin() + i);
  items[--count] = {};
}

Seaquest::Seaquest(const env::Options& options)
    : controls_(options, minimal_set), ramping_(options.boolean("ramping", true)) {}

env::Spec Seaquest::spec() const { return {.observations = {board_of(planes)}, .action = controls_.space()}; }

void Seaquest::reset(env::Rng&) {
  const std::int32_t last_action = state_.last_action;
  state_ = State{};
  state_.last_action = last_action;
}

// Numbers in comments are those of the published rules.
env::Outcome Seaquest::step(std::int32_t chosen, env::Rng& rng) {
  State& s = state_;
  const std::int32_t action = controls_.execute(chosen, s.last_action, rng);
  if (s.ended != 0) return {.reward = 0, .terminated = true};
  env::Outcome outcome;
  // 1. and 2. Newcomers.
  if (s.spawn_countdown == 0) {
    spawn_enemy(rng);
    s.spawn_countdown = s.spawn_interval;
  }
  if (s.diver_countdown == 0) {
    spawn_diver(rng);
    s.diver_countdown = diver_interval;
  }
  // 3. to 8. Everything that moves.
  act(action);
  move_bullets(outcome);
  move_divers();
  move_enemies(s.submarines, true, outcome);
  move_enemy_bullets();
  move_enemies(s.fish, false, outcome);
  // 9. Countdowns.
  for (std::int32_t* countdown : {&s.spawn_countdown, &s.diver_countdown, &s.cooldown}) {
    if (*countdown > 0) --*countdown;
  }
  // 10. and 11. Oxygen and the surface.
  breathe(outcome);
  outcome.terminated = s.ended != 0;
  return outcome;
}

void Seaquest::spawn_enemy(env::Rng& rng) {
  const bool submarine = rng.below(3) == 0;
  Swimmer enemy = at_edge(rng, state_.move_interval);
  const auto opposes = [&](const Swimmer& other) { return other.row == enemy.row && other.heading != enemy.heading; };
  if (std::any_of(state_.fish.begin(), state_.fish.end(), opposes) ||
      std::any_of(state_.submarines.begin(), state_.submarines.end(), opposes)) {
    return;
  }
  if (submarine) {
    enemy.shot_countdown = shot_interval;
    state_.submarines.add(enemy);
  } else {
    state_.fish.add(enemy);
  }
}

void Seaquest::spawn_diver(env::Rng& rng) { state_.swimmers.add(at_edge(rng, diver_move_interval)); }

void Seaquest::act(std::int32_t action) {
  State& s = state_;
  switch (action) {
    case fire:
      if (s.cooldown > 0) break;
      s.bullets.add({.row = static_cast<std::int8_t>(s.row),
                     .column = static_cast<std::int8_t>(s.column),
                     .heading = static_cast<std::int8_t>(s.heading)});
      s.cooldown = gun_interval;
      break;
    case left:
    case right:
      s.heading = action == right ? 1 : -1;
      s.column = moved(s.column, s.heading, 0, size - 1);
      break;
    case up:
    case down:
      s.row = moved(s.row, action == down ? 1 : -1, 0, deepest);
      break;
    default:
      break;
  }
}

void Seaquest::move_bullets(env::Outcome& outcome) {
  auto& bullets = state_.bullets;
  for (int i = bullets.size() - 1; i >= 0; --i) {
    Swimmer& bullet = bullets[i];
    advance(bullet);
    if (!on_grid(bullet.column)) {
      bullets.remove(i);
    } else if (hits(state_.fish, bullet) || hits(state_.submarines, bullet)) {
      bullets.remove(i);
      outcome.reward += 1;
    }
  }
}

void Seaquest::move_divers() {
  auto& swimmers = state_.swimmers;
  const auto picked_up = [&](int i) {
    if (!at_player(swimmers[i]) || state_.divers >= full_boat) return false;
    ++state_.divers;
    swimmers.remove(i);
    return true;
  };
  for (int i = swimmers.size() - 1; i >= 0; --i) {
    if (picked_up(i) || !due(swimmers[i].move_countdown)) continue;
    swimmers[i].move_countdown = diver_move_interval;
    advance(swimmers[i]);
    if (!on_grid(swimmers[i].column)) {
      swimmers.remove(i);
    } else {
      static_cast<void>(picked_up(i));
    }
  }
}

template <std::size_t N>
void Seaquest::move_enemies(List<N>& enemies, bool armed, env::Outcome& outcome) {
  State& s = state_;
  for (int i = enemies.size() - 1; i >= 0; --i) {
    Swimmer& enemy = enemies[i];
    if (at_player(enemy)) s.ended = 1;
    bool gone = false;
    if (due(enemy.move_countdown)) {
      enemy.move_countdown = static_cast<std::int8_t>(s.move_interval);
      advance(enemy);
      if (!on_grid(enemy.column)) {
        gone = true;
      } else if (at_player(enemy)) {
        s.ended = 1;
      } else if (hits(s.bullets, enemy)) {
        outcome.reward += 1;
        gone = true;
      }
    }
    // A submarine hit in this step still shoots; one that has left the grid shoots from there, which nobody sees.
    if (armed && due(enemy.shot_countdown)) {
      enemy.shot_countdown = shot_interval;
      if (on_grid(enemy.column)) {
        s.enemy_bullets.add({.row = enemy.row, .column = enemy.column, .heading = enemy.heading});
      }
    }
    if (gone) enemies.remove(i);
  }
}

void Seaquest::move_enemy_bullets() {
  auto& bullets = state_.enemy_bullets;
  for (int i = bullets.size() - 1; i >= 0; --i) {
    if (at_player(bullets[i])) state_.ended = 1;
    advance(bullets[i]);
    if (!on_grid(bullets[i].column)) {
      bullets.remove(i);
    } else if (at_player(bullets[i])) {
      state_.ended = 1;
    }
  }
}

void Seaquest::breathe(env::Outcome& outcome) {
  State& s = state_;
  if (s.oxygen <= 0) s.ended = 1;
  if (s.row > 0) {
    --s.oxygen;
    s.surfaced = 0;
  } else if (s.surfaced == 0) {
    if (s.divers == 0) {
      s.ended = 1;
    } else {
      surface(outcome);
    }
  }
}

void Seaquest::surface(env::Outcome& outcome) {
  State& s = state_;
  s.surfaced = 1;
  if (s.divers == full_boat) {
    const auto cells = s.oxygen / oxygen_a_cell;  // whole ones
    outcome.reward += static_cast<float>(cells);
    s.divers = 0;
  }
  s.oxygen = full_oxygen;
  --s.divers;  // in every case: after a rescue -1 is left
  if (!ramping_ || (s.spawn_interval <= 1 && s.move_interval <= lowest_move_interval)) return;
  ++s.level;
  if (s.spawn_interval > 1) --s.spawn_interval;
  if (s.level % 2 == 0 && s.move_interval > lowest_move_interval) --s.move_interval;
}

void Seaquest::observe(const env::Row& row) const {
  const State& s = state_;
  const Board board(row.at<std::uint8_t>());
  board.set(0, s.row, s.column);
  board.set(1, s.row, s.column - s.heading);
  const auto show = [&](int plane, const auto& list, bool trail) {
    for (const Swimmer& swimmer : list) {
      board.set(plane, swimmer.row, swimmer.column);
      if (trail) board.set_if_on_grid(3, swimmer.row, swimmer.column - swimmer.heading);
    }
  };
  show(2, s.bullets, false);
  show(4, s.enemy_bullets, false);
  show(5, s.fish, true);
  show(6, s.submarines, true);
  show(9, s.swimmers, true);
  board.set_row(7, size - 1, 0, s.oxygen / oxygen_a_cell);
  board.set_row(8, size - 1, size - 1 - std::max(s.divers, 0), size - 1);
}

env::Image Seaquest::render() const {
  static constexpr std::array<Paint, 10> paints = {{{0, {255, 255, 255}},
                                                    {1, {160, 160, 160}},
                                                    {2, {255, 255, 120}},
                                                    {4, {255, 120, 40}},
                                                    {6, {220, 60, 60}},
                                                    {5, {200, 80, 200}},
                                                    {9, {80, 220, 120}},
                                                    {8, {60, 160, 90}},
                                                    {7, {64, 160, 255}},
                                                    {3, {60, 60, 60}}}};
  return picture_of_board(*this, paints);
}

void Seaquest::set_state(const State& s) {
  // A spawn countdown longer than any interval is allowed: it holds spawns back.
  constexpr int longest = 1'000'000;
  const auto sound = [](const auto& list, int highest_row, int move_limit, int shot_limit) {
    return list.count <= list.items.size() &&
           std::all_of(list.begin(), list.end(),
                       [&](const Swimmer& swimmer) {
                         return within(swimmer.row, highest_row, deepest) && on_grid(swimmer.column) &&
                                is_heading(swimmer.heading) && within(swimmer.move_countdown, 0, move_limit) &&
                                within(swimmer.shot_countdown, 0, shot_limit);
                       }) &&
           std::all_of(list.end(), list.items.data() + list.items.size(),
                       [](const Swimmer& swimmer) { return swimmer == Swimmer{}; });
  };
  const int slowest = State{}.move_interval;
  if (!within(s.row, 0, deepest) || !on_grid(s.column) || !is_heading(s.heading) || !on_grid(s.column - s.heading) ||
      !within(s.oxygen, -1, full_oxygen) || !within(s.divers, -longest, full_boat) || !within(s.surfaced, 0, 1) ||
      !within(s.cooldown, 0, gun_interval) || !within(s.spawn_interval, 1, State{}.spawn_interval) ||
      !within(s.spawn_countdown, 0, longest) || !within(s.diver_countdown, 0, longest) ||
      !within(s.move_interval, lowest_move_interval, slowest) || !within(s.level, 0, 19) || !within(s.ended, 0, 1) ||
      !within(s.last_action, 0, all_actions - 1) || !sound(s.bullets, 0, 0, 0) || !sound(s.enemy_bullets, 1, 0, 0) ||
      !sound(s.fish, 1, slowest, 0) || !sound(s.submarines, 1, slowest, shot_interval) ||
      !sound(s.swimmers, 1, diver_move_interval, 0)) {
    throw std::invalid_argument("seaquest: a state out of range");
  }
  state_ = s;
}

const qanat_env_table& seaquest_table() { return env::table_of<Seaquest>; }

}  // namespace qanat::envs
