#include "formats/quantization_args.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"

namespace bise {
namespace {

// One QuantizationArgs object with the defaults filled in.
struct Args {
  std::int64_t num_bits = 8;
  bool is_float = false, symmetric = true, dynamic = false;
  std::string strategy;
  std::int64_t group_size = 0;
  std::int64_t block_rows = 0, block_columns = 0;
  bool group_actorder = false;
};

void refuse_unknown_keys(const Json& object, const std::set<std::string>& known, const std::string& where) {
  if (!object.is_object()) throw Error("value is not an object").at(where).got(object.type_name());
  for (const auto& [key, value] : object.items())
    if (!known.contains(key)) throw Error("unknown key \"{}\"", key).at(where);
}

bool is_null(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null();
}

[[noreturn]] void not_supported(const std::string& what, const std::string& where) {
  throw Error("{} is not supported", what).at(where);
}

// [128, 128], or "128x128" in old files.
void read_block(const Json& value, Args& args, const std::string& where) {
  if (value.is_array() && value.size() == 2 && value[0].is_number_unsigned() &&
      value[1].is_number_unsigned()) {
    args.block_rows = value[0].get<std::int64_t>();
    args.block_columns = value[1].get<std::int64_t>();
  } else if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const char* end = text.data() + text.size();
    const auto first = std::from_chars(text.data(), end, args.block_rows);
    if (first.ec == std::errc() && first.ptr != end && *first.ptr == 'x')
      std::from_chars(first.ptr + 1, end, args.block_columns);
  }
  constexpr std::int64_t kMost = 1 << 20;
  if (args.block_rows < 1 || args.block_rows > kMost || args.block_columns < 1 || args.block_columns > kMost)
    throw Error("block_structure is no pair of sizes").at(where).got(value.dump().substr(0, 80));
}

// "group", "dynamic" and true mean groups over permuted columns; "weight", "static", false and null do not
// show in the file.
bool is_group_actorder(const Json& args, const std::string& where) {
  if (is_null(args, "actorder")) return false;
  const Json& value = args["actorder"];
  if (value.is_boolean()) return value.get<bool>();
  if (value == "group" || value == "dynamic") return true;
  if (value == "weight" || value == "static") return false;
  throw Error("actorder is unknown").at(where).got(value.dump().substr(0, 80));
}

Args read_args(const Json& object, const std::string& where) {
  refuse_unknown_keys(object,
                      {"num_bits", "type", "symmetric", "strategy", "group_size", "block_structure",
                       "dynamic", "actorder", "scale_dtype", "zp_dtype", "observer", "observer_kwargs"},
                      where);
  Args args;
  args.num_bits = find_int(object, "num_bits", 8, where);
  const std::string type = find_string(object, "type", "int", where);
  if (type != "int" && type != "float") throw Error("type is unknown").at(where).got("\"" + type + "\"");
  args.is_float = type == "float";
  args.symmetric = find_bool(object, "symmetric", true, where);
  if (!is_null(object, "dynamic") && object["dynamic"] == "local") not_supported("dynamic \"local\"", where);
  args.dynamic = find_bool(object, "dynamic", false, where);
  args.group_size = find_int(object, "group_size", 0, where);
  const char* implied = args.group_size > 0 ? "group" : args.group_size == -1 ? "channel" : "tensor";
  args.strategy = find_string(object, "strategy", implied, where);
  if (args.strategy == "channel" && args.group_size == -1) args.group_size = 0;
  if (args.group_size < 0 || args.group_size > 1 << 24)
    throw Error("group_size is out of range").at(where).got(fmt::format("{}", args.group_size));
  if ((args.strategy == "group") != (args.group_size > 0) && args.strategy != "tensor_group")
    throw Error("group_size does not fit the strategy")
        .at(where)
        .got(fmt::format("{} with \"{}\"", args.group_size, args.strategy));
  if (!is_null(object, "block_structure")) read_block(object["block_structure"], args, where);
  if ((args.strategy == "block") != (args.block_rows > 0))
    throw Error("block_structure does not fit the strategy").at(where).got("\"" + args.strategy + "\"");
  args.group_actorder = is_group_actorder(object, where);
  if (!is_null(object, "scale_dtype")) not_supported("key \"scale_dtype\"", where);
  if (!is_null(object, "zp_dtype") && object["zp_dtype"] != "torch.int8")
    throw Error("zp_dtype is unknown").at(where).expected("\"torch.int8\"");
  if (!args.symmetric && args.is_float) throw Error("float codes cannot be asymmetric").at(where);
  return args;
}

InputType read_input_type(const Json& object, const std::string& where) {
  const Args args = read_args(object, where);
  if (args.num_bits != 8) not_supported(fmt::format("{}-bit inputs", args.num_bits), where);
  if (!args.symmetric) not_supported("asymmetric inputs", where);
  if (args.dynamic && args.strategy == "token")
    return args.is_float ? InputType::kFp8Token : InputType::kInt8Token;
  if (!args.dynamic && args.strategy == "tensor" && args.is_float) return InputType::kFp8Tensor;
  not_supported(fmt::format("{} {} inputs with strategy \"{}\"", args.dynamic ? "dynamic" : "static",
                            args.is_float ? "float8" : "int8", args.strategy),
                where);
}

Strategy parse_strategy(const std::string& name, const std::string& where) {
  if (name == "tensor") return Strategy::kTensor;
  if (name == "channel") return Strategy::kChannel;
  if (name == "group") return Strategy::kGroup;
  if (name == "block") return Strategy::kBlock;
  not_supported(fmt::format("weight strategy \"{}\"", name), where);
}

Scheme weight_scheme(const Args& args, const std::string& where) {
  if (args.is_float && args.num_bits != 8) not_supported(fmt::format("float{}", args.num_bits), where);
  if (args.num_bits < 2 || args.num_bits > 8)
    throw Error("num_bits is out of range")
        .at(where)
        .expected("2 to 8")
        .got(fmt::format("{}", args.num_bits));
  if (args.dynamic) not_supported("dynamic weights", where);
  Scheme scheme;
  scheme.type = args.is_float ? WeightType::kFloat : WeightType::kInt;
  scheme.num_bits = static_cast<int>(args.num_bits);
  scheme.strategy = parse_strategy(args.strategy, where);
  scheme.group_size = args.group_size;
  scheme.symmetric = args.symmetric;
  return scheme;
}

// Where the codes of `scheme` lie under a format's name.
Storage parse_format(const std::string& format, const Scheme& scheme, const std::string& where) {
  const bool is_float = scheme.type == WeightType::kFloat;
  if (format.empty() || format == "mixed-precision") return storage_for(scheme);
  if (format == "pack-quantized" && !is_float) return Storage::kPacked;
  if (format == "int-quantized" && !is_float) return Storage::kPlain;
  if (format == "float-quantized" && is_float) return Storage::kPlain;
  if (format == "naive-quantized") return Storage::kPlain;
  not_supported(fmt::format("format \"{}\" with {}", format, scheme_text(scheme)), where);
}

}  // namespace

