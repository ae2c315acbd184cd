#include "convert/convert.h"

#include <CLI/CLI.hpp>

#include <memory>
#include <string>

#include "base/error.h"
#include "cli/model_options.h"
#include "cli/verbs.h"
#include "tensor/convert.h"

namespace llava {

namespace {

struct ConvertArguments {
  std::string in, out, to, adapter, base, dtype;
  std::int64_t max_shard_bytes = kDefaultShardBytes;
};

TargetLayout target_of(const std::string& to) {
  if (to.empty()) return TargetLayout::kSame;
  if (to == "hf") return TargetLayout::kHf;
  if (to == "llava") return TargetLayout::kOriginal;
  throw Error(ErrorKind::kUsage, fmt::format("--to {}: not a layout", to), "hf, llava, or nothing for the input's own");
}

int run_convert(const ConvertArguments& arguments) {
  ConvertOptions options;
  options.in = find_model(arguments.in);
  options.out = arguments.out;
  options.target = target_of(arguments.to);
  if (!arguments.adapter.empty()) options.adapter = arguments.adapter;
  if (!arguments.base.empty()) options.base = find_model(arguments.base);
  if (!arguments.dtype.empty()) options.dtype = dtype_from_string(arguments.dtype);
  if (arguments.max_shard_bytes <= 0) fail(ErrorKind::kUsage, "--max-shard-bytes must be above 0");
  options.max_shard_bytes = arguments.max_shard_bytes;
  convert_checkpoint(options);
  return 0;
}

}  // namespace

std::function<int()> setup_convert(CLI::App& app) {
  auto arguments = std::make_shared<ConvertArguments>();
  app.add_option("--in", arguments->in, "a checkpoint folder, GGUF file or installed model")->required();
  app.add_option("--out", arguments->out, "the folder to write; it must not exist")->required();
  app.add_option("--to", arguments->to, "hf (llava-hf), llava (the original code's); default: as it is");
  app.add_option("--adapter", arguments->adapter, "a PEFT or LLaVA LoRA folder to merge");
  app.add_option("--model-base", arguments->base, "the base of a LoRA or projector folder given as --in");
  app.add_option("--dtype", arguments->dtype, "float32, bfloat16 or float16; default: each weight as stored");
  app.add_option("--max-shard-bytes", arguments->max_shard_bytes, "largest weight file")->capture_default_str();
  return [arguments] { return run_convert(*arguments); };
}

}  // namespace llava
