#pragma once
#include <string>
#include <string_view>

#include "base/json.h"
#include "checkpoint/checkpoint.h"

/// The pieces read_checkpoint is made of; private to this module.
namespace llava {

/// HF's text config (config.json of a text model, or text_config) as a DecoderConfig. Missing keys take the
/// defaults of the HF class of `model_type` (llama, mistral, qwen2). Error{kUnsupported} names the key and
/// value of any other maths.
DecoderConfig decoder_config_from_json(const Json& config, const std::string& model_type,
                                       std::string_view what);

/// Throws for keys that change the maths in any HF or original config (quantization_config, experts, …).
void reject_unsupported_keys(const Json& config, std::string_view what);

/// HF's vision config (clip, clip_vision_model, siglip, siglip_vision_model, dinov2). Missing keys take the
/// class defaults. Selection fields keep their defaults.
TowerConfig tower_config_from_json(const Json& config, std::string_view what);

/// An integer or a list of integers ("vision_feature_layer", "mm_vision_select_layer").
std::vector<std::int64_t> layer_list(const Json& config, const char* key, std::int64_t fallback,
                                     std::string_view what);

/// "linear", "identity", "mlp{n}x_gelu" into kind and depth. Error{kUnsupported} otherwise.
void set_projector_type(ConnectorConfig& connector, const std::string& type, std::string_view what);

/// int or list of ints; empty where the key is absent or null.
std::vector<std::int64_t> id_list(const Json& config, const char* key, std::string_view what);

/// The processor of a tower for which no preprocessor_config.json exists: its class defaults at the tower's
/// own size.
ImagePolicy default_image_policy(const TowerConfig& tower);

/// Makes tower.input_size what the policy produces. Error{kUnsupported} if the tower cannot take that size.
void match_input_size(TowerConfig& tower, const ImagePolicy& policy, std::string_view what);

/// GGUF metadata (llama, qwen2 architectures) as a DecoderConfig; tensors tell tied heads and biases.
DecoderConfig decoder_config_from_gguf(const TensorFile& file);
GgufVocabulary vocabulary_from_gguf(const TensorFile& file);
/// Tokenizer, chat format, stop ids and decoder of a GGUF file into `info`.
void read_gguf_decoder(const std::filesystem::path& path, CheckpointInfo& info);

/// Whether `folder` holds a model's own weights: model.safetensors or pytorch_model.bin, single or sharded.
bool has_weights(const std::filesystem::path& folder);
/// Opens the weights of `folder` (nothing if it has none) and appends them as sources of `part`.
void add_folder_weights(CheckpointInfo& info, const std::filesystem::path& folder, WeightSource::Part part);
void add_weight_file(CheckpointInfo& info, const std::filesystem::path& file, WeightSource::Part part);
/// The tensor whose name ends in `suffix` in any opened source, or null.
const TensorView* find_suffix(const CheckpointInfo& info, std::string_view suffix);
bool has_tensor_containing(const CheckpointInfo& info, std::string_view text);
/// Vocabulary rows, tied head and stored dtype as the tensors say, which is what counts when config.json
/// differs.
void apply_tensor_facts(CheckpointInfo& info);

/// PEFT's adapter_config.json + adapter_model.{safetensors,bin} of `folder`.
AdapterFiles read_adapter(const std::filesystem::path& folder);

/// Tokenizer of `folder` if it has one, its chat template and generation config. Named formats are left to
/// the caller.
void read_text_files(const std::filesystem::path& folder, CheckpointInfo& info);
std::shared_ptr<const ChatFormat> read_chat_template(const std::filesystem::path& folder);

/// Original LLaVA's config.json (mm_* keys) with its tower, from `folder`. `base`: CheckpointInfo of the
/// base model, if any.
CheckpointInfo read_original_llava(const std::filesystem::path& folder, const Json& config,
                                   const ReadOptions& options, const CheckpointInfo* base);
/// True for a config.json of the original LLaVA code: a mm_vision_tower key or an original architecture.
bool is_original_llava(const Json& config);
/// The file or folder that a config names: absolute, under or beside one of `roots`, or installed
/// (model_folders()). The last component alone is tried too, so that "openai/clip-vit-large-patch14-336"
/// finds a sibling folder of that name. Error{kInput} lists where it looked; `hint` says which option
/// helps.
std::filesystem::path resolve_part(const std::string& name, const std::vector<std::filesystem::path>& roots,
                                   std::string_view what, const std::string& hint);

/// config.json of a vision tower's folder and its processor.
struct TowerFolder {
  std::filesystem::path folder;
  TowerConfig config;
  ImagePolicy policy;
};
TowerFolder read_tower_folder(const std::filesystem::path& folder);
/// preprocessor_config.json (or processor_config.json's image_processor) of `folder`, if there is one.
std::optional<ImagePolicy> read_image_policy(const std::filesystem::path& folder);
/// The original code's image_aspect_ratio, image_grid_pinpoints, mm_patch_merge_type and video keys.
/// Error{kUnsupported} for other maths (highres, s2, resampler, start/end tokens, …). The tower's size is
/// known.
void read_mm_media(const Json& config, ModelConfig& model, ImagePolicy& policy, std::string_view what);

/// LLaVA-Mini's compressor_size, prefusion_layer_num and resolution_ratio, where its tensors are in the checkpoint.
void read_mm_compressor(const Json& config, CheckpointInfo& info, std::string_view what);

/// llava_next's, llava_next_video's and llava_onevision's way from views to rows of the prompt.
void read_hf_media(const Json& config, const std::string& model_type, ModelConfig& model,
                   ImagePolicy& policy, std::string_view what);

/// A CLIP or SigLIP tower inside a checkpoint, described by its tensors' shapes alone.
TowerConfig tower_config_from_tensors(const CheckpointInfo& info, std::string_view what);
/// Number of encoder blocks of the tower inside the checkpoint; 0 if there is none.
std::int64_t count_embedded_layers(const CheckpointInfo& info);

/// Our own layout: config.json with model_type "llava_cpp".
CheckpointInfo read_nano(const std::filesystem::path& folder, const Json& config,
                         const ReadOptions& options);

/// HF layouts: text, llava (tower + text_config) and a vision tower alone.
CheckpointInfo read_hf_text(const std::filesystem::path& folder, const Json& config);
CheckpointInfo read_hf_llava(const std::filesystem::path& folder, const Json& config);
CheckpointInfo read_hf_vision(const std::filesystem::path& folder, const Json& config);
CheckpointInfo read_gguf_file(const std::filesystem::path& path);

/// bos/pad/eos ids of a config.json; Llama's and Mistral's classes default to bos 1 and eos 2.
void read_token_ids(const Json& config, const std::string& model_type, ModelConfig& model,
                    std::string_view what);

}  // namespace llava
