#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/tokenizer.h"  // TextRange

namespace llava {

/// Bounds of one template, so that a hostile checkpoint or request cannot hang or exhaust the process.
struct JinjaLimits {
  std::size_t source_bytes = std::size_t{1} << 20;
  std::size_t depth = 400;  ///< nesting of expressions and blocks, at compile and at run time
  std::size_t steps =
      4'000'000;  ///< operations and 64-byte units of text copied, besides one a byte of input
  std::size_t output_bytes = std::size_t{64} << 20;
};

/// What a template wrote; `generations` are the ranges of `text` written inside {% generation %} blocks.
struct JinjaOutput {
  std::string text;
  std::vector<TextRange> generations;
};

/// A compiled template of the dialect chat templates use, in the environment Hugging Face sets up:
/// trim_blocks, lstrip_blocks, no autoescape, immutable values, loop controls, {% generation %},
/// raise_exception(), strftime_now(). No include, import, extends or call blocks. Immutable after
/// construction; render() may run in several threads.
class JinjaTemplate {
 public:
  /// Error{kFormat} with the line for syntax errors; Error{kUnsupported} for statements of Jinja outside
  /// the dialect.
  explicit JinjaTemplate(std::string source, const JinjaLimits& limits = {});
  ~JinjaTemplate();
  JinjaTemplate(JinjaTemplate&&) noexcept;
  JinjaTemplate& operator=(JinjaTemplate&&) noexcept;

  /// Error{kInput} with the message of raise_exception(), Error{kFormat} with the line for other failures,
  /// Error{kResource} where a limit is passed. `variables` is an object.
  JinjaOutput render(const OrderedJson& variables) const;

 private:
  struct Program;
  std::unique_ptr<const Program> program_;
  JinjaLimits limits_;
};

}  // namespace llava
