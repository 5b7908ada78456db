// The fused tier: the double-DQN update of the Nature network (dueling or not) in our own Hopper kernels.
//
// It keeps the contract of QTrainer and the arithmetic of the general path in bf16: products of bf16 (conv1: fp16)
// operands summed in f32, f32 master weights, moments and targets. See nn/cuda/nature/kernels.h for the parts.
#pragma once

#include <memory>
#include <string>

#include "nn/backend.h"
#include "nn/cuda/device.h"

namespace qanat::nn::nature {

// Why these kernels cannot train this network with these options on this device; empty when they can.
[[nodiscard]] std::string obstacle(const NetworkSpec& spec, const TrainerOptions& options, const cuda::Device& device);

// Precondition: no obstacle, and check_options() has passed.
[[nodiscard]] std::unique_ptr<QTrainer> make_trainer(const NetworkSpec& spec, const TrainerOptions& options,
                                                     const cuda::Device& device);

}  // namespace qanat::nn::nature
