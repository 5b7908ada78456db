// `qanat doctor`: what this machine offers a run, and what to do about what is missing.
#pragma once

namespace qanat::cli {

// Prints it. Returns the exit code: 0 also when there is no GPU, since none is needed.
int doctor();

}  // namespace qanat::cli
