#include "cli/version.h"

namespace bise {

std::string version_text() {
  return BISE_VERSION " (" BISE_COMMIT ")";
}

}  // namespace bise