Storage storage_for(const Scheme& scheme) {
  if (!scheme.quantized()) return Storage::kDense;
  if (scheme.type == WeightType::kNf4) return Storage::kNf4;
  return scheme.type == WeightType::kInt && scheme.input == InputType::kNone ? Storage::kPacked
                                                                             : Storage::kPlain;
}

LinearFormat read_group_format(const Json& group, const std::string& top_format, const std::string& where) {
  refuse_unknown_keys(group, {"targets", "weights", "input_activations", "output_activations", "format"},
                      where);
  const std::string format = find_string(group, "format", top_format, where);
  for (const char* refused : {"nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized", "marlin-24",
                              "sparse-bitmask", "sparse-24-bitmask", "fakequant"})
    if (format == refused) not_supported(fmt::format("format \"{}\"", format), where);
  if (!is_null(group, "output_activations")) not_supported("key \"output_activations\"", where);
  if (is_null(group, "weights")) {
    if (!is_null(group, "input_activations")) not_supported("quantized inputs of dense weights", where);
    return {};
  }
  const Args weights = read_args(group["weights"], where + ": weights");
  LinearFormat result;
  result.scheme = weight_scheme(weights, where + ": weights");
  if (!is_null(group, "input_activations"))
    result.scheme.input = read_input_type(group["input_activations"], where + ": input_activations");
  if (format == "dense") not_supported("format \"dense\" with quantized weights", where);
  result.storage = parse_format(format, result.scheme, where);
  result.group_index = weights.group_actorder && result.scheme.strategy == Strategy::kGroup;
  result.block_rows = weights.block_rows;
  result.block_columns = weights.block_columns;
  return result;
}

void read_kv_cache_args(const Json& object, const std::string& where) {
  const Args args = read_args(object, where);
  if (!args.is_float || args.num_bits != 8 || args.dynamic || args.strategy != "tensor")
    not_supported("this key/value cache scheme (only static float8 with strategy \"tensor\")", where);
}

}  // namespace bise
