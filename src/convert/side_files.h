#pragma once
#include <filesystem>
#include <string>

#include "checkpoint/checkpoint.h"

/// The small files beside the weights.
namespace llava {

/// Copies tokenizer, processor, generation and template files from the checkpoint's folder and then from where
/// its weights are; config.json, indices and adapter files are left out, files already there stay.
void copy_side_files(const std::filesystem::path& target, const CheckpointInfo& base);

/// Adds the token `text` with this id to tokenizer.json, tokenizer_config.json and added_tokens.json of a
/// folder, where those files are.
void add_special_token(const std::filesystem::path& folder, const std::string& text, std::int64_t id);

/// preprocessor_config.json of the images the model was trained on (class LlavaImageProcessor where they are
/// padded to squares, else the tower's) and processor_config.json.
void write_hf_processor(const std::filesystem::path& folder, const CheckpointInfo& base);

/// chat_template.jinja for the formats whose prompts it can repeat (vicuna_v1 and its like). False: not this one.
bool write_chat_template(const std::filesystem::path& folder, const CheckpointInfo& base);

}  // namespace llava
