#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/prepare.h"

namespace llava {

/// Why a sample cannot be trained on.
enum class Defect {
  kBadRecord,         ///< no JSON object, no conversation, media or turns of a wrong type
  kRoleOrder,         ///< two turns of one side in a row, no question, an unknown speaker
  kEmptyAnswer,       ///< an answer without text
  kPlaceholderCount,  ///< <image> or <video> marks and media differ in number
  kMissingImage,      ///< an image or film that is not there
  kUnreadableImage,   ///< one that cannot be read, or is above the limits
  kOverLong,          ///< truncation leaves no answer, or would cut an image
  kAllMasked,         ///< nothing to learn from
  kOther,
};
inline constexpr std::size_t kNumDefects = 9;
/// "missing_image": as the report names it.
const char* to_string(Defect defect);

struct DefectiveSample {
  std::size_t index = 0;
  std::string id, where, why;
};

/// What is wrong with a data set: for each defect how many samples, and the first few of them in the data's
/// order.
struct DataReport {
  std::size_t samples = 0;
  std::array<std::size_t, kNumDefects> counts{};
  std::array<std::vector<DefectiveSample>, kNumDefects> first;
  double seconds = 0;
  std::size_t defective() const;
  OrderedJson to_json() const;
  std::string to_text() const;
};

struct ValidateOptions {
  std::int64_t threads = 2;
  std::size_t listed = 10;     ///< of each defect
  bool decode_images = false;  ///< every image whole; else that it is there and its header
  const std::atomic<bool>* stop = nullptr;
};

/// Looks at every sample of preparer.dataset as training would, on a few threads. Error{kStopped} when
/// asked to stop.
DataReport validate_data(const SamplePreparer& preparer, const ValidateOptions& options);

/// One sample; true if it can be trained on.
bool check_sample(const SamplePreparer& preparer, std::size_t index, bool decode_images, Defect& defect,
                  std::string& why, std::string& id);

}  // namespace llava
