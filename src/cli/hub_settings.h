// What the environment says about the Hugging Face hub, as huggingface_hub reads it, and MODEL arguments that
// are names of repositories.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "hub/hub_client.h"

namespace bise {

// A variable's value, or nullptr.
using Environ = std::function<const char*(const char* name)>;

// HF_ENDPOINT, HF_TOKEN (HUGGING_FACE_HUB_TOKEN, the file HF_TOKEN_PATH, HF_HUB_DISABLE_IMPLICIT_TOKEN),
// HF_HUB_CACHE (HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME), HF_HUB_OFFLINE (TRANSFORMERS_OFFLINE),
// HF_HUB_DOWNLOAD_TIMEOUT; HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY; SSL_CERT_FILE, REQUESTS_CA_BUNDLE.
HubSettings hub_settings(const Environ& variable);
HubSettings hub_settings();  // of this process

// Points the settings at another hub: HF_ENDPOINT's part by itself.
void set_endpoint(HubSettings& settings, std::string endpoint);

// A MODEL argument: a folder that exists, or "owner/name" or "owner/name@revision" as it lies in the cache.
// Throws Error naming the command that brings it otherwise.
std::filesystem::path model_folder(const std::string& model);

}  // namespace bise
