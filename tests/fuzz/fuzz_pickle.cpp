#include <string>
#include <string_view>

#include "tensor_file_target.h"

namespace {

template <class T>
std::string le(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

/// A torch.save zip of this data.pkl and one storage, so that mutations reach the pickle machine.
std::string wrapped(std::string_view pickle) {
  std::string bytes, directory;
  const std::string storage(64, '\1');
  for (const auto& [name, content] :
       {std::pair<std::string_view, std::string_view>{"m/data.pkl", pickle}, {"m/data/0", storage}}) {
    const std::string size = le(static_cast<std::uint32_t>(content.size()));
    std::string common = std::string(12, '\0');
    common.append(size).append(size).append(le(static_cast<std::uint16_t>(name.size()))).append(2, '\0');
    directory.append(le(std::uint32_t{0x02014b50})).append(4, '\0').append(common).append(10, '\0');
    directory.append(le(static_cast<std::uint32_t>(bytes.size()))).append(name);
    bytes.append(le(std::uint32_t{0x04034b50})).append(2, '\0').append(common).append(name).append(content);
  }
  const std::string begin = le(static_cast<std::uint32_t>(bytes.size()));
  const std::string length = le(static_cast<std::uint32_t>(directory.size()));
  bytes.append(directory).append(le(std::uint32_t{0x06054b50})).append(4, '\0');
  bytes.append(le(std::uint16_t{2}))
      .append(le(std::uint16_t{2}))
      .append(length)
      .append(begin)
      .append(2, '\0');
  return bytes;
}

}  // namespace

/// Files as they are; what begins like a bare pickle is put into a zip first.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with("PK") || bytes.starts_with("\x80\x02\x8a\x0a"))
    return llava::fuzz::read_tensor_file(data, size, llava::open_torch_pickle);
  const std::string file = wrapped(bytes);
  return llava::fuzz::read_tensor_file(reinterpret_cast<const std::uint8_t*>(file.data()), file.size(),
                                       llava::open_torch_pickle);
}
