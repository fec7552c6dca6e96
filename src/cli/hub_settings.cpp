#include "cli/hub_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

#include "base/error.h"
#include "base/files.h"
#include "cli/version.h"
#include "hub/cache.h"
#include "net/url.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

constexpr std::string_view kHub = "https://huggingface.co";
constexpr std::string_view kRows = "https://datasets-server.huggingface.co";
constexpr double kIdleTimeout = 30;  // s

std::string first_of(const Environ& variable, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (const char* value = variable(name); value && *value) return value;
  return "";
}

bool is_true(const std::string& value) {
  std::string upper = value;
  std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return std::toupper(c); });
  return upper == "1" || upper == "ON" || upper == "YES" || upper == "TRUE";
}

// "~/x", "$HOME/x" and "${HOME}/x" as Python's expanduser and expandvars; an unknown variable stays.
fs::path expanded(const Environ& variable, const std::string& text) {
  std::string path;
  std::size_t at = 0;
  if (text == "~" || text.starts_with("~/")) {
    path = first_of(variable, {"HOME"});
    at = 1;
  }
  while (at < text.size()) {
    const bool braces = text.compare(at, 2, "${") == 0;
    std::size_t end = at + (braces ? 2 : 1);
    const std::size_t begin = end;
    while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '_'))
      ++end;
    const bool is_name =
        text[at] == '$' && end > begin && (!braces || (end < text.size() && text[end] == '}'));
    const char* value = is_name ? variable(text.substr(begin, end - begin).c_str()) : nullptr;
    if (value) {
      path += value;
      at = end + (braces ? 1 : 0);
    } else {
      path += text[at++];
    }
  }
  return path;
}

std::string trimmed(std::string text) {
  std::erase_if(text, [](char c) { return c == '\r' || c == '\n'; });
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string read_token(const Environ& variable, const fs::path& home) {
  if (is_true(first_of(variable, {"HF_HUB_DISABLE_IMPLICIT_TOKEN"}))) return "";
  std::string token = trimmed(first_of(variable, {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}));
  if (!token.empty()) return token;
  const std::string place = first_of(variable, {"HF_TOKEN_PATH"});
  const fs::path path = place.empty() ? home / "token" : expanded(variable, place);
  std::error_code absent;
  return fs::is_regular_file(path, absent) ? trimmed(read_file(path, 64 << 10)) : "";
}

std::vector<std::string> comma_list(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    if (std::string part = trimmed(text.substr(at, end - at)); !part.empty()) parts.push_back(part);
    at = end + 1;
  }
  return parts;
}

// Rather an error here than one for each call.
void require_usable(const HubSettings& settings) {
  for (const std::string& url : {settings.endpoint, settings.datasets_endpoint}) parse_url(url);
  if (settings.token.find_first_of(std::string_view("\r\n\0 ", 4)) != std::string::npos)
    throw Error("the token holds a space, a line end or NUL").at("HF_TOKEN");
}

}  // namespace

void set_endpoint(HubSettings& settings, std::string endpoint) {
  while (endpoint.ends_with('/')) endpoint.pop_back();
  settings.datasets_endpoint = kRows;
  if (endpoint != kHub) {  // the rule of Hugging Face's `datasets`
    settings.datasets_endpoint = endpoint;
    if (const std::size_t scheme = endpoint.find("://"); scheme != std::string::npos)
      settings.datasets_endpoint.insert(scheme + 3, "datasets-server.");
  }
  settings.endpoint = std::move(endpoint);
}

HubSettings hub_settings(const Environ& variable) {
  HubSettings settings;
  const std::string endpoint = first_of(variable, {"HF_ENDPOINT"});
  set_endpoint(settings, endpoint.empty() ? std::string(kHub) : endpoint);
  std::string home = first_of(variable, {"HF_HOME"});
  if (home.empty()) {
    const std::string caches = first_of(variable, {"XDG_CACHE_HOME"});
    home = (caches.empty() ? std::string("~/.cache") : caches) + "/huggingface";
  }
  const fs::path home_path = expanded(variable, home);
  const std::string cache = first_of(variable, {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"});
  settings.cache_dir = cache.empty() ? home_path / "hub" : expanded(variable, cache);
  settings.token = read_token(variable, home_path);
  settings.offline = is_true(first_of(variable, {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}));

  settings.http.user_agent = "bise/" + version_text();
  settings.http.idle_timeout = kIdleTimeout;
  if (const std::string seconds = first_of(variable, {"HF_HUB_DOWNLOAD_TIMEOUT"}); !seconds.empty()) {
    settings.http.idle_timeout = std::atof(seconds.c_str());
    if (!(settings.http.idle_timeout > 0))
      throw Error("not a time").at("HF_HUB_DOWNLOAD_TIMEOUT").expected("seconds").got(seconds);
  }
  settings.http.proxy = settings.endpoint.starts_with("https")
                            ? first_of(variable, {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"})
                            : first_of(variable, {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"});
  settings.http.no_proxy = comma_list(first_of(variable, {"no_proxy", "NO_PROXY"}));
  settings.http.ca_certs = first_of(variable, {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"});
  require_usable(settings);
  return settings;
}

HubSettings hub_settings() {
  return hub_settings([](const char* name) { return std::getenv(name); });
}

fs::path model_folder(const std::string& model) {
  std::error_code absent;
  if (fs::exists(model, absent)) return model;
  const std::size_t at = model.rfind('@');
  const std::string repo = model.substr(0, at);
  if (!is_repo_id(repo))
    throw Error("no such folder")
        .at(model)
        .expected("a checkpoint folder, or owner/name of a model that bise download has brought");
  const std::string revision = at == std::string::npos ? "main" : model.substr(at + 1);
  return HubCache(hub_settings().cache_dir).find_model(repo, revision);
}

}  // namespace bise
