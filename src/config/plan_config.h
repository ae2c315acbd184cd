#pragma once
#include <string>

#include "base/fields.h"
#include "config/image_policy.h"

/// What a stage's data are expected to be (key `expected`), and the names of image_aspect_ratio.
namespace llava {

/// A recipe's word for data that are not here. Numbers but `samples` are means over the samples.
struct ExpectedData {
  double samples = 0;            ///< in one epoch
  double tokens = 0;             ///< with those of the media
  double supervised_tokens = 0;  ///< that the loss is over
  double images = 0;             ///< images or frames
  double tiles = 1;              ///< views of an image that the tower sees
};

/// Key `image_aspect_ratio` of a stage, LLaVA's name. Tiles cannot be chosen for a stage: the model's own.
template <>
struct EnumTable<AspectRatio> {
  static constexpr std::pair<const char*, AspectRatio> names[] = {{"square", AspectRatio::kSquare},
                                                                  {"pad", AspectRatio::kPad}};
};

template <class V>
void visit_fields(V& v, ExpectedData& c) {
  v("samples", c.samples), v("tokens", c.tokens), v("supervised_tokens", c.supervised_tokens);
  v("images", c.images), v("tiles", c.tiles);
}

/// Error{kInput} naming the key for values that cannot be; `path` stands before keys.
void check_expected(const ExpectedData& expected, const std::string& path);

}  // namespace llava
