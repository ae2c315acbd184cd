#include "text/jinja.h"

#include "base/error.h"
#include "text/jinja_interpreter.h"

namespace llava {

namespace {

/// What the budget grows by with the input.
std::size_t size_of(const OrderedJson& json) {
  if (json.is_string()) return 1 + json.get_ref<const std::string&>().size();
  std::size_t size = 1;
  if (json.is_structured())
    for (const auto& [key, item] : json.items()) size += key.size() + size_of(item);
  return size;
}

}  // namespace

struct JinjaTemplate::Program {
  jinja::Block block;
};

JinjaTemplate::JinjaTemplate(std::string source, const JinjaLimits& limits) : limits_(limits) {
  if (source.size() > limits.source_bytes)
    fail(ErrorKind::kResource, "chat template: {} bytes, more than {}", source.size(), limits.source_bytes);
  program_ = std::make_unique<const Program>(Program{jinja::parse_template(source, limits.depth)});
}

JinjaTemplate::~JinjaTemplate() = default;
JinjaTemplate::JinjaTemplate(JinjaTemplate&&) noexcept = default;
JinjaTemplate& JinjaTemplate::operator=(JinjaTemplate&&) noexcept = default;

JinjaOutput JinjaTemplate::render(const OrderedJson& variables) const {
  if (!variables.is_object()) fail(ErrorKind::kUsage, "chat template: the variables must be an object");
  return jinja::interpret(program_->block, variables, limits_, limits_.steps + size_of(variables));
}

}  // namespace llava
