#include "text/chat_template.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "text/chat_template_messages.h"
#include "text/chat_template_mistral.h"
#include "text/jinja/template.h"

namespace bise {
namespace {

namespace fs = std::filesystem;
using Variables = std::vector<std::pair<std::string, jinja::Value>>;

// Templates are small; a larger file is something else.
constexpr std::size_t kMaxTemplateBytes = std::size_t{1} << 20;

// Marks the end of the message to go on with while the template writes it.
constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";

// Whether `expression`, less its slices and filters, reads .content or ['content'] of something.
bool reads_content(const jinja::Expression* expression) {
  if (const auto* slice = dynamic_cast<const jinja::Slice*>(expression))
    return reads_content(slice->object.get());
  if (const auto* filter = dynamic_cast<const jinja::Filter*>(expression))
    return reads_content(filter->input.get());
  const auto* subscript = dynamic_cast<const jinja::Subscript*>(expression);
  const auto* index = subscript ? dynamic_cast<const jinja::Literal*>(subscript->index.get()) : nullptr;
  return index && index->constant.is_text() && index->constant.as_text().bytes() == "content";
}

// vLLM's rule: a template that loops over a message's content wants a list of parts.
bool loops_over_content(const jinja::Template& chat_template) {
  const auto& loops = chat_template.tree().loops;
  return std::any_of(loops.begin(), loops.end(),
                     [](const jinja::For* loop) { return reads_content(loop->items.get()); });
}

// bos_token and its like: a string, or an added token's {"content": ...}.
void add_special_tokens(Json& into, const Json& config) {
  for (const char* name :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    const auto found = config.find(name);
    if (found == config.end()) continue;
    if (found->is_string()) into[name] = *found;
    if (found->is_object() && found->contains("content")) into[name] = (*found)["content"];
  }
}

Json special_tokens_of(const fs::path& folder) {
  Json tokens = Json::object();
  for (const char* file : {"special_tokens_map.json", "tokenizer_config.json"}) {
    if (fs::exists(folder / file)) add_special_tokens(tokens, read_json_file(folder / file));
  }
  return tokens;
}

jinja::Value message_value(const Json& message) {
  jinja::Dict dict;
  for (const auto& [key, item] : message.items()) {
    const bool trusted =
        key == "role" && item.is_string() && is_known_role(item.get_ref<const std::string&>());
    dict.set(jinja::Value::text(key, false), jinja::Value::from_json(item, trusted));
  }
  return jinja::Value::dict(std::move(dict));
}

jinja::Value messages_value(const Json& messages) {
  std::vector<jinja::Value> values;
  for (const Json& message : messages) values.push_back(message_value(message));
  return jinja::Value::list(std::move(values));
}

void add_template_arguments(Variables& variables, const Json& arguments) {
  if (!arguments.is_object())
    throw Error("chat_template_kwargs must be an object").got(arguments.type_name());
  for (const auto& [name, value] : arguments.items()) {
    for (const char* reserved : {"messages", "tools", "add_generation_prompt", "continue_final_message",
                                 "tokenize", "chat_template", "bos_token", "eos_token", "return_dict"}) {
      if (name == reserved) throw Error("'{}' is reserved", name).at("chat_template_kwargs");
    }
    variables.emplace_back(name, jinja::Value::from_json(value, false));
  }
}

// Adds the tag to the text that the template is to end with.
void tag_last_message(Json& messages) {
  Json& content = messages.back()["content"];
  if (content.is_array() && !content.empty()) {
    Json& text = content.back()["text"];
    text = text.get<std::string>() + std::string(kContinueTag);
  } else if (content.is_string()) {
    content = content.get<std::string>() + std::string(kContinueTag);
  } else {
    throw Error("continue_final_message needs a last message with content");
  }
}

// Cuts the rendering at the tag, and the spaces before it when the template has trimmed the message.
std::vector<TextSegment> cut_at_tag(const std::vector<TextSegment>& segments) {
  std::string all;
  for (const TextSegment& segment : segments) all += segment.text;
  const std::string_view tag = kContinueTag.substr(0, kContinueTag.size() - 1);
  std::size_t end = all.rfind(tag);
  if (end == std::string::npos) {
    throw Error("continue_final_message: the template does not write the last message");
  }
  if (all.compare(end, kContinueTag.size(), kContinueTag) != 0) {
    while (end > 0 && std::string_view(" \t\r\n\f\v").find(all[end - 1]) != std::string_view::npos) --end;
  }
  std::vector<TextSegment> result;
  for (const TextSegment& segment : segments) {
    if (end == 0) break;
    result.push_back({segment.text.substr(0, end), segment.trusted});
    end -= result.back().text.size();
  }
  return result;
}

}  // namespace

struct ChatTemplate::Parts {
  std::map<std::string, jinja::Template> templates;  // by name; a single one is "default"
  Variables special_tokens;
  int mistral_version = 0;  // 0: a Hugging Face template
  ContentFormat content_format = ContentFormat::kString;

