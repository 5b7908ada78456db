// The maths of one LSTM cell of one sample, forward and backward (Gers et al., "Learning to Forget", 2000; gates in
// PyTorch's order). Host and device code, shared by every backend.
//
// Pure functions and values. Thread safe. Real is float or double.
#pragma once

#include <cmath>

#include "nn/td.h"

namespace qanat::nn {

// After their nonlinearity; as gradients: with respect to the sums before it.
template <class Real>
struct LstmGates {
  Real input, forget, cell, output;
};

template <class Real>
QANAT_HOST_DEVICE Real sigmoid(Real x) {
  using std::exp;
  return Real(1) / (Real(1) + exp(-x));
}

template <class Real>
QANAT_HOST_DEVICE LstmGates<Real> lstm_gates(const LstmGates<Real>& sums) {
  using std::tanh;
  return {sigmoid(sums.input), sigmoid(sums.forget), tanh(sums.cell), sigmoid(sums.output)};
}

// c = f c_before + i g; the output is h = o tanh(c).
template <class Real>
QANAT_HOST_DEVICE Real lstm_cell(const LstmGates<Real>& gates, Real cell_before) {
  return gates.forget * cell_before + gates.input * gates.cell;
}

// From d loss / d h of this step (all that reads h, the next step included) and d loss / d c from the next step, which
// becomes that of the step before.
template <class Real>
QANAT_HOST_DEVICE LstmGates<Real> lstm_cell_gradient(const LstmGates<Real>& gates, Real cell, Real cell_before,
                                                     Real output_gradient, Real& cell_gradient) {
  using std::tanh;
  const Real squashed = tanh(cell);
  const Real of_cell = cell_gradient + output_gradient * gates.output * (Real(1) - squashed * squashed);
  cell_gradient = of_cell * gates.forget;
  return {of_cell * gates.cell * gates.input * (Real(1) - gates.input),
          of_cell * cell_before * gates.forget * (Real(1) - gates.forget),
          of_cell * gates.input * (Real(1) - gates.cell * gates.cell),
          output_gradient * squashed * gates.output * (Real(1) - gates.output)};
}

}  // namespace qanat::nn
