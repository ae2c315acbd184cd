#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "data/record_source.h"

namespace llava {

/// The records of a file, or of all files of a pattern (base/path_pattern.h) one after the other, opened by
/// several threads. By suffix: .tar (WebDataset), .parquet (Hugging Face), anything else JSON or JSONL.
/// `index_folder` as RecordFile's.
std::unique_ptr<RecordSource> open_source(const std::string& path,
                                          const std::filesystem::path& index_folder);

/// A parquet file's rows (data/parquet_source.cpp); where the program was built without it,
/// Error{kUnsupported} that says so.
std::unique_ptr<RecordSource> open_parquet(const std::filesystem::path& path);

}  // namespace llava
