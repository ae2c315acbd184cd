#pragma once
#include <cstdint>

#include "base/fields.h"

namespace llava {

/// Key `gradient_checkpointing` (HF's name) of a stage: which blocks keep nothing but their input for the
/// backward pass and run again in it. `true`, `false`, or `{llm: 2, vision_tower: true, offload: true}`.
struct GradientCheckpointing {
  std::int64_t llm = 0;       ///< every k-th block of the decoder; 0: none
  bool vision_tower = false;  ///< all blocks of the tower; matters where the tower trains
  bool offload = false;       ///< what blocks keep waits in the host's memory (GPUs)
  bool operator==(const GradientCheckpointing&) const = default;
};

template <class V>
void visit_fields(V& v, GradientCheckpointing& c) {
  v("llm", c.llm), v("vision_tower", c.vision_tower), v("offload", c.offload);
}

template <>
inline void FieldReader::read(const OrderedJson& json, GradientCheckpointing& value, const std::string& path) {
  if (json.is_boolean()) {
    value = json.get<bool>() ? GradientCheckpointing{1, true} : GradientCheckpointing{};
    return;
  }
  if (!json.is_object()) fields_detail::wrong_type(path, "true, false or {llm: 1, vision_tower: true, offload: false}", json);
  OrderedJson parts = json;
  if (const auto llm = parts.find("llm"); llm != parts.end() && llm->is_boolean()) *llm = llm->get<bool>() ? 1 : 0;
  FieldReader reader(parts, path);
  visit_fields(reader, value);
  reader.finish();
}

}  // namespace llava
