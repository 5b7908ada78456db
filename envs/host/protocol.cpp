#include "envs/host/protocol.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "core/bytes.h"
#include "core/error.h"

namespace qanat::envs::host {
namespace {

constexpr std::uint64_t max_text = 64 << 10;
constexpr std::uint64_t max_names = 1024;
constexpr std::uint64_t max_dims = 4096;

ByteWriter begin_message() {
  ByteWriter out;
  out.put(protocol_magic);
  out.put(protocol_version);
  return out;
}

ByteReader begin_reading(std::span<const std::byte> bytes, const std::string& from) {
  ByteReader in(bytes, from);
  const auto magic = in.get<std::uint64_t>("magic");
  if (magic != protocol_magic) in.fail("magic", text("saw ", magic, ", wanted ", protocol_magic));
  const auto version = in.get<std::uint32_t>("version");
  if (version != protocol_version) {
    in.fail("version", text("it speaks version ", version, " of the host protocol, this program ", protocol_version));
  }
  return in;
}

template <class Pairs>
void put_pairs(ByteWriter& out, const Pairs& pairs) {
  out.put<std::uint64_t>(pairs.size());
  for (const auto& [key, value] : pairs) {
    out.put_string(key);
    out.put_string(value);
  }
}

Protocol get_pairs(ByteReader& in, const char* what) {
  Protocol pairs(in.get_count(what, max_names, 16));
  for (auto& [key, value] : pairs) {
    key = in.get_string(what, max_text);
    value = in.get_string(what, max_text);
  }
  return pairs;
}

}  // namespace

void OwnedSpec::link() {
  tensors_.clear();
  metric_names_.clear();
  for (const auto& o : observations) {
    tensors_.push_back({.name = o.name.c_str(),
                        .dtype = o.dtype,
                        .rank = static_cast<std::uint32_t>(o.shape.size()),
                        .shape = o.shape.data(),
                        .low = o.low,
                        .high = o.high});
  }
  for (const auto& name : metrics) metric_names_.push_back(name.c_str());
  spec_ = {};
  spec_.struct_size = sizeof spec_;
  spec_.observation_count = static_cast<std::uint32_t>(tensors_.size());
  spec_.tensor_size = sizeof(qanat_env_tensor);
  spec_.observations = tensors_.data();
  spec_.action_kind = action_kind;
  if (action_kind == QANAT_ENV_DISCRETE) {
    spec_.action_n = action_n;
  } else if (action_kind == QANAT_ENV_MULTI_DISCRETE) {
    spec_.action_dims = static_cast<std::uint32_t>(nvec.size());
    spec_.action_nvec = nvec.data();
  } else {
    spec_.action_dims = static_cast<std::uint32_t>(low.size());
    spec_.action_low = low.data();
    spec_.action_high = high.data();
  }
  spec_.has_action_mask = has_action_mask ? 1 : 0;
  spec_.metric_count = static_cast<std::uint32_t>(metric_names_.size());
  spec_.metrics = metric_names_.data();
  spec_.max_episode_steps = max_episode_steps;
  spec_.can_snapshot = can_snapshot ? 1 : 0;
  spec_.can_render = can_render ? 1 : 0;
}

Layout layout_of(const EnvSpec& spec, std::size_t slots) {
  Layout layout;
  layout.slots = slots;
  std::uint64_t end = control_bytes;
  const auto place = [&](std::uint64_t bytes_a_slot) {
    const std::uint64_t at = end;
    if (bytes_a_slot > 0 && slots > (max_shared_bytes - end) / bytes_a_slot) {
      throw ConfigError(text("environment ", spec.id, ": ", slots, " slots need more than ", max_shared_bytes >> 30,
                             " GiB of shared memory"));
    }
    end += (bytes_a_slot * slots + 63) / 64 * 64;
    return at;
  };
  layout.seeds = place(sizeof(std::uint64_t));
  layout.which = place(1);
  layout.actions = place(spec.action.dims() * sizeof(std::int32_t));
  layout.rewards = place(sizeof(float));
  layout.terminated = place(1);
  layout.truncated = place(1);
  layout.resetting = place(1);
  const std::size_t choices = spec.has_action_mask ? spec.action.choices() : 0;
  layout.mask = place(choices);
  layout.final_mask = place(choices);
  layout.metrics = place(spec.metrics.size() * sizeof(double));
  for (const auto& observation : spec.observations) {
    layout.observations.push_back(place(observation.tensor.bytes()));
    layout.final_observations.push_back(place(observation.tensor.bytes()));
  }
  layout.scratch = end;
  layout.total = end + scratch_bytes;
  return layout;
}

std::vector<std::byte> encode(const Request& request) {
  ByteWriter out = begin_message();
  put_pairs(out, request);
  return out.take();
}

Request decode_request(std::span<const std::byte> bytes) {
  ByteReader in = begin_reading(bytes, "environment host's request");
  Request request;
  for (auto& [key, value] : get_pairs(in, "request")) request[key] = value;
  in.expect_end();
  return request;
}

std::vector<std::byte> encode(const Description& d) {
  ByteWriter out = begin_message();
  out.put_string(d.error);
  if (!d.error.empty()) return out.take();
  const OwnedSpec& spec = d.spec;
  out.put_string(spec.id);
  out.put<std::uint64_t>(spec.observations.size());
  for (const auto& o : spec.observations) {
    out.put_string(o.name);
    out.put(o.dtype);
    out.put_vector(o.shape);
    out.put(o.low);
    out.put(o.high);
  }
  out.put(spec.action_kind);
  out.put(spec.action_n);
  out.put_vector(spec.nvec);
  out.put_vector(spec.low);
  out.put_vector(spec.high);
  out.put(spec.has_action_mask);
  out.put<std::uint64_t>(spec.metrics.size());
  for (const auto& name : spec.metrics) out.put_string(name);
  out.put(spec.max_episode_steps);
  out.put(spec.can_snapshot);
  out.put(spec.can_render);
  put_pairs(out, d.protocol);
  return out.take();
}

Description decode_description(std::span<const std::byte> bytes, const std::string& from) {
  ByteReader in = begin_reading(bytes, from);
  Description d;
  d.error = in.get_string("error", max_text);
  if (!d.error.empty()) return d;
  OwnedSpec& spec = d.spec;
  spec.id = in.get_string("id", max_text);
  spec.observations.resize(in.get_count("observations", QANAT_ENV_MAX_OBSERVATIONS, 1));
  for (auto& o : spec.observations) {
    o.name = in.get_string("observation name", max_text);
    o.dtype = in.get<std::uint32_t>("observation dtype");
    o.shape = in.get_vector<std::int64_t>("observation shape", 8);
    o.low = in.get<double>("observation low");
    o.high = in.get<double>("observation high");
  }
  spec.action_kind = in.get<std::uint32_t>("action kind");
  spec.action_n = in.get<std::int64_t>("number of actions");
  spec.nvec = in.get_vector<std::int64_t>("action nvec", max_dims);
  spec.low = in.get_vector<float>("action low", max_dims);
  spec.high = in.get_vector<float>("action high", max_dims);
  if (spec.low.size() != spec.high.size()) in.fail("action high", "another length than action low");
  spec.has_action_mask = in.get<bool>("action mask");
  spec.metrics.resize(in.get_count("metrics", max_names, 8));
  for (auto& name : spec.metrics) name = in.get_string("metric name", max_text);
  spec.max_episode_steps = in.get<std::int64_t>("max episode steps");
  spec.can_snapshot = in.get<bool>("can snapshot");
  spec.can_render = in.get<bool>("can render");
  d.protocol = get_pairs(in, "protocol");
  in.expect_end();
  return d;
}

std::vector<std::byte> encode(const Layout& layout) {
  ByteWriter out = begin_message();
  for (const std::uint64_t value :
       {layout.slots, layout.seeds, layout.which, layout.actions, layout.rewards, layout.terminated, layout.truncated,
        layout.resetting, layout.mask, layout.final_mask, layout.metrics, layout.scratch, layout.total}) {
    out.put(value);
  }
  out.put_vector(layout.observations);
  out.put_vector(layout.final_observations);
  return out.take();
}

Layout decode_layout(std::span<const std::byte> bytes) {
  ByteReader in = begin_reading(bytes, "environment host's layout");
  Layout layout;
  for (std::uint64_t* value : {&layout.slots, &layout.seeds, &layout.which, &layout.actions, &layout.rewards,
                               &layout.terminated, &layout.truncated, &layout.resetting, &layout.mask,
                               &layout.final_mask, &layout.metrics, &layout.scratch, &layout.total}) {
    *value = in.get<std::uint64_t>("layout");
  }
  layout.observations = in.get_vector<std::uint64_t>("observations", QANAT_ENV_MAX_OBSERVATIONS);
  layout.final_observations = in.get_vector<std::uint64_t>("final observations", QANAT_ENV_MAX_OBSERVATIONS);
  in.expect_end();
  return layout;
}

SharedMemory::SharedMemory(int file, std::uint64_t bytes) : bytes_(bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  if (at == MAP_FAILED) {
    throw SystemError(text("cannot map ", bytes, " bytes shared with an environment host: ", std::strerror(errno)));
  }
  base_ = static_cast<std::byte*>(at);
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

SharedMemory::~SharedMemory() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

}  // namespace qanat::envs::host
