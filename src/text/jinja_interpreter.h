#pragma once
#include "text/jinja.h"
#include "text/jinja_ast.h"

namespace llava::jinja {

/// Walks a template's tree once; see JinjaTemplate::render. `steps` is the whole budget.
JinjaOutput interpret(const Block& program, const OrderedJson& variables, const JinjaLimits& limits,
                      std::size_t steps);

}  // namespace llava::jinja
