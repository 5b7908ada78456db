#include "learner/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/files.h"

namespace qanat::learner {
namespace {

namespace fs = std::filesystem;

// Of weights with a 1 and of learners with a 1 or 2 in their place: files of earlier versions.
constexpr std::uint32_t weights_magic = 0x32575451;         // "QTW2"
constexpr std::uint32_t first_weights_magic = 0x31575451;   // without statistics
constexpr std::uint32_t learner_magic = 0x334c5451;         // "QTL3"
constexpr std::uint32_t second_learner_magic = 0x324c5451;  // with the best evaluation's mean, which best.json has too
constexpr std::uint32_t first_learner_magic = 0x314c5451;   // the same without statistics
constexpr int manifest_format = 2;
constexpr int first_manifest_format = 1;  // without files and checksum
constexpr std::uint64_t max_elements = std::uint64_t{1} << 32;
constexpr std::string_view prefix = "step-";
constexpr std::string_view again = ".again";  // written while another at the same update was there

WrittenFile write_with_checksum(const fs::path& file, ByteWriter& out) {
  out.put(checksum(out.bytes()));
  return write_file_atomically(file, out.bytes());
}

// The bytes without their checksum, which must fit.
std::vector<std::byte> read_with_checksum(const fs::path& file) {
  auto bytes = read_file(file);
  if (bytes.size() < sizeof(std::uint64_t))
    throw InputError(text(file.string(), ": is only ", bytes.size(), " bytes long"));
  std::uint64_t wanted = 0;
  std::memcpy(&wanted, bytes.data() + bytes.size() - sizeof wanted, sizeof wanted);
  bytes.resize(bytes.size() - sizeof wanted);
  if (checksum(bytes) != wanted) throw InputError(text(file.string(), ": checksum mismatch, the file is damaged"));
  return bytes;
}

void put_bytes(ByteWriter& out, std::span<const std::byte> bytes) {
  out.put<std::uint64_t>(bytes.size());
  out.put_raw(bytes);
}

std::vector<std::byte> get_bytes(ByteReader& in, std::string_view what) {
  const auto bytes = in.get_raw(what, in.get_count(what, max_elements, 1));
  return {bytes.begin(), bytes.end()};
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += text(i ? ", " : "", shape[i]);
  return out + "]";
}

}  // namespace

WrittenFile save_weights(const fs::path& file, const nn::NetworkSpec& spec, const nn::WeightsView& weights) {
  ByteWriter out;
  out.put(weights_magic);
  const auto layout = nn::parameter_layout(spec);
  out.put<std::uint64_t>(layout.size());
  for (const auto& tensor : layout) {
    out.put_string(tensor.name);
    out.put_vector(tensor.shape);
    out.put_vector(weights.parameters.subspan(tensor.offset, tensor.elements()));
  }
  put_bytes(out, weights.statistics);
  return write_with_checksum(file, out);
}

nn::Weights load_weights(const fs::path& file, const nn::NetworkSpec& spec) {
  const auto bytes = read_with_checksum(file);
  ByteReader in(bytes, file.string());
  const auto magic = in.get<std::uint32_t>("magic");
  if (magic != weights_magic && magic != first_weights_magic) in.fail("magic", "not a Qanat weights file");
  struct Tensor {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, Tensor> found;
  for (auto count = in.get_count("tensors", 100'000, 8); count > 0; --count) {
    const auto name = in.get_string("tensor name", 1000);
    Tensor tensor;
    tensor.shape = in.get_vector<std::int64_t>("shape", 8);
    tensor.values = in.get_vector<float>("values", max_elements);
    found[name] = std::move(tensor);
  }
  nn::Weights weights;
  if (magic == weights_magic) weights.statistics = get_bytes(in, "statistics");
  in.expect_end();
  weights.parameters.resize(nn::parameter_count(spec));
  std::string wrong;
  for (const auto& tensor : nn::parameter_layout(spec)) {
    const auto it = found.find(tensor.name);
    if (it == found.end()) {
      wrong += text("\n  ", tensor.name, ": missing in the file, wanted ", shape_text(tensor.shape));
    } else if (it->second.shape != tensor.shape || it->second.values.size() != tensor.elements()) {
      wrong += text("\n  ", tensor.name, ": saw ", shape_text(it->second.shape), ", wanted ", shape_text(tensor.shape));
    } else {
      std::copy(it->second.values.begin(), it->second.values.end(),
                weights.parameters.begin() + static_cast<std::ptrdiff_t>(tensor.offset));
    }
    if (it != found.end()) found.erase(it);
  }
  for (const auto& [name, tensor] : found)
    wrong += text("\n  ", name, ": in the file only, ", shape_text(tensor.shape));
  if (!wrong.empty()) throw ConfigError(text(file.string(), ": the weights are of another network:", wrong));
  return weights;
}

WrittenFile save_learner(const fs::path& file, const LearnerState& state) {
  ByteWriter out;
  out.put(learner_magic);
  out.put_vector(state.online);
  out.put_vector(state.target);
  put_bytes(out, state.optimizer);
  out.put(state.updates);
  out.put(state.trained_steps);
  out.put(state.skipped);
  out.put(state.sampling);
  put_bytes(out, state.statistics);
  return write_with_checksum(file, out);
}

LearnerState load_learner(const fs::path& file) {
  const auto bytes = read_with_checksum(file);
  ByteReader in(bytes, file.string());
  const auto magic = in.get<std::uint32_t>("magic");
  if (magic != learner_magic && magic != second_learner_magic && magic != first_learner_magic)
    in.fail("magic", "not a Qanat learner file");
  LearnerState state;
  state.online = in.get_vector<float>("online parameters", max_elements);
  state.target = in.get_vector<float>("target parameters", max_elements);
  state.optimizer = get_bytes(in, "optimiser");
  state.updates = in.get<std::uint64_t>("updates");
  state.trained_steps = in.get<std::uint64_t>("trained steps");
  state.skipped = in.get<std::uint64_t>("skipped updates");
  state.sampling = in.get<Rng::State>("sampling state");
  if (magic != learner_magic) {
    (void)in.get<double>("best score");
    (void)in.get<bool>("has best");
  }
  if (magic != first_learner_magic) state.statistics = get_bytes(in, "statistics");
  in.expect_end();
  return state;
}

std::string checkpoint_name(std::uint64_t updates) {
  auto digits = std::to_string(updates);
  return std::string(prefix) + std::string(digits.size() < 10 ? 10 - digits.size() : 0, '0') + digits;
}

namespace {

bool is_complete(const fs::path& directory) { return fs::exists(directory / "manifest.json"); }

// Complete ones first to last; names sort by updates.
std::vector<fs::path> checkpoints_in(const fs::path& checkpoints, bool complete) {
  std::vector<fs::path> out;
  if (!fs::exists(checkpoints)) return out;
  for (const auto& name : list_directory(checkpoints)) {
    if (!name.starts_with(prefix)) continue;
    if (is_complete(checkpoints / name) == complete) out.push_back(checkpoints / name);
  }
  return out;
}

}  // namespace

void discard_checkpoint(const fs::path& directory) {
  std::error_code ignored;  // what cannot be removed now is tried again after the next checkpoint
  fs::remove(directory / "manifest.json", ignored);  // first, so that a half-removed one is never loaded
  fs::remove_all(directory, ignored);
}

namespace {

// Of everything else that the manifest says.
std::uint64_t own_checksum(nlohmann::json manifest) {
  manifest.erase("checksum");
  return checksum(bytes_of(manifest.dump()));
}

void write_manifest(const fs::path& directory, const Manifest& manifest) {
  nlohmann::json json = {{"format", manifest_format},       {"updates", manifest.updates},
                         {"env_steps", manifest.env_steps}, {"shards", manifest.shards},
                         {"commit", manifest.commit},       {"files", nlohmann::json::object()}};
  for (const auto& file : manifest.files)
    json["files"][file.name] = {{"bytes", file.bytes}, {"checksum", file.checksum}};
  if (!manifest.missing.empty()) json["missing"] = manifest.missing;
  json["checksum"] = own_checksum(json);
  write_file_atomically(directory / "manifest.json", json.dump(2) + "\n");
}

}  // namespace

Manifest read_manifest(const fs::path& directory) {
  const auto file = directory / "manifest.json";
  try {
    const auto json = nlohmann::json::parse(read_text_file(file, 1 << 20));
    Manifest manifest{json.at("updates"), json.at("env_steps"), json.at("shards"), json.at("commit"), {}, {}};
    const int format = json.at("format");
    if (format == first_manifest_format && !json.contains("checksum")) return manifest;
    if (format != manifest_format)
      throw InputError(text(file.string(), ": saw format ", format, ", wanted ", manifest_format));
    if (json.at("checksum") != own_checksum(json))
      throw InputError(text(file.string(), ": checksum mismatch, the file is damaged"));
    for (const auto& [name, written] : json.at("files").items())
      manifest.files.push_back({name, written.at("bytes"), written.at("checksum")});
    if (json.contains("missing")) manifest.missing = json.at("missing");
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(text(file.string(), ": ", error.what()));
  }
}

fs::path new_checkpoint(const fs::path& checkpoints, std::uint64_t updates) {
  const auto directory = checkpoints / checkpoint_name(updates);
  auto other = directory;
  other += again;
  return fs::exists(directory) && !is_complete(other) ? other : directory;
}

fs::path complete_checkpoint(const fs::path& directory, const Manifest& manifest) {
  write_manifest(directory, manifest);
  sync_directory(directory.parent_path());  // before another goes for it
  const auto lasting = directory.parent_path() / checkpoint_name(manifest.updates);
  auto other = lasting;
  if (directory == lasting) other += again;
  discard_checkpoint(other);
  if (directory == lasting) return lasting;
  std::error_code failed;  // then it goes on under the name that it has: complete, and the newest
  fs::rename(directory, lasting, failed);
  return failed ? directory : lasting;
}

void verify_checkpoint(const fs::path& directory) {
  for (const auto& file : read_manifest(directory).files) {
    const bool taken_away =
        file.name.starts_with("shard-") && !fs::exists((directory / file.name).replace_extension(".bin"));
    if (!taken_away) verify_file(directory, file);
  }
}

std::optional<VerifiedCheckpoint> newest_verified_checkpoint(const fs::path& checkpoints) {
  auto all = checkpoints_in(checkpoints, true);
  if (all.empty()) return std::nullopt;
  VerifiedCheckpoint out;
  std::string wrong;
  for (; !all.empty(); all.pop_back()) {
    try {
      verify_checkpoint(all.back());
      out.directory = all.back();
      return out;
    } catch (const InputError& error) {
      out.newer.push_back({all.back(), error.what()});
      wrong += text("\n  ", error.what());
    }
  }
  throw InputError(text("no checkpoint in ", checkpoints.string(), " is as it was written:", wrong));
}

fs::path set_aside(const fs::path& directory) {
  auto aside = directory.parent_path() / text("damaged-", directory.filename().string());
  const auto first = aside;
  for (int number = 2; fs::exists(aside); ++number) aside = text(first.string(), '.', number);
  std::error_code error;
  fs::rename(directory, aside, error);
  if (error) throw_system_error("set aside", directory, error.value());
  return aside;
}

std::optional<fs::path> newest_checkpoint(const fs::path& checkpoints) {
  const auto all = checkpoints_in(checkpoints, true);
  if (all.empty()) return std::nullopt;
  return all.back();
}

void prune_checkpoints(const fs::path& checkpoints, std::size_t keep) {
  const auto complete = checkpoints_in(checkpoints, true);
  if (complete.empty()) return;
  for (std::size_t i = 0; i + keep < complete.size(); ++i) discard_checkpoint(complete[i]);
  for (const auto& broken : checkpoints_in(checkpoints, false)) {
    if (broken < complete.back()) discard_checkpoint(broken);
  }
}

void remove_incomplete(const fs::path& checkpoints) {
  for (const auto& broken : checkpoints_in(checkpoints, false)) discard_checkpoint(broken);
}

void keep_only(const fs::path& directory, const std::vector<WrittenFile>& files) {
  for (const auto& name : list_directory(directory)) {
    const bool wanted =
        std::any_of(files.begin(), files.end(), [&](const WrittenFile& file) { return file.name == name; });
    std::error_code ignored;  // it is in nobody's way
    if (!wanted) fs::remove_all(directory / name, ignored);
  }
}

void save_best(const fs::path& checkpoints, const nn::NetworkSpec& spec, const nn::WeightsView& weights,
               const Best& best) {
  (void)create_directory_exclusively(checkpoints / "best");  // not its parents: a run's folder that is gone stays gone
  save_weights(checkpoints / "best" / "weights.bin", spec, weights);
  const nlohmann::json json = {{"updates", best.updates},
                               {"mean", best.mean},
                               {"standard_error", best.standard_error},
                               {"episodes", best.episodes}};
  write_file_atomically(checkpoints / "best" / "best.json", json.dump(2) + "\n");
}

std::optional<Best> read_best(const fs::path& checkpoints) {
  const auto file = checkpoints / "best" / "best.json";
  if (!fs::exists(file)) return std::nullopt;
  try {
    const auto json = nlohmann::json::parse(read_text_file(file, 1 << 20));
    return Best{json.at("updates"), json.at("mean"), json.at("standard_error"), json.at("episodes")};
  } catch (const nlohmann::json::exception& error) {
    throw InputError(text(file.string(), ": ", error.what()));
  }
}

}  // namespace qanat::learner
