#include "base/yaml.h"

namespace llava {

namespace {

bool is_block(const OrderedJson& json) { return (json.is_object() || json.is_array()) && !json.empty(); }

bool is_flat(const OrderedJson& json) {
  for (const auto& item : json)
    if (item.is_structured()) return false;
  return json.is_array();
}

void write_block(const OrderedJson& json, std::size_t indent, std::string& out);

void write_value(const OrderedJson& value, std::size_t indent, std::string& out) {
  if (!is_block(value) || is_flat(value)) {
    out += ' ' + value.dump() + '\n';  // JSON scalars and flow lists are YAML
    return;
  }
  out += '\n';
  write_block(value, indent + 2, out);
}

void write_block(const OrderedJson& json, std::size_t indent, std::string& out) {
  const std::string margin(indent, ' ');
  if (json.is_array()) {
    for (const auto& item : json) {
      out += margin + '-';
      write_value(item, indent, out);
    }
    return;
  }
  for (const auto& [key, value] : json.items()) {
    const bool plain =
        !key.empty() && key.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789") == std::string::npos;
    out += margin + (plain ? key : OrderedJson(key).dump()) + ':';
    write_value(value, indent, out);
  }
}

}  // namespace

std::string to_yaml(const OrderedJson& json) {
  if (!is_block(json)) return json.dump() + '\n';
  std::string out;
  write_block(json, 0, out);
  return out;
}

}  // namespace llava
