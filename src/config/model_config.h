#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/media_layout.h"

/// What a model is, as plain data. Filled from a checkpoint's config.json / GGUF metadata by checkpoint/,
/// never from a path.
namespace llava {

enum class TowerKind { kClip, kSiglip, kDinov2 };
enum class Activation { kGelu /* exact erf */, kGeluTanh, kQuickGelu, kSilu, kRelu };
enum class SelectFeature { kPatch /* drop CLS */, kClsPatch /* keep all ("full", "cls_patch") */ };

/// A vision transformer. HF keys in comments where the names differ.
struct TowerConfig {
  TowerKind kind = TowerKind::kClip;
  std::int64_t hidden_size = 1024;
  std::int64_t intermediate_size = 4096;
  std::int64_t num_hidden_layers = 24;
  std::int64_t num_attention_heads = 16;
  std::int64_t image_size = 336;  ///< side the position table was trained at
  std::int64_t input_size =
      336;  ///< side of the pixels we feed (DINOv2 resamples its table; else = image_size)
  std::int64_t patch_size = 14;
  std::int64_t num_channels = 3;
  double layer_norm_eps = 1e-5;
  Activation hidden_act = Activation::kQuickGelu;
  /// mm_vision_select_layer / vision_feature_layer: indices into hidden_states (0 = embeddings, k = after
  /// block k, negative from the end). Several are concatenated on channels.
  std::vector<std::int64_t> select_layers = {-2};
  SelectFeature select_feature = SelectFeature::kPatch;
  bool apply_final_norm = false;  ///< DINOv2: last_hidden_state after `layernorm`
  bool has_cls() const { return kind != TowerKind::kSiglip; }
  std::int64_t grid() const { return input_size / patch_size; }
  std::int64_t num_patches() const { return grid() * grid(); }
  /// Rows the tower hands to the connector for one tile.
  std::int64_t num_features() const {
    return num_patches() + (has_cls() && select_feature == SelectFeature::kClsPatch);
  }
  bool operator==(const TowerConfig&) const = default;
};

enum class ConnectorKind { kIdentity, kLinear, kMlp };

/// mm_projector: [patch merge] -> [LayerNorm] -> Linear -> (act -> Linear) x (depth-1).
struct ConnectorConfig {
  ConnectorKind kind = ConnectorKind::kMlp;
  std::int64_t depth = 2;           ///< n of mlp{n}x_gelu; 1 for linear
  std::int64_t in_size = 1024;      ///< width of one tower feature (before the merge)
  std::int64_t hidden_size = 4096;  ///< width out (= decoder width); also the width between the layers
  Activation act = Activation::kGelu;
  bool bias = true;
  std::int64_t patch_merge =
      1;  ///< mm_patch_merge: k x k neighbours concatenated on channels (pixel shuffle), row-major
  bool input_norm = false;   ///< mm_projector_norm: LayerNorm on the merged features (VipLLaVA's too)
  double input_norm_eps = 1e-5;
  bool class_token = false;  ///< mm_projector_class_token: the CLS feature goes through its own
                             ///< Linear+act+Linear and is put first
  std::int64_t merged_size() const { return in_size * patch_merge * patch_merge; }
  bool operator==(const ConnectorConfig&) const = default;
};

/// mm_patch_merge_type: how tiles' features are put together (specification 1.4.4).
enum class TileMerge {
  kFlat,          ///< one view after another
  kSpatial,       ///< one big grid, row by row, behind the overview
  kSpatialUnpad,  ///< the same without the padding, a newline vector behind every row
};
const char* to_string(TileMerge merge);

/// What stands in the prompt for an image or a video, beyond one view through the connector.
struct MediaConfig {
  TileMerge merge = TileMerge::kFlat;
  bool nobase = false;         ///< the overview's features are left out
  bool max_pool = false;       ///< maxpool2x2: the big grid is pooled, no newlines
  std::int64_t max_tiles = 0;  ///< N of anyres_max_N: the grid is shrunk to N tiles' features; 0: never
  bool image_newline = false;  ///< the checkpoint has the vector
  /// Several images in one prompt are padded to squares, one view each (OneVision).
  bool tile_single_images_only = false;
  double video_fps = 1.0;              ///< frames a second that are shown …
  std::int64_t video_max_frames = 32;  ///< … while they are at most so many; else so many, spread evenly
  std::int64_t video_token_id = -1;         ///< id that stands for one feature of a video; -1: the image's
  PoolMode video_pool = PoolMode::kNone;    ///< mm_spatial_pool_mode / spatial_pool_mode
  std::int64_t video_pool_stride = 2;       ///< mm_spatial_pool_stride
  bool video_pool_first = false;            ///< before the connector
  Newline video_newline = Newline::kNone;   ///< mm_newline_position
  std::int64_t faster_token_stride = 0;     ///< of add_faster_video; 0: no slow-fast
  bool time_instruction = false;            ///< add_time_instruction: the text says when the frames are
  bool image_start_end = false;             ///< mm_use_im_start_end: <im_start> and <im_end> around every image
  /// What stands before each of several images of one question ("Image {}:", counted from 1), and before each
  /// frame of a film, which is then shown as so many images. Empty: nothing.
  std::string image_label, frame_label;
  bool operator==(const MediaConfig&) const = default;
};

enum class RopeType { kDefault, kLinear, kDynamic, kYarn, kLlama3 };
struct RopeScaling {
  RopeType type = RopeType::kDefault;
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;            // llama3
  double beta_fast = 32.0, beta_slow = 1.0;                        // yarn
  std::optional<double> attention_factor, mscale, mscale_all_dim;  // yarn
  bool truncate = true;                                            // yarn
  std::int64_t original_max_position_embeddings = 0;               ///< 0: max_position_embeddings
  bool operator==(const RopeScaling&) const = default;
};

/// One decoder covers Llama, Vicuna, Mistral and Qwen2. Keys equal HF's.
struct DecoderConfig {
  std::string model_type = "llama";  ///< for messages and export only: the maths is in the fields below
  std::int64_t vocab_size =
      32000;  ///< rows of the embedding tensor (read from it, not from config.json, on load)
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 11008;
  std::int64_t num_hidden_layers = 32;
  std::int64_t num_attention_heads = 32;
  std::int64_t num_key_value_heads = 32;
  std::int64_t head_dim = 128;
  std::int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  Activation hidden_act = Activation::kSilu;
  bool attention_bias = false;      ///< q, k, v have biases (Qwen2)
  bool attention_out_bias = false;  ///< o_proj has one too (Llama attention_bias=true)
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  std::int64_t sliding_window = 0;  ///< 0: none; else a query sees itself and the window-1 keys before it
  /// Qwen2: layers below this index use full attention even with a window (max_window_layers); 0: all
  /// layers windowed.
  std::int64_t first_sliding_layer = 0;
  bool operator==(const DecoderConfig&) const = default;
};

/// Makes room for `media_tokens` beside 1,000 of text by linear rotary scaling, as LLaVA-NeXT-Video's demo
/// does for Vicuna's 4,096 positions: the least whole factor (specification 1.5.7). Only for decoders without
/// scaling and with at most 4,096 positions. Returns the factor, 1 where nothing changes.
std::int64_t extend_context(DecoderConfig& decoder, std::int64_t media_tokens);

/// LLaVA-Mini: a few tokens for a whole view, and the text fused with all of its features in front of the decoder
/// (specification 1.8).
struct CompressorConfig {
  std::int64_t size = 1;                 ///< compressor_size: size x size tokens a frame
  std::int64_t prefusion_layer_num = 4;  ///< decoder blocks of the pre-fusion
  std::int64_t resolution_ratio = 1;     ///< views of a frame: ratio x ratio crops and the whole, or the whole alone
  std::int64_t num_tokens() const { return size * size; }
  std::int64_t num_views() const { return resolution_ratio > 1 ? resolution_ratio * resolution_ratio + 1 : 1; }
  bool operator==(const CompressorConfig&) const = default;
};

/// A whole model. Text models have no tower.
struct ModelConfig {
  std::optional<TowerConfig> tower;
  ConnectorConfig connector;  ///< meaningful only with a tower
  DecoderConfig decoder;
  MediaConfig media;
  std::optional<CompressorConfig> compressor;
  std::int64_t image_token_id =
      -200;  ///< id in Prompt.ids that stands for one image feature (-200: original LLaVA sentinel)
  std::int64_t bos_token_id = -1, pad_token_id = -1;
  std::vector<std::int64_t> eos_token_ids;  ///< config.json's; generation_config.json's win when present
  std::string torch_dtype = "float32";      ///< how the weights are stored: float32, bfloat16, float16
  /// Features of one view after the connector.
  std::int64_t num_image_tokens() const;
  /// Error{kUnsupported / kFormat} with every inconsistency at once (head counts, grid % merge, layer
  /// indices, absurd sizes).
  void validate() const;
  bool operator==(const ModelConfig&) const = default;
};

/// Parameters of the model, of its three parts, from the config alone (for memory estimates and `inspect`).
struct ParameterCount {
  std::int64_t tower = 0, connector = 0, decoder = 0;
  std::int64_t total() const { return tower + connector + decoder; }
};
ParameterCount count_parameters(const ModelConfig& config);

const char* to_string(TowerKind kind);
const char* to_string(Activation act);  ///< "gelu", "gelu_pytorch_tanh", "quick_gelu", "silu", "relu"
Activation activation_from_string(const std::string& name);  ///< HF names; Error{kUnsupported} otherwise

}  // namespace llava
