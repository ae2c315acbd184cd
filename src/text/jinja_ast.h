#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

/// Syntax tree of a template (internal to text/jinja*).
namespace llava::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

/// children by kind: kAttribute [object]; kItem [object, key]; kSlice [object, begin?, end?, step?]; kCall
/// [callee, args…]; kFilter and kTest [operand, args…]; kUnary [operand]; kBinary, kAnd, kOr [left, right];
/// kCompare [first, next…] with `ops`; kTernary [then, condition, else?]; kList items; kDict key, value,
/// key, value…
struct Expr {
  enum class Kind {
    kLiteral,
    kName,
    kList,
    kDict,
    kAttribute,
    kItem,
    kSlice,
    kCall,
    kFilter,
    kTest,
    kUnary,
    kBinary,
    kAnd,
    kOr,
    kCompare,
    kTernary,
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  std::size_t depth = 1;
  Value literal;
  std::string name;               ///< name, attribute, filter, test or operator
  std::vector<ExprPtr> children;  ///< null where an optional one is absent
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  std::vector<std::string> ops;
};

struct Stmt;
using Block = std::vector<Stmt>;

struct Branch;

struct Stmt {
  enum class Kind { kText, kOutput, kIf, kFor, kSet, kSetBlock, kMacro, kGeneration, kBreak, kContinue };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;  ///< kText; kSet: the object of `set object.attribute`; kMacro: its name
  std::string attribute;
  std::vector<std::string> targets;  ///< kFor, kSet; kMacro: parameters
  ExprPtr expr;                      ///< kOutput, kSet, kFor (what to iterate)
  ExprPtr filter;                    ///< kFor: the condition behind `if`
  std::vector<Branch> branches;      ///< kIf
  std::vector<ExprPtr> defaults;     ///< kMacro: one a parameter, null where it has none
  Block body, otherwise;             ///< otherwise: else of if and for
  std::unique_ptr<Macro> macro;
};

/// One `if` or `elif`.
struct Branch {
  ExprPtr condition;
  Block body;
};

struct Macro {
  const Stmt* statement = nullptr;
};

/// Compiles a template. Error{kFormat} or Error{kUnsupported} with the line; `max_depth` bounds every
/// nesting.
Block parse_template(const std::string& source, std::size_t max_depth);

}  // namespace llava::jinja
