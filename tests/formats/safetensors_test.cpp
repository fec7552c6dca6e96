#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "base/error.h"
#include "tests/formats/small_files.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const ScratchFolder folder;
  const fs::path path = folder.path() / "x.safetensors";
  put_file(path,
           safetensors_bytes(
               R"({"__metadata__":{"format":"pt"},"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},)"
               R"("s":{"dtype":"F32","shape":[],"data_offsets":[8,12]},)"
               R"("none":{"dtype":"F32","shape":[0,4],"data_offsets":[12,12]}})",
               raw(5) + raw(-7) + raw(1.5f)));
  Tensor kept;
  {
    const SafetensorsFile file = SafetensorsFile::open(path);
    EXPECT_EQ(file.metadata().at("format"), "pt");
    EXPECT_EQ(file.tensor("a").data<std::int32_t>()[1], -7);
    EXPECT_EQ(file.tensor("s").data<float>()[0], 1.5f);
    EXPECT_EQ(file.tensor("none").elements(), 0);
    EXPECT_THROW(file.tensor("b"), Error);
    file.release("a");
    kept = file.tensor("a");
  }
  EXPECT_EQ(kept.data<std::int32_t>()[0], 5);  // keeps the mapping alive
}

// Old files do not pad the header: elements then stand at odd offsets.
TEST(Safetensors, UnalignedTensorsAreCopied) {
  const ScratchFolder folder;
  const fs::path path = folder.path() / "x.safetensors";
  for (int padding = 0; padding < 8; ++padding) {
    put_file(path, safetensors_bytes(R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})" +
                                         std::string(static_cast<std::size_t>(padding), ' '),
                                     raw(2.25)));
    const Tensor tensor = SafetensorsFile::open(path).tensor("a");
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.bytes().data()) % 8, 0u);
    EXPECT_EQ(tensor.data<double>()[0], 2.25);
  }
}

struct BadFile {
  const char* why;
  std::string bytes;
  const char* message;  // a part of the error's text
};

std::string one(const std::string& entry, std::size_t data) {
  return safetensors_bytes("{\"a\":" + entry + "}", std::string(data, 'x'));
}

std::vector<BadFile> bad_files() {
  const std::string good = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  return {
      {"empty", "", "too short"},
      {"no length", "1234567", "too short"},
      {"header beyond the file", raw(std::uint64_t{100}) + "{}", "length is wrong"},
      {"huge header length", raw(~std::uint64_t{0}) + "{}", "length is wrong"},
      {"no JSON", safetensors_bytes("{oops}", ""), "not valid JSON"},
      {"no object", safetensors_bytes("[]", ""), "not a JSON object"},
      {"deep nesting", safetensors_bytes(std::string(5000, '[') + std::string(5000, ']'), ""), "too deep"},
      {"entry is a number", one("3", 0), "not an object"},
      {"no dtype", one(R"({"shape":[4],"data_offsets":[0,4]})", 4), "\"dtype\" is missing"},
      {"unknown dtype", one(R"({"dtype":"Q4","shape":[4],"data_offsets":[0,4]})", 4), "unknown dtype"},
      {"negative dimension", one(R"({"dtype":"U8","shape":[-4],"data_offsets":[0,4]})", 4), "dimension"},
      {"fractional dimension", one(R"({"dtype":"U8","shape":[4.5],"data_offsets":[0,4]})", 4), "dimension"},
      {"shape overflow",
       one(R"({"dtype":"U8","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]})", 4),
       "too large"},
      {"shape wraps to the right size",
       one(R"({"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]})", 4), "too large"},
      {"shape too big", one(R"({"dtype":"U8","shape":[5],"data_offsets":[0,4]})", 4), "contradict"},
      {"dtype too wide", one(R"({"dtype":"F32","shape":[4],"data_offsets":[0,4]})", 4), "contradict"},
      {"offsets leave the file", one(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})", 3),
       "leave the file"},
      {"offsets swapped", one(R"({"dtype":"U8","shape":[4],"data_offsets":[4,0]})", 4), "leave the file"},
      {"three offsets", one(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4,8]})", 8), "not a pair"},
      {"gap", one(R"({"dtype":"U8","shape":[4],"data_offsets":[2,6]})", 6), "gap"},
      {"overlap",
       safetensors_bytes(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                         R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                         "123456"),
       "overlap"},
      {"trailing bytes", safetensors_bytes(good, "12345"), "follow the last tensor"},
      {"metadata is a list", safetensors_bytes(R"({"__metadata__":[1]})", ""), "not an object"},
      {"metadata holds numbers", safetensors_bytes(R"({"__metadata__":{"a":1}})", ""), "not a string"},
  };
}

