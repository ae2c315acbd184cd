#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/sentencepiece_model.h"
#include "text/unicode.h"
#include "text/vocabulary.h"

namespace llava {

/// A sentencepiece BPE model: text <-> piece ids as the sentencepiece library does it.
class SentencePiece {
 public:
  explicit SentencePiece(SentencePieceModel model);
  SentencePiece(const SentencePiece&) = delete;  // the indices point into model_
  SentencePiece& operator=(const SentencePiece&) = delete;

  /// The ids of a text (no BOS or EOS). Malformed UTF-8 is read as U+FFFD.
  std::vector<std::int64_t> encode(std::string_view text) const;
  std::string normalize(std::string_view text) const;

  std::int64_t find(std::string_view piece) const;  ///< the unknown piece's id if there is none
  bool has(std::string_view piece) const { return ids_.contains(piece); }
  std::int64_t num_pieces() const { return static_cast<std::int64_t>(model_.pieces.size()); }
  const SentencePieceModel::Piece& piece(std::int64_t id) const {
    return model_.pieces[static_cast<std::size_t>(id)];
  }
  std::int64_t unk_id() const { return unk_id_; }
  const SentencePieceModel& model() const { return model_; }

 private:
  struct Prefix {
    std::string_view text;
    std::size_t len;  ///< bytes of the input it stands for
  };
  Prefix normalize_prefix(std::string_view text) const;
  void append_symbol(std::string_view symbol, std::vector<std::int64_t>& ids, bool& last_unknown) const;

  SentencePieceModel model_;
  std::unordered_map<std::string_view, std::int32_t> ids_;  ///< all pieces
  std::unordered_map<std::string_view, std::int32_t>
      mergeable_;  ///< normal, user-defined and unused pieces
  TokenTrie user_defined_;
  std::int64_t unk_id_ = 0;
  std::int32_t byte_ids_[256];
  std::vector<std::uint32_t> charsmap_units_;  ///< a double-array trie
  std::string_view charsmap_texts_;
  std::size_t max_piece_len_ = 0;
};

/// Turns pieces back into text, one after the other, as SentencePieceProcessor::Decode does for the whole
/// list.
class SentencePieceDecoder {
 public:
  /// `add_dummy_prefix` as the decoding model has it.
  SentencePieceDecoder(const SentencePiece& model, bool add_dummy_prefix)
      : model_(&model), add_dummy_prefix_(add_dummy_prefix) {}
  void push(std::string_view piece, std::string& out);
  void flush(std::string& out);

 private:
  std::string surface(std::string_view piece, std::int64_t id);
  void drain_bytes(std::string& out, bool at_end);
  const SentencePiece* model_;
  bool add_dummy_prefix_;
  bool expects_prefix_ = true, prefix_seen_ = false, any_text_ = false;
  std::string bytes_;  ///< of the byte pieces so far
};

}  // namespace llava
