# shellcheck shell=bash
# Shared by the scripts: where things are, and how they talk. Sourced, not run.
# Works in a clone (the program is built) and in a bundle (the program is there).
# shellcheck disable=SC2034  # used by the scripts that source this file
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build_dir=${QANAT_BUILD_DIR:-$root/build/release}
venv=${QANAT_VENV:-$root/.venv}

# say LINE...
say() { printf '%s\n' "$@" >&2; }
# die CODE MESSAGE...: the message says what to do next.
die() {
  local code=$1
  shift
  say "$@"
  exit "$code"
}

in_bundle() { [[ ! -f $root/CMakeLists.txt ]]; }
qanat_binary() { if in_bundle; then echo "$root/bin/qanat"; else echo "$build_dir/qanat"; fi; }

# Whether one may write where the build is, or make it.
build_is_ours() {
  local place=$build_dir.lock
  while [[ ! -e $place ]]; do place=$(dirname "$place"); done
  [[ -w $place ]]
}

# Runs qanat in the caller's directory; builds it first where that is possible.
exec_qanat() {
  if ! in_bundle && [[ -x $(qanat_binary) ]] && ! build_is_ours; then
    say "note: $(qanat_binary) is run as it was built: you may not write to $build_dir"
  else
    in_bundle || "$root/scripts/build" qanat || exit
  fi
  exec "$(qanat_binary)" "$@"
}

# Python with PyTorch, Gymnasium and TensorBoard, for the tests that compare with them.
export_test_python() {
  if [[ -z ${QANAT_TEST_PYTHON:-} && -x $venv/bin/python ]]; then export QANAT_TEST_PYTHON=$venv/bin/python; fi
}
