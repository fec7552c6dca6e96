#include "hub/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"

namespace bise {
namespace {

constexpr std::size_t kMostNameBytes = 96, kMostPathBytes = 1024, kMostSegmentBytes = 255;

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}

// What is wrong with one part of a repository's id, or "".
std::string name_problem(std::string_view name) {
  if (name.empty() || name.size() > kMostNameBytes) return "each name has 1 to 96 characters";
  if (!std::ranges::all_of(name, [](char c) { return is_word(c) || c == '-' || c == '.'; }))
    return "names have letters, digits, '-', '_' and '.' only";
  if (!is_word(name.front()) || !is_word(name.back())) return "names begin and end with a letter or digit";
  if (name.find("--") != name.npos || name.find("..") != name.npos) return "names hold no \"--\" or \"..\"";
  return "";
}

std::string repo_id_problem(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash != text.npos && text.find('/', slash + 1) != text.npos) return "there is one '/' at most";
  if (text.ends_with(".git")) return "names do not end in .git";
  if (slash == text.npos) return name_problem(text);
  const std::string problem = name_problem(text.substr(0, slash));
  return problem.empty() ? name_problem(text.substr(slash + 1)) : problem;
}

bool is_lower_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

std::string segment_problem(std::string_view segment) {
  if (segment.empty()) return "it is absolute or has an empty part";
  if (segment == "." || segment == "..") return "it has a \".\" or \"..\" part";
  if (segment.size() > kMostSegmentBytes) return "a part is longer than 255 bytes";
  if (segment.size() >= 2 && segment[1] == ':' && std::isalpha(static_cast<unsigned char>(segment[0])))
    return "it has a drive letter";
  if (segment == ".git") return "it is inside .git";
  return "";
}

std::string path_problem(std::string_view path) {
  if (path.empty()) return "it is empty";
  if (path.size() > kMostPathBytes) return "it is longer than 1024 bytes";
  if (std::ranges::any_of(path, is_control)) return "it holds a control character";
  if (path.starts_with(".cache/huggingface")) return "the name is reserved";
  for (std::size_t at = 0; at <= path.size();) {
    // A name that other systems read as a path is judged as they would.
    const std::size_t end = std::min(path.find_first_of("/\\", at), path.size());
    if (std::string problem = segment_problem(path.substr(at, end - at)); !problem.empty()) return problem;
    at = end + 1;
  }
  return "";
}

// Hostile names go into messages without what a terminal would obey.
std::string printable(std::string_view text) {
  std::string shown(text.substr(0, 200));
  std::ranges::replace_if(shown, is_control, '?');
  return shown;
}

}  // namespace

bool is_repo_id(std::string_view text) {
  return repo_id_problem(text).empty();
}

void require_repo_id(std::string_view text) {
  if (const std::string problem = repo_id_problem(text); !problem.empty())
    throw Error("not the name of a repository on the hub: {}", problem)
        .expected("owner/name")
        .got(printable(text));
}

std::string repo_folder_name(RepoType type, std::string_view repo_id) {
  std::string name = type == RepoType::kModel ? "models--" : "datasets--";
  for (const char c : repo_id) name += c == '/' ? std::string("--") : std::string(1, c);
  return name;
}

std::string repo_url_path(RepoType type, std::string_view repo_id) {
  return (type == RepoType::kModel ? "" : "datasets/") + std::string(repo_id);
}

bool is_commit_hash(std::string_view text) {
  return is_lower_hex(text, 40);
}

bool is_sha256(std::string_view text) {
  return is_lower_hex(text, 64);
}

void require_safe_path(std::string_view path, const std::string& where) {
  if (const std::string problem = path_problem(path); !problem.empty())
    throw Error("refused the name of a file: {}", problem)
        .at(where)
        .expected("a relative path")
        .got(printable(path));
}

}  // namespace bise