  void add(const std::string& name, std::string_view source, const std::string& origin) {
    const auto added = templates.insert_or_assign(name, jinja::Template(source, origin)).first;
    if (loops_over_content(added->second)) content_format = ContentFormat::kParts;
  }
  void add_tokens(const Json& tokens) {
    for (const auto& [name, value] : tokens.items())
      special_tokens.emplace_back(name, jinja::Value::from_json(value, true));
  }
  // transformers' choice among named templates.
  const jinja::Template& chosen(bool has_tools) const {
    const auto tool_use = templates.find("tool_use");
    if (has_tools && tool_use != templates.end()) return tool_use->second;
    const auto fallback = templates.find("default");
    if (fallback != templates.end()) return fallback->second;
    throw Error("the checkpoint has several chat templates and none is named 'default'");
  }
  // Of tokenizer_config.json's "chat_template"; false when it has none.
  bool add_from_config(const Json& config, const std::string& origin) {
    const auto found = config.find("chat_template");
    if (found == config.end() || found->is_null()) return false;
    if (found->is_string()) {
      add("default", found->get_ref<const std::string&>(), origin);
    } else if (found->is_array()) {
      for (const Json& entry : *found) {
        const std::string name = require_string(entry, "name", origin);
        add(name, require_string(entry, "template", origin), origin + " '" + name + "'");
      }
    } else {
      throw Error("chat_template must be a string or a list").at(origin).got(found->type_name());
    }
    return !templates.empty();
  }
  bool add_from_files(const fs::path& folder) {
    const fs::path file = folder / "chat_template.jinja";
    if (!fs::exists(file)) return false;
    add("default", read_file(file, kMaxTemplateBytes), file.string());
    const fs::path further = folder / "additional_chat_templates";
    if (!fs::is_directory(further)) return true;
    for (const auto& entry : fs::directory_iterator(further)) {
      if (entry.path().extension() != ".jinja") continue;
      add(entry.path().stem().string(), read_file(entry.path(), kMaxTemplateBytes), entry.path().string());
    }
    return true;
  }
};

ChatTemplate ChatTemplate::from_source(std::string_view source, const std::string& name,
                                       const Json& special_tokens) {
  auto parts = std::make_shared<Parts>();
  parts->add("default", source, name);
  parts->add_tokens(special_tokens);
  return ChatTemplate(std::move(parts));
}

ChatTemplate ChatTemplate::mistral(int version) {
  check_mistral_version(version);
  auto parts = std::make_shared<Parts>();
  parts->add("default", mistral_template(version), fmt::format("Mistral chat format v{}", version));
  parts->add_tokens(Json{{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  parts->mistral_version = version;
  return ChatTemplate(std::move(parts));
}

ChatTemplate ChatTemplate::load(const fs::path& folder, const fs::path& override_file) {
  if (!fs::is_directory(folder)) throw Error("the checkpoint folder is absent").at(folder.string());
  auto parts = std::make_shared<Parts>();
  parts->add_tokens(special_tokens_of(folder));
  if (!override_file.empty()) {
    parts->add("default", read_file(override_file, kMaxTemplateBytes), override_file.string());
    return ChatTemplate(std::move(parts));
  }
  if (parts->add_from_files(folder)) return ChatTemplate(std::move(parts));
  const fs::path config = folder / "tokenizer_config.json";
  if (fs::exists(config) &&
      parts->add_from_config(read_json_file(config), config.string() + ": chat_template")) {
    return ChatTemplate(std::move(parts));
  }
  if (const auto version = find_mistral_version(folder)) return mistral(*version);
  throw Error("the checkpoint has no chat template")
      .at(folder.string())
      .expected(
          "chat_template.jinja, chat_template in tokenizer_config.json, tekken.json or tokenizer.model.v*, "
          "or --chat-template FILE");
}

ChatTemplate::ContentFormat ChatTemplate::content_format() const {
  return parts_->content_format;
}

std::vector<TextSegment> ChatTemplate::render(const Json& messages, const Json& tools,
                                              const ChatOptions& options) const {
  check_messages(messages);
  if (!tools.is_null() && !tools.is_array()) throw Error("tools must be a list").got(tools.type_name());
  if (options.add_generation_prompt && options.continue_final_message) {
    throw Error("add_generation_prompt and continue_final_message exclude each other");
  }
  Variables variables = parts_->special_tokens;
  if (options.template_arguments) add_template_arguments(variables, *options.template_arguments);
  if (parts_->mistral_version > 0) {
    const Json form =
        mistral_variables(messages, tools, parts_->mistral_version, options.continue_final_message);
    for (const auto& [name, value] : form.items()) {
      variables.emplace_back(
          name, name == "messages" ? messages_value(value) : jinja::Value::from_json(value, false));
    }
    return parts_->chosen(false).render(variables, options.now);
  }
  Json normal = normalized_messages(messages, parts_->content_format == ContentFormat::kParts);
  if (options.continue_final_message) tag_last_message(normal);
  variables.emplace_back("messages", messages_value(normal));
  variables.emplace_back("tools", jinja::Value::from_json(tools, false));
  if (!options.template_arguments || !options.template_arguments->contains("documents")) {
    variables.emplace_back("documents", jinja::Value::none());
  }
  variables.emplace_back("add_generation_prompt", jinja::Value::boolean(options.add_generation_prompt));
  const auto segments = parts_->chosen(!tools.is_null()).render(variables, options.now);
  return options.continue_final_message ? cut_at_tag(segments) : segments;
}

}  // namespace bise
