#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

#include "base/error.h"

namespace bise {
namespace {

// A word of a million letters still fits; far beyond, the search ends with an error instead of the memory.
constexpr std::size_t kSmallStack = std::size_t{64} << 10;
constexpr std::size_t kLargestStack = std::size_t{64} << 20;
constexpr std::uint32_t kMatchLimit = 50'000'000;

std::string message_of(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

// PCRE2's \s takes U+180E for a space, which Unicode has not since version 6.3. Outside brackets \s and \S
// are rewritten as Unicode's White_Space; inside brackets \s is.
std::string with_unicode_spaces(const std::string& pattern) {
  constexpr const char* kSpaces = "\\x09-\\x0d\\x{85}\\p{Z}";
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      const char kind = pattern[++i];
      if (kind == 's')
        out += in_class ? std::string(kSpaces) : "[" + std::string(kSpaces) + "]";
      else if (kind == 'S' && !in_class)
        out += "[^" + std::string(kSpaces) + "]";
      else
        out += {'\\', kind};
      continue;
    }
    if (pattern[i] == '[' && !in_class) {
      in_class = true;
      out += '[';
      // "]" right after "[" or "[^" is an ordinary character.
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];
      continue;
    }
    if (pattern[i] == ']') in_class = false;
    out += pattern[i];
  }
  return out;
}

}  // namespace

struct RegexScratch::State {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = nullptr;

  State() {
    if (!data || !context) throw std::bad_alloc();
    pcre2_set_match_limit(context, kMatchLimit);
  }
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

RegexScratch::RegexScratch() : state_(std::make_unique<State>()) {}
RegexScratch::~RegexScratch() = default;

struct Regex::Code {
  pcre2_code* code = nullptr;
  std::string where;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern, const std::string& where) : code_(std::make_unique<Code>()) {
  const std::string source = with_unicode_spaces(pattern);
  int problem = 0;
  PCRE2_SIZE offset = 0;
  code_->where = where;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C,
                              &problem, &offset, nullptr);
  if (!code_->code)
    throw Error("invalid pattern: {} (near \"{}\")", message_of(problem),
                source.substr(0, offset).substr(offset > 40 ? offset - 40 : 0))
        .at(where);
  // Without machine code for this processor the interpreter does the same more slowly.
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

int Regex::search(std::string_view text, std::size_t from, RegexScratch& scratch, void* data) const {
  RegexScratch::State& state = *scratch.state_;
  auto* match = static_cast<pcre2_match_data*>(data);
  const auto run = [&] {
    return pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK, match, state.context);
  };
  int result = run();
  if (result == PCRE2_ERROR_JIT_STACKLIMIT && !state.stack) {
    state.stack = pcre2_jit_stack_create(kSmallStack, kLargestStack, nullptr);
    pcre2_jit_stack_assign(state.context, nullptr, state.stack);
    result = run();
  }
  if (result == PCRE2_ERROR_NOMATCH) return 0;
  if (result < 0) throw Error("cannot split the text: {}", message_of(result)).at(code_->where);
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match);
  // \K in a lookahead can put the start after the end.
  if (ends[0] > ends[1]) throw Error("the pattern matches backwards").at(code_->where);
  // pcre2 gives 0 where there are more groups than the match data keeps; the whole match is there.
  return result == 0 ? 1 : result;
}

std::optional<TextRange> Regex::find(std::string_view text, std::size_t from, RegexScratch& scratch) const {
  pcre2_match_data* data = scratch.state_->data;
  if (search(text, from, scratch, data) == 0) return std::nullopt;
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
  return TextRange{ends[0], ends[1]};
}

bool Regex::find_groups(std::string_view text, std::size_t from, RegexScratch& scratch,
                        std::vector<TextRange>& groups) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr), pcre2_match_data_free);
  if (!data) throw std::bad_alloc();
  const auto pairs = static_cast<std::size_t>(search(text, from, scratch, data.get()));
  if (pairs == 0) return false;
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
  groups.assign(pcre2_get_ovector_count(data.get()), TextRange{});
  for (std::size_t i = 0; i < pairs; ++i)
    if (ends[2 * i] != PCRE2_UNSET) groups[i] = {ends[2 * i], ends[2 * i + 1]};
  return true;
}

}  // namespace bise
