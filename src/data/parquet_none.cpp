#include "base/error.h"
#include "data/open_source.h"

namespace llava {

std::unique_ptr<RecordSource> open_parquet(const std::filesystem::path& path) {
  throw Error(ErrorKind::kUnsupported, fmt::format("{}: this build cannot read parquet", path.string()),
              "build with LLAVA_PARQUET=ON scripts/build (it fetches libarrow with the pyarrow package), "
              "or write JSONL or tar shards");
}

}  // namespace llava
