// Means and variances of numbers as they come. Not thread safe: one owner each.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace qanat {

// Over all that was added, in constant memory (Welford, "Note on a method for calculating corrected sums of squares
// and products", 1962; merging: Chan, Golub & LeVeque, 1979). Values that are not finite make the results NaN.
class RunningStats {
 public:
  void add(double value) {
    ++count_;
    const double delta = value - mean_;
    mean_ += delta / static_cast<double>(count_);
    squares_ += delta * (value - mean_);
  }

  // As if everything added to `other` had been added here.
  void merge(const RunningStats& other) {
    if (other.count_ == 0) return;
    const auto count = static_cast<double>(count_);
    const auto others = static_cast<double>(other.count_);
    const double delta = other.mean_ - mean_;
    squares_ += other.squares_ + delta * delta * count * others / (count + others);
    mean_ += delta * others / (count + others);
    count_ += other.count_;
  }

  [[nodiscard]] std::uint64_t count() const { return count_; }
  // NaN before the first value.
  [[nodiscard]] double mean() const { return count_ > 0 ? mean_ : std::numeric_limits<double>::quiet_NaN(); }
  // Unbiased (divided by count - 1); NaN before the second value.
  [[nodiscard]] double variance() const {
    return count_ > 1 ? squares_ / static_cast<double>(count_ - 1) : std::numeric_limits<double>::quiet_NaN();
  }
  [[nodiscard]] double standard_deviation() const { return std::sqrt(variance()); }
  // Of the mean, for independent values.
  [[nodiscard]] double standard_error() const { return std::sqrt(variance() / static_cast<double>(count_)); }

 private:
  std::uint64_t count_ = 0;
  double mean_ = 0;
  double squares_ = 0;  // sum of squared distances to the mean
};

// The mean of the last `capacity` (> 0) values.
class RecentMean {
 public:
  explicit RecentMean(std::size_t capacity) : capacity_(capacity) { values_.reserve(capacity); }

  void add(double value) {
    if (values_.size() < capacity_) {
      values_.push_back(value);
    } else {
      values_[next_] = value;
      next_ = (next_ + 1) % capacity_;
    }
  }

  [[nodiscard]] std::size_t count() const { return values_.size(); }
  // NaN before the first value. Summed anew each time: a running sum would keep a NaN, and drift.
  [[nodiscard]] double mean() const {
    if (values_.empty()) return std::numeric_limits<double>::quiet_NaN();
    double sum = 0;
    for (const double value : values_) sum += value;
    return sum / static_cast<double>(values_.size());
  }

 private:
  std::size_t capacity_;
  std::size_t next_ = 0;  // the oldest, once full
  std::vector<double> values_;
};

}  // namespace qanat
