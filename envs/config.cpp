#include "core/config.h"

#include "envs/vector_env.h"

namespace qanat::envs {

void AtariConfig::describe(ConfigVisitor& v) {
  v.field("preset", preset,
          "Protocol of ids that begin with ALE/: v5 is what those ids say, the others are the papers' (see "
          "docs/environments_python.md). Single fields are changed by env.kwargs. Evaluation always plays whole games "
          "for raw "
          "rewards.",
          {"v5", "dqn2015", "machado2018", "apex", "btr", "pqn", "atari100k"});
  v.field("threads", threads,
          "Threads that step the games of one group of slots; an actor's two groups take turns. 0: one a "
          "game, at most one a processor; so it always is in periodic evaluations.",
          {.low = 0, .high = 4096});
}

void EnvConfig::describe(ConfigVisitor& v) {
  v.field("id", id,
          "The environment: a built-in id such as CartPole-v1, catch or MinAtar/breakout. With plugin: which of its "
          "environments; may be left out when it holds one.");
  v.field("plugin", plugin,
          "A shared object with environments (docs/environments.md), relative to the configuration file. It is loaded "
          "into the processes that step it; actors on other hosts look for it at the same path.");
  v.field("options", options, "The environment's own options, as key=value,key=value.");
  v.field("max_episode_steps", max_episode_steps,
          "Steps after which an episode is truncated; 0 keeps the environment's own limit.", {.low = 0});
  v.field("gymnasium", gymnasium,
          "Instead of id: a registered Gymnasium id such as ALE/Pong-v5, or MODULE:ID, which imports MODULE first. It "
          "runs in Python processes that Qanat starts and watches over.");
  v.field("python", python,
          "The Python (3.10 or newer, with numpy and gymnasium) for env.gymnasium: a name is looked for on the PATH, a "
          "path is relative to the configuration file.");
  v.field(
      "python_path", python_path,
      "Folder in which Python looks for MODULE first, relative to the configuration file; left out: the file's own. "
      "The working directory comes next.");
  v.field("kwargs", kwargs,
          "Arguments for gymnasium.make as a JSON object, such as {\"map_name\": \"8x8\"}. {index} in it becomes the "
          "instance's number, which no other of the run has.");
  v.field("vectorization", vectorization,
          "entry_point: the id's own vector class. slots: single environments, stepped one after the other, each with "
          "its own seed. auto: the vector class where there is one.",
          {"auto", "entry_point", "slots"});
  v.field("channels", channels,
          "Which axis of a Python environment's three-dimensional observation holds the channels; networks get "
          "[C, H, W]. auto: the shorter of the first and the last, the last when equal.",
          {"auto", "first", "last"});
  v.field("observations", observations,
          "Which parts of a Python environment's Dict observation to take, in this order, such as [image, direction]; "
          "empty: all of them.");
  v.section("atari", atari, "Atari games by ale-py.");
  v.field("isolate", isolate, "Runs a C or C++ environment in a process of its own, so that its crash is not ours.");
  v.field("action_bins", action_bins, "Values that each number of a Box action is divided into, bounds included.",
          {.low = 2, .high = 4096});
  v.field(
      "step_timeout_seconds", step_timeout_seconds,
      "A hosted environment's step that takes longer (of one slot; of all where one call steps all) is a fault: its "
      "process is killed and started again, its episodes end as truncated. Five faults in ten minutes end the run.",
      {.low = 0.01});
  v.field("reset_timeout_seconds", reset_timeout_seconds,
          "The same for one slot's reset, also for one within a step; half a second is added for each slot where one "
          "call resets all.",
          {.low = 0.01});
  v.field("make_timeout_seconds", make_timeout_seconds,
          "A hosted environment that takes longer to be made ends the run; half a second is added for each slot.",
          {.low = 0.01});
  v.field("close_timeout_seconds", close_timeout_seconds,
          "How long a hosted environment's close() may take at the end; what it leaves running is then killed.",
          {.low = 0.01});
}

}  // namespace qanat::envs
