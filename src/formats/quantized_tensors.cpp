#include "formats/quantized_tensors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/json.h"
#include "tensor/float_types.h"
#include "tensor/pack.h"

namespace bise {
namespace {

constexpr std::int64_t kNf4Block = 64;
constexpr std::int64_t kNf4NestedBlock = 256;
constexpr const char* kNf4State = ".weight.quant_state.bitsandbytes__nf4";

std::int64_t divide_up(std::int64_t value, std::int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

// Groups of columns that share a scale. Throws Error when they do not come out even.
std::int64_t group_count(const Scheme& scheme, std::int64_t columns, const std::string& module) {
  if (scheme.strategy != Strategy::kGroup || columns <= scheme.group_size) return 1;
  if (columns % scheme.group_size != 0)
    throw Error("group size {} does not divide the {} columns of {}", scheme.group_size, columns, module)
        .expected("a group size that divides them, or the module in the ignore list");
  return columns / scheme.group_size;
}

Shape scale_shape(const LinearFormat& format, std::int64_t rows, std::int64_t columns,
                  const std::string& module) {
  switch (format.scheme.strategy) {
    case Strategy::kTensor: return {1};
    case Strategy::kBlock:
      return {divide_up(rows, format.block_rows), divide_up(columns, format.block_columns)};
    default: return {rows, group_count(format.scheme, columns, module)};
  }
}

std::int64_t packed_words(std::int64_t count, int bits) {
  return divide_up(count * bits, 32);
}

// Reads the tensors of one module, checking each.
class LinearReader {
 public:
  LinearReader(const Checkpoint& checkpoint, const std::string& module, StoredLinear& linear)
      : checkpoint_(checkpoint), module_(module), linear_(linear) {}

  void read(const LinearFormat& format) {
    switch (format.storage) {
      case Storage::kDense: linear_.weight = floats(".weight", {linear_.rows, linear_.columns}); break;
      case Storage::kPlain: read_plain(format); break;
      case Storage::kPacked: read_packed(format); break;
      case Storage::kNf4: read_nf4(); break;
    }
    if (has(".bias")) linear_.bias = floats(".bias", {linear_.rows});
  }

 private:
  bool has(const char* suffix) const { return checkpoint_.contains(module_ + suffix); }

  [[noreturn]] void fail(const char* suffix, const char* what, std::string expected, std::string got) const {
    throw Error("tensor {}{} has the wrong {}", module_, suffix, what)
        .at(checkpoint_.folder().string())
        .expected(std::move(expected))
        .got(std::move(got));
  }

  Tensor shaped(const char* suffix, const Shape& shape) const {
    Tensor tensor = checkpoint_.tensor(module_ + suffix);
    // One number may be stored as a scalar or with any count of ones.
    if (tensor.shape() != shape && element_count(shape) == 1 && tensor.elements() == 1)
      return tensor.reshaped(shape);
    if (tensor.shape() == Shape{shape[0]} && shape == Shape{shape[0], 1}) return tensor.reshaped(shape);
    if (tensor.shape() != shape) fail(suffix, "shape", shape_text(shape), shape_text(tensor.shape()));
    return tensor;
  }

  Tensor typed(const char* suffix, DType dtype, const Shape& shape) const {
    Tensor tensor = shaped(suffix, shape);
    if (tensor.dtype() != dtype)
      fail(suffix, "dtype", std::string(dtype_name(dtype)), std::string(dtype_name(tensor.dtype())));
    return tensor;
  }

  Tensor floats(const char* suffix, const Shape& shape) const {
    Tensor tensor = shaped(suffix, shape);
    if (tensor.dtype() != DType::kF32 && tensor.dtype() != DType::kF16 && tensor.dtype() != DType::kBF16)
      fail(suffix, "dtype", "F32, F16 or BF16", std::string(dtype_name(tensor.dtype())));
    return tensor;
  }

  void read_plain(const LinearFormat& format) {
    const DType dtype = format.scheme.type == WeightType::kFloat ? DType::kF8E4M3 : DType::kI8;
    linear_.weight = typed(".weight", dtype, {linear_.rows, linear_.columns});
    read_scale(format);
    if (!format.scheme.symmetric)
      linear_.zero_point = typed(".weight_zero_point", DType::kI8, linear_.scale.shape());
    if (format.scheme.input == InputType::kFp8Tensor) linear_.input_scale = floats(".input_scale", {1});
  }

  void read_scale(const LinearFormat& format) {
    linear_.scale = floats(".weight_scale", scale_shape(format, linear_.rows, linear_.columns, module_));
    if (format.group_index) {
      linear_.g_idx = typed(".weight_g_idx", DType::kI32, {linear_.columns});
      const auto* groups = linear_.g_idx.data<std::int32_t>();
      for (std::int64_t k = 0; k < linear_.columns; ++k)
        if (groups[k] < 0 || groups[k] >= linear_.scale.dim(1))
          throw Error("tensor {}.weight_g_idx names a group that does not exist", module_)
              .at(checkpoint_.folder().string())
              .expected(fmt::format("0 to {}", linear_.scale.dim(1) - 1))
              .got(fmt::format("{}", groups[k]));
    } else if (has(".weight_g_idx")) {
      throw Error("tensor {}.weight_g_idx stands in the file, but actorder is not \"group\"", module_)
          .at(checkpoint_.folder().string());
    }
  }

  void read_packed(const LinearFormat& format) {
    const int bits = format.scheme.num_bits;
    linear_.weight =
        typed(".weight_packed", DType::kI32, {linear_.rows, packed_words(linear_.columns, bits)});
    if (has(".weight_shape")) {
      const Tensor shape = typed(".weight_shape", DType::kI64, {2});
      const Shape found = {shape.data<std::int64_t>()[0], shape.data<std::int64_t>()[1]};
      if (found != Shape{linear_.rows, linear_.columns})
        fail(".weight_shape", "value", shape_text({linear_.rows, linear_.columns}), shape_text(found));
    }
    read_scale(format);
    if (format.scheme.symmetric) return;
    if (32 % bits != 0) throw Error("asymmetric {}-bit weights are not supported", bits).at(module_);
    linear_.zero_point =
        typed(".weight_zero_point", DType::kI32, {packed_words(linear_.rows, bits), linear_.scale.dim(1)});
  }

  void read_nf4() {
    const std::int64_t count = linear_.rows * linear_.columns, bytes = divide_up(count, 2);
    linear_.weight = typed(".weight", DType::kU8, {bytes, 1}).reshaped({bytes});
    linear_.quant_map = typed(".weight.quant_map", DType::kF32, {16});
    const Json state = read_nf4_state();
    const std::int64_t blocks = divide_up(count, kNf4Block);
    if (!has(".weight.nested_absmax")) {
      linear_.absmax = typed(".weight.absmax", DType::kF32, {blocks});
      return;
    }
    const std::string where = module_ + kNf4State;
    if (require_int(state, "nested_blocksize", where) != kNf4NestedBlock)
      throw Error("nested_blocksize is not supported").at(where).expected("256");
    const auto offset = static_cast<float>(require_number(state, "nested_offset", where));
    const Tensor codes = typed(".weight.absmax", DType::kU8, {blocks});
    const Tensor map = typed(".weight.nested_quant_map", DType::kF32, {256});
    const Tensor scale = typed(".weight.nested_absmax", DType::kF32, {divide_up(blocks, kNf4NestedBlock)});
    linear_.absmax = Tensor::allocate(DType::kF32, {blocks});
    auto* absmax = linear_.absmax.mutable_data<float>();
    for (std::int64_t i = 0; i < blocks; ++i)
      absmax[i] =
          map.data<float>()[codes.data<std::uint8_t>()[i]] * scale.data<float>()[i / kNf4NestedBlock] +
          offset;
  }

  Json read_nf4_state() const {
    const std::string where = module_ + kNf4State;
    const Tensor text = checkpoint_.tensor(where);
    if (text.dtype() != DType::kU8 || text.bytes().size() > 4096)
      throw Error("tensor {} is no short text", where).at(checkpoint_.folder().string());
    const Json state =
        parse_json({reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size()}, where);
    if (require_string(state, "quant_type", where) != "nf4") throw Error("quant_type is not nf4").at(where);
    if (require_int(state, "blocksize", where) != kNf4Block)
      throw Error("blocksize is not supported").at(where).expected("64");
    if (require(state, "shape", where) != Json::array({linear_.rows, linear_.columns}))
      throw Error("quant_state holds another shape")
          .at(where)
          .expected(shape_text({linear_.rows, linear_.columns}))
          .got(state["shape"].dump().substr(0, 80));
    return state;
  }

  const Checkpoint& checkpoint_;
  const std::string& module_;
  StoredLinear& linear_;
};

// As Python's json.dumps: a space after commas and colons.
std::string nf4_state_text(std::int64_t rows, std::int64_t columns, std::string_view dtype) {
  return fmt::format(R"({{"quant_type": "nf4", "blocksize": {}, "dtype": "{}", "shape": [{}, {}]}})",
                     kNf4Block, dtype, rows, columns);
}

std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "float32";
    case DType::kF16: return "float16";
    case DType::kBF16: return "bfloat16";
    default: throw Error("a model's dtype is F32, F16 or BF16").got(std::string(dtype_name(dtype)));
  }
}

}  // namespace

