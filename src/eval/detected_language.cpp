#include "eval/detected_language.h"

#include <map>
#include <set>

#include "eval/python_regex.h"
#include "text/jinja/characters.h"

namespace bise {
namespace {

struct Script {
  std::uint32_t first, last;
  const char* language;
};
// Ranges of The Unicode Standard's code charts. Languages that share a script are told apart by their words.
constexpr Script kScripts[] = {
    {0x0370, 0x03ff, "el"}, {0x0400, 0x052f, "ru"}, {0x0590, 0x05ff, "he"},    {0x0600, 0x06ff, "ar"},
    {0x0900, 0x097f, "hi"}, {0x0980, 0x09ff, "bn"}, {0x0a00, 0x0a7f, "pa"},    {0x0a80, 0x0aff, "gu"},
    {0x0b80, 0x0bff, "ta"}, {0x0c00, 0x0c7f, "te"}, {0x0c80, 0x0cff, "kn"},    {0x0d00, 0x0d7f, "ml"},
    {0x0e00, 0x0e7f, "th"}, {0x3040, 0x30ff, "ja"}, {0x4e00, 0x9fff, "zh-cn"}, {0xac00, 0xd7af, "ko"},
};

const std::map<std::string, std::map<std::string, std::set<std::string>>> kWords = {
    {"latin",
     {{"en",
       {"the", "and", "of", "to", "is", "in", "that", "it", "for", "you", "was", "with", "are", "this"}},
      {"de", {"der", "die", "und", "das", "ist", "nicht", "ein", "eine", "ich", "mit", "zu", "den", "auf"}},
      {"fr", {"le", "la", "les", "et", "des", "est", "une", "dans", "que", "pour", "qui", "du", "pas"}},
      {"es", {"el", "la", "los", "y", "que", "las", "una", "por", "con", "para", "es", "del", "su"}},
      {"it", {"il", "che", "di", "e", "la", "un", "non", "per", "una", "sono", "con", "del", "gli"}},
      {"pt", {"o", "que", "e", "do", "da", "em", "um", "uma", "para", "os", "com", "não", "as"}},
      {"nl", {"de", "het", "een", "en", "van", "is", "dat", "niet", "op", "te", "zijn", "met"}},
      {"sv", {"och", "att", "det", "som", "en", "är", "på", "för", "med", "inte", "av"}},
      {"fi", {"ja", "on", "ei", "se", "että", "oli", "hän", "mutta", "kun", "niin", "ovat"}},
      {"pl", {"i", "w", "nie", "na", "się", "że", "z", "do", "jest", "to", "jak"}},
      {"vi", {"và", "là", "của", "có", "không", "được", "một", "cho", "những", "người", "các"}},
      {"tr", {"ve", "bir", "bu", "için", "da", "de", "ile", "çok", "gibi", "olarak"}},
      {"id", {"dan", "yang", "di", "itu", "dengan", "untuk", "tidak", "ini", "dari", "akan"}},
      {"sw", {"na", "ya", "wa", "kwa", "ni", "katika", "la", "za", "hii", "kuwa", "yake", "watu"}}}},
    {"ru",
     {{"ru", {"и", "в", "не", "на", "что", "с", "это", "как", "по", "но", "из"}},
      {"bg", {"и", "на", "да", "се", "от", "за", "е", "са", "това", "с", "като", "ще"}},
      {"uk", {"і", "в", "не", "на", "що", "з", "це", "як", "та", "до", "є"}}}},
    {"ar",
     {{"ar", {"في", "من", "على", "أن", "إلى", "هذا", "التي", "عن", "ما"}},
      {"fa", {"و", "در", "به", "از", "که", "این", "را", "با", "است", "برای"}},
      {"ur", {"کے", "میں", "کی", "ہے", "اور", "سے", "کا", "کو", "ہیں"}}}},
    {"hi",
     {{"hi", {"है", "के", "में", "की", "और", "से", "का", "को", "हैं"}},
      {"mr", {"आहे", "आणि", "या", "च्या", "हे", "ते", "एक", "आहेत", "करण्यासाठी"}},
      {"ne", {"छ", "र", "को", "मा", "हो", "छन्", "लागि", "गर्न", "यो"}}}},
};

std::string by_words(const std::string& group, std::string_view text) {
  std::map<std::string, int> hits;
  const auto& languages = kWords.at(group);
  for (const auto& match : python_find_all(R"([\w\p{M}]+)", python_lower(text)))
    for (const auto& [language, words] : languages) hits[language] += words.contains(match[0]);
  std::string best;
  int most = 0;
  for (const auto& [language, count] : hits)
    if (count > most) best = language, most = count;
  return best;
}

}  // namespace

std::string detected_language(std::string_view text) {
  std::map<std::string, int> letters;
  for (std::size_t at = 0; at < text.size(); at += jinja::character_length(text[at])) {
    const std::uint32_t character = jinja::character_at(text, at);
    if (!jinja::has_property(character, jinja::Property::kAlphabetic)) continue;
    const char* script =
        character < 0x0250 || (character >= 0x1e00 && character < 0x1f00) ? "latin" : nullptr;
    for (const Script& known : kScripts)
      if (character >= known.first && character <= known.last) script = known.language;
    if (script) ++letters[script];
  }
  std::string script;
  int most = 0;
  for (const auto& [name, count] : letters)
    if (count > most) script = name, most = count;
  if (letters.contains("ja") && script == "zh-cn") script = "ja";
  if (script.empty() || !kWords.contains(script)) return script;
  const std::string found = by_words(script, text);
  return found.empty() && script != "latin" ? script : found;
}

}  // namespace bise
