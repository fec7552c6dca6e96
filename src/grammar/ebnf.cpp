#include "grammar/ebnf.h"

#include "grammar/gbnf.h"
#include "grammar/lark.h"

namespace bise {

std::uint32_t add_ebnf(Rules& rules, std::string_view text, JsonSchemaOptions options) {
  if (text.find("::=") != std::string_view::npos) return add_gbnf(rules, text);
  return add_lark(rules, text, options);
}

}  // namespace bise
