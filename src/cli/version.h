#pragma once
#include <string>

namespace llava {

/// "llava 0.1.0 (commit 1a2b3c4, LibTorch 2.13.0)".
std::string version_text();
/// The commit alone; "unknown" outside a git checkout.
std::string version_commit();

}  // namespace llava
