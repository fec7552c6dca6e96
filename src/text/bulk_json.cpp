#include "text/bulk_json.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"

namespace bise {
namespace {

constexpr std::size_t kMaxDepth = 200;
// Json finds a key by walking the members.
constexpr std::size_t kMaxMembers = 20'000;

// nlohmann's SAX interface: builds the tree, except below the paths that have a sink.
class Builder {
 public:
  Builder(const std::string& where, const std::map<std::string, JsonSink*>& sinks)
      : where_(where), sinks_(sinks) {}

  Json take() { return std::move(root_); }

  bool null() { return scalar(Json()); }
  bool boolean(bool value) { return scalar(value); }
  bool number_float(double value, const std::string&) { return scalar(value); }
  bool binary(Json::binary_t&) { return false; }
  bool number_integer(std::int64_t value) {
    if (!sink_) return scalar(value);
    sink_->integer(sink_depth_, value);
    return true;
  }
  bool number_unsigned(std::uint64_t value) {
    if (value > std::uint64_t(std::numeric_limits<std::int64_t>::max())) return scalar(double(value));
    return number_integer(static_cast<std::int64_t>(value));
  }
  bool string(std::string& value) {
    if (!sink_) return scalar(std::move(value));
    sink_->string(sink_depth_, value);
    return true;
  }
  bool key(std::string& value) {
    if (sink_)
      sink_->key(value);
    else
      open_.back().key = std::move(value);
    return true;
  }
  bool start_object(std::size_t) { return begin(Json::object(), false); }
  bool start_array(std::size_t) { return begin(Json::array(), true); }
  bool end_object() { return end(); }
  bool end_array() { return end(); }
  bool parse_error(std::size_t, const std::string&, const Json::exception& problem) {
    throw Error("invalid JSON: {}", problem.what()).at(where_);
  }

 private:
  struct Open {
    Json value;
    std::string key;   // of the member being read
    std::string path;  // dotted keys that lead here; empty inside arrays
  };

  bool scalar(Json value) {
    if (sink_)
      sink_->other(sink_depth_);
    else
      store(std::move(value));
    return true;
  }

  void store(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (Open& parent = open_.back(); parent.value.is_array()) {
      parent.value.push_back(std::move(value));
    } else {
      if (parent.value.size() >= kMaxMembers)
        throw Error("an object has more than {} members", kMaxMembers).at(where_);
      parent.value[parent.key] = std::move(value);
    }
  }

  bool begin(Json empty, bool array) {
    if (open_.size() + std::size_t(sink_depth_) >= kMaxDepth)
      throw Error("JSON is nested deeper than {} levels", kMaxDepth).at(where_);
    if (sink_) {
      sink_->begin(sink_depth_++, array);
      return true;
    }
    std::string path;
    if (!open_.empty() && open_.back().value.is_object() && (open_.size() == 1 || !open_.back().path.empty()))
      path = (open_.back().path.empty() ? "" : open_.back().path + ".") + open_.back().key;
    if (const auto found = sinks_.find(path); !path.empty() && found != sinks_.end()) {
      store(std::move(empty));
      sink_ = found->second;
      sink_depth_ = 1;
      sink_->begin(0, array);
      return true;
    }
    open_.push_back({std::move(empty), {}, std::move(path)});
    return true;
  }

  bool end() {
    if (sink_) {
      sink_->end(--sink_depth_);
      if (sink_depth_ == 0) sink_ = nullptr;
      return true;
    }
    Json value = std::move(open_.back().value);
    open_.pop_back();
    store(std::move(value));
    return true;
  }

  const std::string& where_;
  const std::map<std::string, JsonSink*>& sinks_;
  Json root_;
  std::vector<Open> open_;
  JsonSink* sink_ = nullptr;
  int sink_depth_ = 0;
};

}  // namespace

Json parse_bulk_json(std::string_view text, const std::string& where,
                     const std::map<std::string, JsonSink*>& sinks) {
  Builder builder(where, sinks);
  Json::sax_parse(text.data(), text.data() + text.size(), &builder);
  return builder.take();
}

}  // namespace bise
