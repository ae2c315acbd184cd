#include "batch/collate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

#include "base/error.h"

namespace llava {

namespace {

struct Filler {
  std::int64_t num_rows, width;
  at::Tensor ids, labels, positions, lengths, branch;
  std::vector<std::int64_t> media_rows;

  Filler(std::int64_t rows, std::int64_t longest, std::int64_t pad_id, bool with_labels, bool with_branch)
      : num_rows(rows), width(longest) {
    ids = at::full({rows, longest}, pad_id, at::kLong);
    positions = at::zeros({rows, longest}, at::kLong);
    lengths = at::zeros({rows}, at::kLong);
    if (with_labels) labels = at::full({rows, longest}, kIgnoreIndex, at::kLong);
    if (with_branch) branch = at::zeros({rows, longest}, at::kInt);
  }

  /// At flat position `first`.
  void put(std::int64_t first, const Prompt& prompt, std::int64_t vocab_size) {
    const auto length = static_cast<std::int64_t>(prompt.ids.size());
    lengths.data_ptr<std::int64_t>()[first / width] += length;
    auto* out = ids.data_ptr<std::int64_t>() + first;
    std::copy(prompt.ids.begin(), prompt.ids.end(), out);
    auto* position = positions.data_ptr<std::int64_t>() + first;
    for (std::int64_t t = 0; t < length; ++t)
      position[t] = prompt.positions.empty() ? t : prompt.positions[t];
    if (labels.defined() && !prompt.labels.empty())
      std::copy(prompt.labels.begin(), prompt.labels.end(), labels.data_ptr<std::int64_t>() + first);
    if (branch.defined() && !prompt.branch.empty())
      std::copy(prompt.branch.begin(), prompt.branch.end(), branch.data_ptr<std::int32_t>() + first);
    for (const MediaSpan& span : prompt.media_spans)
      for (std::size_t i = span.begin; i < span.begin + span.len; ++i) {
        LLAVA_ASSERT(i < prompt.ids.size(), "a media span ends behind the prompt");
        if (out[i] < 0 || out[i] >= vocab_size) out[i] = 0;
        media_rows.push_back(first + static_cast<std::int64_t>(i));
      }
  }
};

void check_row(const CollateRow& row) {
  LLAVA_ASSERT(row.prompt != nullptr && !row.prompt->ids.empty(), "a batch row needs a prompt with tokens");
  const Prompt& p = *row.prompt;
  LLAVA_ASSERT(p.labels.empty() || p.labels.size() == p.ids.size(), "labels and ids differ in length");
  LLAVA_ASSERT(p.positions.empty() || p.positions.size() == p.ids.size(),
               "positions and ids differ in length");
  LLAVA_ASSERT(p.branch.empty() || p.branch.size() == p.ids.size(), "branches and ids differ in length");
  LLAVA_ASSERT(row.embeds.defined() || row.media.size() == p.media_spans.size(),
               "a row needs one media tensor for every media span");
}

/// Media tensors in row order, then in the order of the spans; one tensor over all tiles.
at::Tensor join_media(std::span<const CollateRow> rows) {
  std::vector<at::Tensor> all;
  for (const CollateRow& row : rows)
    for (const MediaSpan& span : row.prompt->media_spans) {
      LLAVA_ASSERT(span.item < row.media.size(), "a media span names an item that is not there");
      all.push_back(row.media[span.item]);
    }
  if (all.empty()) return {};
  return all.size() == 1 ? all.front() : at::cat(all, 0);
}

/// Right-padded with zeros to [B,longest,D].
at::Tensor join_embeds(std::span<const CollateRow> rows, std::int64_t longest) {
  std::vector<at::Tensor> all;
  for (const CollateRow& row : rows) {
    LLAVA_ASSERT(row.embeds.defined() && row.embeds.size(0) == static_cast<std::int64_t>(row.prompt->ids.size()),
                 "embeddings for every token of every row");
    all.push_back(at::constant_pad_nd(row.embeds, {0, 0, 0, longest - row.embeds.size(0)}));
  }
  return at::stack(all);
}

}  // namespace

namespace {

/// What the rows have in common.
struct Common {
  std::int64_t longest = 0, total = 0;
  bool with_labels = false, with_branch = false;
  std::optional<MediaForm> form;
};

Common survey(std::span<const CollateRow> rows) {
  LLAVA_ASSERT(!rows.empty(), "a batch needs rows");
  Common common;
  for (const CollateRow& row : rows) {
    check_row(row);
    const auto length = static_cast<std::int64_t>(row.prompt->ids.size());
    common.longest = std::max(common.longest, length);
    common.total += length;
    common.with_labels |= !row.prompt->labels.empty();
    common.with_branch |= !row.prompt->branch.empty();
    if (row.media.empty()) continue;
    LLAVA_ASSERT(!common.form || *common.form == row.form, "a batch's media have one form");
    common.form = row.form;
  }
  return common;
}

std::int64_t pad_id(const ModelConfig& model) {
  return model.pad_token_id >= 0 && model.pad_token_id < model.decoder.vocab_size ? model.pad_token_id : 0;
}

MultimodalBatch text_part(const Filler& filler) {
  MultimodalBatch batch;
  batch.ids = filler.ids;
  batch.labels = filler.labels;
  batch.positions = filler.positions;
  batch.lengths = filler.lengths;
  batch.branch = filler.branch;
  return batch;
}

void add_media(MultimodalBatch& batch, std::span<const CollateRow> rows, const Common& common,
               const Filler& filler) {
  (common.form == MediaForm::kRows       ? batch.rows
   : common.form == MediaForm::kFeatures ? batch.features
                                         : batch.pixels) = join_media(rows);
  bool planned = true;
  for (const CollateRow& row : rows)
    for (const MediaSpan& span : row.prompt->media_spans) {
      batch.media.push_back(span.layout);
      planned &= span.layout.token_count > 0;
    }
  if (!planned) batch.media.clear();  // a prompt made by hand: views as they are
  if (!filler.media_rows.empty()) batch.media_rows = at::tensor(filler.media_rows, at::kLong);
}

}  // namespace

MultimodalBatch collate(std::span<const CollateRow> rows, const ModelConfig& model) {
  const Common common = survey(rows);
  Filler filler(static_cast<std::int64_t>(rows.size()), common.longest, pad_id(model), common.with_labels,
                common.with_branch);
  for (std::size_t i = 0; i < rows.size(); ++i)
    filler.put(static_cast<std::int64_t>(i) * common.longest, *rows[i].prompt, model.decoder.vocab_size);
  MultimodalBatch batch = text_part(filler);
  if (rows.front().embeds.defined()) {
    batch.embeds = join_embeds(rows, common.longest);
    return batch;
  }
  add_media(batch, rows, common, filler);
  return batch;
}

MultimodalBatch collate_packed(std::span<const CollateRow> rows, const ModelConfig& model) {
  const Common common = survey(rows);
  LLAVA_ASSERT(!common.with_branch && !rows.front().embeds.defined(), "packed rows know no branches and no embeddings");
  Filler filler(1, common.total, pad_id(model), common.with_labels, false);
  std::vector<std::int64_t> pieces;
  std::int64_t first = 0;
  for (const CollateRow& row : rows) {
    filler.put(first, *row.prompt, model.decoder.vocab_size);
    if (filler.labels.defined()) filler.labels.data_ptr<std::int64_t>()[first] = kIgnoreIndex;
    pieces.push_back(static_cast<std::int64_t>(row.prompt->ids.size()));
    first += pieces.back();
  }
  MultimodalBatch batch = text_part(filler);
  batch.pieces = {std::move(pieces)};
  add_media(batch, rows, common, filler);
  return batch;
}

MultimodalBatch collate_one(const Prompt& prompt, std::vector<at::Tensor> media, const ModelConfig& model) {
  CollateRow row{&prompt, std::move(media)};
  return collate({&row, 1}, model);
}

}  // namespace llava
