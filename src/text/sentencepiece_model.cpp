#include "text/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <unordered_set>

#include "base/error.h"
#include "text/unicode.h"

namespace llava {
namespace {

constexpr std::size_t kMaxPieces = std::size_t{1} << 20, kMaxPieceLen = 1024;

/// Reads protobuf fields one after the other; every read is checked against the end.
class ProtoReader {
 public:
  ProtoReader(std::string_view bytes, std::size_t offset) : bytes_(bytes), offset_(offset) {}

  /// Goes to the next field; false at the end.
  bool next() {
    if (pos_ == bytes_.size()) return false;
    const std::uint64_t key = varint();
    field_ = key >> 3;
    wire_ = static_cast<int>(key & 7);
    if (field_ == 0) bad("field number 0");
    number_ = 0;
    data_ = {};
    switch (wire_) {
      case 0:
        number_ = varint();
        break;
      case 1:
        data_ = take(8);
        break;
      case 2:
        data_ = take(varint());
        break;
      case 5:
        data_ = take(4);
        break;
      default:
        bad("unknown wire type");
    }
    return true;
  }
  std::uint64_t field() const { return field_; }
  std::uint64_t number() const {
    if (wire_ != 0) bad("expected a number");
    return number_;
  }
  bool boolean() const { return number() != 0; }
  std::string_view data() const {
    if (wire_ != 2) bad("expected bytes");
    return data_;
  }
  float real() const {
    if (wire_ != 5) bad("expected a float");
    std::uint32_t bits = 0;
    for (int i = 3; i >= 0; --i)
      bits = (bits << 8) | static_cast<unsigned char>(data_[static_cast<std::size_t>(i)]);
    return std::bit_cast<float>(bits);
  }
  ProtoReader message() const { return ProtoReader(data(), offset_ + pos_ - data_.size()); }

 private:
  [[noreturn]] void bad(std::string_view why) const {
    fail(ErrorKind::kFormat, "sentencepiece model: {} at byte {}", why, offset_ + pos_);
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (pos_ == bytes_.size()) bad("the file ends inside a number");
      const auto byte = static_cast<unsigned char>(bytes_[pos_++]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    bad("a number of more than 10 bytes");
  }
  std::string_view take(std::uint64_t len) {
    if (len > bytes_.size() - pos_) bad("a field is longer than the file");
    pos_ += len;
    return bytes_.substr(pos_ - len, len);
  }

  std::string_view bytes_;
  std::size_t offset_;  ///< of bytes_ in the file, for messages
  std::size_t pos_ = 0;
  std::uint64_t field_ = 0, number_ = 0;
  int wire_ = 0;
  std::string_view data_;
};

SentencePieceModel::Piece read_piece(ProtoReader reader, std::size_t index) {
  SentencePieceModel::Piece piece;
  while (reader.next()) {
    if (reader.field() == 1) piece.text = reader.data();
    if (reader.field() == 2) piece.score = reader.real();
    if (reader.field() == 3) {
      if (reader.number() < 1 || reader.number() > 6)
        fail(ErrorKind::kFormat, "sentencepiece model: piece {} has the unknown type {}", index,
             reader.number());
      piece.type = static_cast<SentencePieceModel::PieceType>(reader.number());
    }
  }
  if (piece.text.empty() || piece.text.size() > kMaxPieceLen)
    fail(ErrorKind::kFormat, "sentencepiece model: piece {} has {} bytes (1 to {} are possible)", index,
         piece.text.size(), kMaxPieceLen);
  if (!unicode::is_valid(piece.text))
    fail(ErrorKind::kFormat, "sentencepiece model: piece {} is not UTF-8", index);
  if (std::isnan(piece.score))
    fail(ErrorKind::kFormat, "sentencepiece model: the score of piece {} is not a number", index);
  return piece;
}

void read_trainer(ProtoReader reader, SentencePieceModel& model, std::uint64_t& model_type) {
  while (reader.next()) {
    if (reader.field() == 3) model_type = reader.number();
    if (reader.field() == 24) model.whitespace_as_suffix = reader.boolean();
    if (reader.field() == 35) model.byte_fallback = reader.boolean();
    if (reader.field() == 44) model.unk_surface = reader.data();
  }
}

void read_normalizer(ProtoReader reader, SentencePieceModel& model) {
  while (reader.next()) {
    if (reader.field() == 2) model.charsmap = reader.data();
    if (reader.field() == 3) model.add_dummy_prefix = reader.boolean();
    if (reader.field() == 4) model.remove_extra_whitespaces = reader.boolean();
    if (reader.field() == 5) model.escape_whitespaces = reader.boolean();
  }
}

void refuse_denormalizer(ProtoReader reader) {
  while (reader.next())
    if (reader.field() == 2 && !reader.data().empty())
      fail(ErrorKind::kUnsupported, "sentencepiece model with a denormalizer");
}

void check(const SentencePieceModel& model, std::uint64_t model_type) {
  constexpr std::string_view kTypes[] = {"", "unigram", "bpe", "word", "char"};
  if (model_type != 2)
    fail(ErrorKind::kUnsupported, "sentencepiece model of type \"{}\" (known: bpe)",
         model_type < std::size(kTypes) ? kTypes[model_type] : "unknown");
  if (model.pieces.empty()) fail(ErrorKind::kFormat, "sentencepiece model: no pieces");
  std::unordered_set<std::string_view> texts;
  for (const auto& piece : model.pieces)
    if (!texts.insert(piece.text).second)
      fail(ErrorKind::kFormat, "sentencepiece model: piece \"{}\" appears twice", piece.text);
  for (const auto& piece : model.pieces)
    if (piece.type == SentencePieceModel::PieceType::kUnused)
      fail(ErrorKind::kUnsupported, "sentencepiece model with unused pieces (\"{}\")", piece.text);
  const auto unknown = std::count_if(model.pieces.begin(), model.pieces.end(), [](const auto& piece) {
    return piece.type == SentencePieceModel::PieceType::kUnknown;
  });
  if (unknown != 1)
    fail(ErrorKind::kFormat, "sentencepiece model: {} unknown pieces instead of one", unknown);
}

}  // namespace

SentencePieceModel parse_sentencepiece(std::string_view proto) {
  SentencePieceModel model;
  std::uint64_t model_type = 1;
  ProtoReader reader(proto, 0);
  while (reader.next()) {
    if (reader.field() == 1) {
      if (model.pieces.size() == kMaxPieces)
        fail(ErrorKind::kFormat, "sentencepiece model: more than {} pieces", kMaxPieces);
      model.pieces.push_back(read_piece(reader.message(), model.pieces.size()));
    }
    if (reader.field() == 2) read_trainer(reader.message(), model, model_type);
    if (reader.field() == 3) read_normalizer(reader.message(), model);
    if (reader.field() == 5) refuse_denormalizer(reader.message());
  }
  check(model, model_type);
  return model;
}

}  // namespace llava