StoredLinear read_linear(const Checkpoint& checkpoint, const QuantizationConfig& config,
                         const std::string& module, std::int64_t rows, std::int64_t columns) {
  check(rows > 0 && columns > 0, "a linear layer has rows and columns");
  const LinearFormat format = config.format_of(module);
  StoredLinear linear;
  linear.scheme = format.scheme;
  linear.rows = rows;
  linear.columns = columns;
  linear.block_rows = format.block_rows;
  linear.block_columns = format.block_columns;
  LinearReader(checkpoint, module, linear).read(format);
  return linear;
}

void release_linear(const Checkpoint& checkpoint, const std::string& module) {
  for (const char* suffix : {".weight", ".weight_packed", ".weight_scale", ".weight_zero_point",
                             ".weight_g_idx", ".weight.absmax", ".bias"})
    if (checkpoint.contains(module + suffix)) checkpoint.release(module + suffix);
}

Tensor linear_codes(const StoredLinear& linear) {
  check(linear.scheme.type == WeightType::kInt, "only integer schemes have integer codes");
  return linear.packed() ? unpack_rows(linear.weight, linear.scheme.num_bits, linear.columns) : linear.weight;
}

Tensor linear_zero_points(const StoredLinear& linear) {
  check(linear.scheme.type == WeightType::kInt, "only integer schemes have zero points");
  if (linear.zero_point.empty()) return Tensor::allocate(DType::kI8, linear.scale.shape());
  if (linear.zero_point.dtype() == DType::kI8) return linear.zero_point;
  return unpack_columns(linear.zero_point, linear.scheme.num_bits, linear.rows);
}