TEST(Safetensors, BadFilesAreErrorsThatNameTheFile) {
  const ScratchFolder folder;
  const fs::path path = folder.path() / "bad.safetensors";
  for (const BadFile& bad : bad_files()) {
    put_file(path, bad.bytes);
    try {
      SafetensorsFile::open(path);
      ADD_FAILURE() << bad.why << ": accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(bad.message), std::string::npos)
          << bad.why << ": " << error.what();
      EXPECT_NE(std::string(error.what()).find("bad.safetensors"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(SafetensorsFile::open(folder.path() / "absent"), Error);
}

const std::vector<PlannedTensor> kPlan = {{"z.half", DType::kBF16, {3, 4}},
                                          {"b.int", DType::kI64, {2}},
                                          {"a.bytes", DType::kU8, {5}},
                                          {"m.float", DType::kF32, {4, 4}},
                                          {"c.half", DType::kBF16, {1}}};

void write_plan(const fs::path& folder, std::uint64_t shard_bytes) {
  CheckpointWriter writer(folder, kPlan, shard_bytes);
  for (std::size_t i = kPlan.size(); i-- > 0;)
    writer.write(kPlan[i].name, counted(kPlan[i].dtype, kPlan[i].shape));
  writer.finish();
}

void expect_plan(const fs::path& folder) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  EXPECT_EQ(checkpoint.names().size(), kPlan.size());
  for (const PlannedTensor& tensor : kPlan) {
    EXPECT_TRUE(same_tensor(checkpoint.tensor(tensor.name), counted(tensor.dtype, tensor.shape)))
        << tensor.name;
    EXPECT_EQ(checkpoint.shape(tensor.name), tensor.shape);
    EXPECT_EQ(checkpoint.dtype(tensor.name), tensor.dtype);
  }
  EXPECT_EQ(checkpoint.total_bytes(), 24u + 16 + 5 + 64 + 2);
  EXPECT_THROW(checkpoint.tensor("absent"), Error);
}

TEST(CheckpointWriter, OneFileWithThePythonLayout) {
  const ScratchFolder folder;
  write_plan(folder.path(), 5'000'000'000);
  const std::string bytes = get_file(folder.path() / "model.safetensors");
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b.int":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},)"
      R"("m.float":{"dtype":"F32","shape":[4,4],"data_offsets":[16,80]},)"
      R"("c.half":{"dtype":"BF16","shape":[1],"data_offsets":[80,82]},)"
      R"("z.half":{"dtype":"BF16","shape":[3,4],"data_offsets":[82,106]},)"
      R"("a.bytes":{"dtype":"U8","shape":[5],"data_offsets":[106,111]}})";
  EXPECT_EQ(bytes.substr(8, header.size()), header);
  const std::size_t length = bytes.size() - 111 - 8;
  EXPECT_EQ(static_cast<unsigned char>(bytes[0]) + 256 * static_cast<unsigned char>(bytes[1]), length);
  EXPECT_EQ((8 + length + 16) % 64, 0) << "the largest tensor begins with a cache line";
  EXPECT_EQ(bytes.substr(8 + header.size(), length - header.size()),
            std::string(length - header.size(), ' '));
  EXPECT_FALSE(fs::exists(folder.path() / "model.safetensors.index.json"));
  expect_plan(folder.path());
}

TEST(CheckpointWriter, ShardsInThePlansOrderWithAnIndex) {
  const ScratchFolder folder;
  write_plan(folder.path(), 40);  // 24+16 | 5 | 64 (larger than a shard) | 2
  std::set<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder.path())) files.insert(entry.path().filename());
  EXPECT_EQ(files,
            (std::set<std::string>{"model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors",
                                   "model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors",
                                   "model.safetensors.index.json"}));
  EXPECT_EQ(get_file(folder.path() / "model.safetensors.index.json"),
            "{\n  \"metadata\": {\n    \"total_size\": 111\n  },\n  \"weight_map\": {\n"
            "    \"a.bytes\": \"model-00002-of-00004.safetensors\",\n"
            "    \"b.int\": \"model-00001-of-00004.safetensors\",\n"
            "    \"c.half\": \"model-00004-of-00004.safetensors\",\n"
            "    \"m.float\": \"model-00003-of-00004.safetensors\",\n"
            "    \"z.half\": \"model-00001-of-00004.safetensors\"\n  }\n}\n");
  expect_plan(folder.path());
}

TEST(CheckpointWriter, WithoutTensorsItIsAHeader) {
  const ScratchFolder folder;
  CheckpointWriter(folder.path(), {}).finish();
  EXPECT_TRUE(Checkpoint::open(folder.path()).names().empty());
}

TEST(CheckpointWriter, RefusesWhatIsNotPlanned) {
  const ScratchFolder folder;
  EXPECT_THROW(CheckpointWriter(folder.path(), {{"a", DType::kU8, {1}}, {"a", DType::kU8, {1}}}), Error);
  EXPECT_THROW(CheckpointWriter(folder.path(), {{"a", DType::kF32, {std::int64_t{1} << 61}}}), Error);
  CheckpointWriter writer(folder.path(), kPlan);
  EXPECT_THROW(writer.write("b.int", counted(DType::kI64, {3})), Error);
  EXPECT_THROW(writer.write("b.int", counted(DType::kU64, {2})), Error);
  EXPECT_THROW(writer.finish(), Error);
}

// Header and tensors of a file, without the spaces between them.
std::pair<std::string, std::string> parts_of(const fs::path& path) {
  const std::string bytes = get_file(path);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  std::string header = bytes.substr(sizeof length, length);
  header.erase(header.find_last_not_of(' ') + 1);
  return {header, bytes.substr(sizeof length + length)};
}

// Read and written again, every golden checkpoint is the same but for the spaces after its header.
TEST(CheckpointWriter, ReproducesTheReferencesFiles) {
  const fs::path goldens = shared_path("golden/quantization");
  BISE_SKIP_IF_ABSENT(goldens, "golden/quantization");
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(goldens)) {
    const fs::path source = entry.path() / "model.safetensors";
    if (!fs::exists(source)) continue;
    const SafetensorsFile file = SafetensorsFile::open(source);
    std::vector<PlannedTensor> plan;
    for (const auto& [name, place] : file.entries()) plan.push_back({name, place.dtype, place.shape});
    const ScratchFolder folder;
    CheckpointWriter writer(folder.path(), plan);
    for (const PlannedTensor& tensor : plan) writer.write(tensor.name, file.tensor(tensor.name));
    writer.finish();
    EXPECT_TRUE(parts_of(source) == parts_of(folder.path() / "model.safetensors")) << entry.path();
    ++compared;
  }
  EXPECT_GE(compared, 18);
}

TEST(Checkpoint, BadFoldersAreErrors) {
  const auto message_of = [](const fs::path& folder) -> std::string {
    try {
      Checkpoint::open(folder);
      return "accepted";
    } catch (const Error& error) {
      return error.what();
    }
  };
  const ScratchFolder folder;
  EXPECT_NE(message_of(folder.path()).find("no weights"), std::string::npos);
  EXPECT_NE(message_of(folder.path() / "none").find("no such checkpoint folder"), std::string::npos);
  write_plan(folder.path(), 40);
  const fs::path index = folder.path() / "model.safetensors.index.json";
  const std::string good = get_file(index);
  const struct {
    const char *from, *to, *message;
  } cases[] = {
      {"\"weight_map\"", "\"weights\"", "weight_map"},
      {"{\n", "{[", "weight_map"},
      {"\"b.int\"", "\"b.integer\"", "not in its shard"},
      {"00004-of-00004", "00005-of-00004", "missing"},
      {"\"model-00001", "\"../model-00001", "not a file name"},
      {"\"model-00001", "\"/model-00001", "not a file name"},
  };
  for (const auto& change : cases) {
    std::string text = good;
    text.replace(text.find(change.from), std::string(change.from).size(), change.to);
    put_file(index, text);
    EXPECT_NE(message_of(folder.path()).find(change.message), std::string::npos) << message_of(folder.path());
  }
  put_file(index, good);
  // The same tensor in two shards.
  fs::copy_file(folder.path() / "model-00001-of-00004.safetensors",
                folder.path() / "model-00002-of-00004.safetensors", fs::copy_options::overwrite_existing);
  EXPECT_NE(message_of(folder.path()), "accepted");
}

TEST(Checkpoint, MistralNativeFoldersHaveHuggingFaceNamesAndRowOrder) {
  const ScratchFolder folder;
  const fs::path hugging_face = folder.path() / "model.safetensors";
  const std::vector<std::pair<PlannedTensor, std::string>> tensors = {
      {{"tok_embeddings.weight", DType::kBF16, {8, 4}}, "model.embed_tokens.weight"},
      {{"norm.weight", DType::kBF16, {4}}, "model.norm.weight"},
      {{"output.weight", DType::kBF16, {8, 4}}, "lm_head.weight"},
      {{"layers.0.attention.wq.weight", DType::kBF16, {8, 4}}, "model.layers.0.self_attn.q_proj.weight"},
      {{"layers.0.attention.wk.weight", DType::kBF16, {4, 4}}, "model.layers.0.self_attn.k_proj.weight"},
      {{"layers.0.attention.wv.weight", DType::kBF16, {4, 4}}, "model.layers.0.self_attn.v_proj.weight"},
      {{"layers.0.feed_forward.w2.weight", DType::kBF16, {4, 6}}, "model.layers.0.mlp.down_proj.weight"},
      {{"layers.0.attention_norm.weight", DType::kBF16, {4}}, "model.layers.0.input_layernorm.weight"},
      {{"layers.0.ffn_norm.weight", DType::kBF16, {4}}, "model.layers.0.post_attention_layernorm.weight"},
  };
  std::vector<PlannedTensor> plan;
  for (const auto& [tensor, name] : tensors) plan.push_back(tensor);
  CheckpointWriter writer(folder.path(), plan);
  for (const PlannedTensor& tensor : plan) writer.write(tensor.name, counted(tensor.dtype, tensor.shape));
  writer.finish();
  fs::rename(hugging_face, folder.path() / "consolidated.safetensors");
  put_file(folder.path() / "params.json", R"({"n_heads": 2, "n_kv_heads": 1})");
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  for (const auto& [tensor, name] : tensors) {
    ASSERT_TRUE(checkpoint.contains(name)) << name;
    const bool rotary = name.find("q_proj") != std::string::npos || name.find("k_proj") != std::string::npos;
    EXPECT_EQ(same_tensor(checkpoint.tensor(name), counted(tensor.dtype, tensor.shape)), !rotary) << name;
  }
  // Head of 4 rows: 0 2 1 3, since rows 0,1 and 2,3 rotate together.
  const Tensor stored = counted(DType::kBF16, {8, 4}), q = checkpoint.tensor(tensors[3].second);
  const std::vector<std::int64_t> order = {0, 2, 1, 3, 4, 6, 5, 7};
  for (std::size_t row = 0; row < order.size(); ++row) {
    const auto at = static_cast<std::int64_t>(row);
    EXPECT_TRUE(same_tensor(q.rows(at, at + 1), stored.rows(order[row], order[row] + 1))) << row;
  }
}

}  // namespace
}  // namespace bise
