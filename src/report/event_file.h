#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llava {

/// CRC-32C (Castagnoli polynomial, reflected) of bytes.
std::uint32_t crc32c(std::string_view bytes);
/// As TFRecord files store it: rotated by 15 bits and a constant added, so that a checksum of bytes that
/// themselves hold checksums is not special.
std::uint32_t masked_crc32c(std::string_view bytes);

/// A record of a TFRecord file: length (8 bytes, little endian), its masked CRC, the bytes, their masked
/// CRC.
std::string tf_record(std::string_view bytes);

/// TensorBoard's Event messages, serialised (tensorboard/compat/proto/event.proto and summary.proto; the
/// few fields scalars need, in the order of their numbers as protobuf's own serialisers write them).
std::string version_event(double wall_time);
/// Readers drop what earlier files of the run say of this step and later ones.
std::string restart_event(double wall_time, std::int64_t step);
std::string scalar_event(double wall_time, std::int64_t step,
                         const std::vector<std::pair<std::string, double>>& scalars);

/// An event file that TensorBoard reads: `folder/events.out.tfevents.<seconds>.<host>.<process>.<n>`.
class EventFile {
 public:
  /// `first_step` > 0: the run goes on from there. Error{kResource} if the file cannot be made.
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);
  void write(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
  const std::filesystem::path& path() const { return path_; }

 private:
  void append(const std::string& event);
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace llava
