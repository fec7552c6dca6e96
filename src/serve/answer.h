// Writes the answer to one request, as JSON in one piece or as the frames of a stream. What both APIs share
// is here; chat_answer.h and completion_answer.h have the rest. An answer belongs to its call and is used by
// one thread at a time. Text is appended to strings with prebuilt parts: a stream of a thousand clients
// writes tens of thousands of frames a second.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "serve/choice_stream.h"
#include "serve/generation_fields.h"
#include "serve/logprobs_json.h"
#include "serve/served_model.h"

namespace bise {

struct Usage {
  std::int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
};

class Answer {
 public:
  // `id` is whole ("cmpl-..."), `object` and `chunk_object` name the two kinds of JSON. `fields` and `model`
  // outlive the answer.
  Answer(std::string id, const char* object, const char* chunk_object, std::int64_t created,
         const GenerationFields& fields, const ServedModel& model);
  virtual ~Answer() = default;

  // Frames before anything is generated.
  virtual void append_start(std::string& out) = 0;
  // Frames for what `choice` has new, and for its end; empties its delta.
  virtual void append_delta(std::size_t index, ChoiceStream& choice, std::string& out) = 0;
  // The frame with the usage, if asked for, and the last one.
  void append_end(const Usage& usage, std::string& out) const;
  // The answer in one piece.
  virtual std::string whole(std::vector<ChoiceStream>& choices, const Usage& usage) = 0;

  const std::string& id() const { return id_; }

 protected:
  // `data: {"id", ..., "choices":[{"index":I`
  void begin_frame(std::string& out, std::size_t index) const;
  // `}]`, the usage if it goes into every frame, the fingerprint on the last one, `}` and two line ends.
  void end_frame(std::string& out, std::int64_t prompt_tokens, std::int64_t generated, bool last) const;
  // `{"id", "object", "created", "model"` of the whole answer.
  std::string begin_whole() const;
  void append_usage(std::string& out, const Usage& usage, bool whole) const;
  // `"finish_reason":...,"stop_reason":...`
  static void append_finish(std::string& out, std::string_view reason, const ChoiceStream& choice);

  const GenerationFields& fields_;
  const ServedModel& model_;
  LogprobsFormat logprobs_;

 private:
  std::string id_, whole_head_, frame_head_;
};

// The last frame of every stream.
inline constexpr std::string_view kStreamEnd = "data: [DONE]\n\n";

}  // namespace bise
