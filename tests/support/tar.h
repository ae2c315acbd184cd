#pragma once
#include <fmt/format.h>

#include <string>

namespace llava::test {

/// A header block and the padded data.
inline std::string tar_member(const std::string& name, const std::string& data, char type = '0',
                              const std::string& prefix = "") {
  std::string block(512, '\0');
  const auto put = [&](std::size_t at, const std::string& text) { block.replace(at, text.size(), text); };
  put(0, name.substr(0, 100));
  put(100, "0000644");
  put(124, fmt::format("{:011o}", data.size()));
  block[156] = type;
  put(257, std::string("ustar\0"
                       "00",
                       8));
  put(345, prefix);
  put(148, "        ");
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  put(148, fmt::format("{:06o}", sum) + '\0' + ' ');
  return block + data + std::string((512 - data.size() % 512) % 512, '\0');
}

}  // namespace llava::test
