// Sixteen rows of a weight at a time, one of each of sixteen streams: every lane walks over consecutive rows,
// far from the other lanes' rows. Memory is then read in as many long streams, each in the order of the file,
// which the processor fetches ahead: 38 to 44 GB/s on two threads where sixteen neighbouring rows of 1 KB
// give 22. Owned by one thread for one layer.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "backend/cpu/linear_weight.h"

namespace bise {

class WeightStreams {
 public:
  static constexpr int kLanes = 16;

  // Of the output's columns [begin, end). Of a gated layer lanes 0 to 7 are rows of gate and 8 to 15 the same
  // rows of up. `weight` outlives this.
  WeightStreams(const CpuLinearWeight& weight, bool gated, std::int64_t begin, std::int64_t end,
                bool far_apart)
      : weight_(weight),
        outputs_(gated ? kLanes / 2 : kLanes),
        begin_(begin),
        end_(end),
        steps_((end - begin + outputs_ - 1) / outputs_),
        lane_step_(far_apart ? steps_ : 1),
        unit_step_(far_apart ? 1 : outputs_) {
    if (steps_ == 0) return;
    for (int lane = 0; lane < kLanes; ++lane)
      find(lane, std::min(column(lane), end - 1) + (lane < outputs_ ? 0 : weight.rows() / 2));
  }

  bool done() const { return step_ == steps_; }
  void advance() {
    ++step_;
    if (done()) return;
    const int count = lanes_inside();
    for (int lane = 0; lane < count; ++lane) move(lane);
    for (int lane = outputs_; lane < kLanes && lane < outputs_ + count; ++lane) move(lane);
  }

  // Lanes of the output: 16, or 8 of a gated layer.
  int outputs() const { return outputs_; }
  // The output's column that lane 0 has, and how far the next lane's is from it.
  std::int64_t first_column() const { return begin_ + step_ * unit_step_; }
  std::int64_t column_step() const { return lane_step_; }
  // The lanes whose column is one of the output's: a lane beyond the end repeats a row.
  std::uint16_t inside() const { return static_cast<std::uint16_t>((1u << lanes_inside()) - 1u); }

  const LinearPart& part(int lane) const { return *part_[at(lane)]; }
  std::int64_t row(int lane) const { return row_[at(lane)]; }  // in its part
  const std::array<const std::byte*, kLanes>& codes() const { return codes_; }

 private:
  static std::size_t at(int lane) { return static_cast<std::size_t>(lane); }
  std::int64_t column(int lane) const { return first_column() + lane % outputs_ * lane_step_; }
  // Lanes of the output that are inside: the first ones.
  int lanes_inside() const {
    return static_cast<int>(
        std::min<std::int64_t>(outputs_, (end_ - first_column() + lane_step_ - 1) / lane_step_));
  }

  void find(int lane, std::int64_t row_of_weight) {
    part_[at(lane)] = &weight_.part_of(row_of_weight);
    row_[at(lane)] = row_of_weight - part(lane).first_row;
    codes_[at(lane)] = part(lane).row(row(lane));
  }
  void move(int lane) {
    row_[at(lane)] += unit_step_;
    if (row(lane) >= part(lane).rows()) return find(lane, part(lane).first_row + row(lane));
    codes_[at(lane)] += unit_step_ * part(lane).row_bytes;
  }

  const CpuLinearWeight& weight_;
  const int outputs_;
  const std::int64_t begin_, end_, steps_, lane_step_, unit_step_;
  std::int64_t step_ = 0;
  std::array<const LinearPart*, kLanes> part_{};
  std::array<std::int64_t, kLanes> row_{};
  std::array<const std::byte*, kLanes> codes_{};
};

}  // namespace bise
