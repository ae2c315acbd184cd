#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llava {

/// The parts of a sentencepiece ModelProto that encoding and decoding need.
struct SentencePieceModel {
  enum class PieceType {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::kNormal;
  };
  std::vector<Piece> pieces;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  std::string unk_surface = " \xE2\x81\x87 ";
  std::string charsmap;  ///< normalizer_spec.precompiled_charsmap; empty: identity
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

/// Reads the protobuf bytes of a .model file. Error{kFormat} where they are malformed (with the position),
/// have no pieces, more than 2^20 pieces, duplicate pieces or not exactly one unknown piece;
/// Error{kUnsupported} for model types other than BPE.
SentencePieceModel parse_sentencepiece(std::string_view proto);

}  // namespace llava
