// A whole run in one process on one thread, bit-for-bit repeatable: the same roles, over inproc sockets, stepped in
// turn by a virtual clock.
//
// At every checkpoint (checkpoint.every_updates, and the end) the run comes to rest, saves everything, and is built
// anew from what it saved. A resumed run is therefore the same computation as one that never stopped, provided that
// both have checkpoints at the same updates.
#pragma once

#include "cli/run_dir.h"

namespace qanat::cli {

// Runs to stop.updates. Prints the hash of the weights. Returns the exit code.
int train_lockstep(const TrainOptions& options, const RunDirectory& run);

}  // namespace qanat::cli