std::vector<PlannedTensor> planned_linear(const std::string& module, const LinearFormat& format,
                                          std::int64_t rows, std::int64_t columns, DType scale_dtype) {
  const Scheme& scheme = format.scheme;
  if (format.storage == Storage::kDense) return {{module + ".weight", scale_dtype, {rows, columns}}};
  if (format.storage == Storage::kNf4) {
    const std::string weight = module + ".weight";
    const std::int64_t count = rows * columns;
    const auto state =
        static_cast<std::int64_t>(nf4_state_text(rows, columns, torch_name(scale_dtype)).size());
    return {{weight, DType::kU8, {divide_up(count, 2), 1}},
            {weight + ".absmax", DType::kF32, {divide_up(count, kNf4Block)}},
            {weight + ".quant_map", DType::kF32, {16}},
            {module + kNf4State, DType::kU8, {state}}};
  }
  const Shape scale = scale_shape(format, rows, columns, module);
  std::vector<PlannedTensor> plan;
  if (format.storage == Storage::kPacked) {
    plan = {{module + ".weight_packed", DType::kI32, {rows, packed_words(columns, scheme.num_bits)}},
            {module + ".weight_scale", scale_dtype, scale},
            {module + ".weight_shape", DType::kI64, {2}}};
    if (!scheme.symmetric)
      plan.push_back(
          {module + ".weight_zero_point", DType::kI32, {packed_words(rows, scheme.num_bits), scale[1]}});
  } else {
    const DType dtype = scheme.type == WeightType::kFloat ? DType::kF8E4M3 : DType::kI8;
    plan = {{module + ".weight", dtype, {rows, columns}}, {module + ".weight_scale", scale_dtype, scale}};
    if (!scheme.symmetric) plan.push_back({module + ".weight_zero_point", DType::kI8, scale});
    if (scheme.input == InputType::kFp8Tensor) plan.push_back({module + ".input_scale", scale_dtype, {1}});
  }
  return plan;
}

void write_linear(CheckpointWriter& writer, const std::string& module, const StoredLinear& linear,
                  DType model_dtype) {
  const auto write = [&](const char* suffix, const Tensor& tensor) { writer.write(module + suffix, tensor); };
  if (linear.scheme.type == WeightType::kNf4) {
    write(".weight", linear.weight.reshaped({linear.weight.elements(), 1}));
    write(".weight.absmax", linear.absmax);
    write(".weight.quant_map", linear.quant_map);
    const std::string state = nf4_state_text(linear.rows, linear.columns, torch_name(model_dtype));
    write(kNf4State,
          Tensor::of(DType::kU8, {static_cast<std::int64_t>(state.size())}, std::span<const char>(state)));
    return;
  }
  write(linear.packed() ? ".weight_packed" : ".weight", linear.weight);
  if (!linear.scheme.quantized()) return;
  write(".weight_scale", linear.scale);
  if (linear.packed()) {
    const std::array<std::int64_t, 2> shape = {linear.rows, linear.columns};
    write(".weight_shape", Tensor::of(DType::kI64, {2}, std::span<const std::int64_t>(shape)));
  }
  if (!linear.zero_point.empty()) write(".weight_zero_point", linear.zero_point);
  if (!linear.input_scale.empty()) write(".input_scale", linear.input_scale);
}

}  // namespace bise
