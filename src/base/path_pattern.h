#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace llava {

/// Whether a path names several files: "shard-{000..099}.tar", "{a,b}.json", "part-*.jsonl".
bool is_path_pattern(const std::string& path);

/// The files of a path or pattern, in order: braces first ({a,b}; {000..099} with its zeros), and where a
/// result holds '*',
/// '?' or '[', the files it finds, sorted. Without these wildcards the files need not exist. A file whose
/// own name looks like a pattern is that file. Error{kInput}: braces that make more than a million names,
/// wildcards that find nothing.
std::vector<std::filesystem::path> expand_path(const std::string& pattern);

/// Whether any file of it exists.
bool path_exists(const std::string& pattern);

}  // namespace llava
